package copies

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// Config is what is copied from where to where.
type Config struct {
	Region events.Region
	From   objstore.Bucket
	To     objstore.Bucket
	Owner  string // who copies, for people who look at pins

	// Copied, if not nil, is told the bytes of every object that has been copied. It
	// may be called from several goroutines.
	Copied func(bytes int64)
}

// Report says what a run has copied.
type Report struct {
	Backups  []string `json:"backups"`  // ids, of those that the copy has now and had not
	Segments int      `json:"segments"` // likewise
	Objects  int64    `json:"objects"`
	Bytes    int64    `json:"bytes"`
	There    int      `json:"there"` // backups that the copy had already

	// Archived is when the archive was looked at of which the copy has all that was there
	// then; zero: it does not have all of it.
	Archived time.Time `json:"archived,omitzero"`

	Skipped []string `json:"skipped"` // ids of backups that it does not get: it has pruned past them, or lacks what they build on
}

const (
	parallelObjects = 4 // of a backup
	parallelShards  = 4 // whose archives are copied; of each one object

	// maxObjectBytes is the largest object that is copied: it is held in memory.
	maxObjectBytes = objstore.MaxObjectBytes
)

// run is one copying.
type run struct {
	Config
	report *Report

	objects, bytes, segments atomic.Int64
}

// Run copies what the other bucket lacks: backups, oldest first, then segments. What is damaged
// keeps nothing from being copied but what builds on it, and of an archive what comes behind it;
// it is an error all the same. The report tells what has been copied also if there is one.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &run{Config: cfg, report: &Report{Backups: []string{}, Skipped: []string{}}}
	err := r.backups(ctx)
	if ctx.Err() == nil {
		began := time.Now().UTC()
		failed := r.archives(ctx)
		if failed == nil {
			r.report.Archived = began
		}
		err = errors.Join(err, failed)
	}
	r.report.Objects, r.report.Bytes, r.report.Segments = r.objects.Load(), r.bytes.Load(), int(r.segments.Load())
	if err != nil {
		return r.report, fmt.Errorf("copy backups of %s to %s: %w", cfg.Region, cfg.To, err)
	}
	return r.report, nil
}

func (r *run) backups(ctx context.Context) error {
	ids, err := catalog.IDs(ctx, r.From, r.Region)
	if err != nil {
		return err
	}
	there, err := catalog.Manifests(ctx, r.To, r.Region)
	if err != nil {
		return err
	}
	floor, err := catalog.NewestFloor(ctx, r.To, r.Region)
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, id := range there {
		has[id] = true
	}
	var failed []error
	for _, id := range ids {
		switch {
		case has[id]:
			r.report.There++
			continue
		case floor != nil && id <= floor.Below:
			r.report.Skipped = append(r.report.Skipped, id)
			continue
		}
		if has[id], err = r.backup(ctx, id, has); err != nil {
			failed = append(failed, fmt.Errorf("backup %s: %w", id, err))
		}
		if err != nil && !isOfOne(err) {
			break
		}
	}
	return errors.Join(failed...)
}

// isOfOne says whether an error is about the objects of one backup, or of one shard's archive, and
// says nothing of others: what is damaged or gone, what only a newer version can read,
// what is to be thawed first.
func isOfOne(err error) bool {
	switch events.KindOf(err) {
	case events.KindInconsistent, events.KindRefused:
		return true
	}
	return slices.ContainsFunc([]error{objstore.ErrNotFound, objstore.ErrExists, objstore.ErrInvalid, objstore.ErrArchived}, func(kind error) bool { return errors.Is(err, kind) })
}

// backup copies one backup, while a pin keeps it from being deleted. It is skipped, as
// is one that lacks what it builds on, if the copy's prune has gone past it.
func (r *run) backup(ctx context.Context, id string, has map[string]bool) (copied bool, err error) {
	m, err := catalog.Load(ctx, r.From, r.Region, id)
	if events.KindOf(err) == events.KindNotFound {
		return false, nil // it was pruned meanwhile
	}
	if err != nil {
		return false, err
	}
	for _, parent := range m.Parents {
		if !has[parent] {
			r.report.Skipped = append(r.report.Skipped, id)
			return false, nil
		}
	}
	src := restore.Source{Bucket: r.From, Owner: r.Owner}
	_, err = src.Pinned(ctx, m, func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(parallelObjects)
		for t := range m.Tables() {
			g.Go(func() error { return r.table(ctx, t) })
		}
		return g.Wait()
	})
	if err != nil {
		return false, err
	}
	switch err := catalog.Publish(ctx, r.To, m); {
	case events.KindOf(err) == events.KindRefused: // a prune has gone past it meanwhile
		r.report.Skipped = append(r.report.Skipped, id)
		return false, nil
	case err != nil:
		return false, err
	}
	r.report.Backups = append(r.report.Backups, id)
	return true, nil
}

// table copies one table, verified against the manifest, unless it is there.
func (r *run) table(ctx context.Context, t format.Table) error {
	size, sum := t.Stored()
	info, err := r.To.Stat(ctx, t.Name)
	switch {
	case err == nil && info.Size == size:
		return nil // its hash is in its name
	case err == nil:
		return events.Errorf(events.KindInconsistent, "object %s has %d bytes in the copy, the manifest says %d", t.Name, info.Size, size)
	case !errors.Is(err, objstore.ErrNotFound):
		return err
	}
	return r.object(ctx, t.Name, func(body []byte) error {
		if got := sha256.Sum256(body); int64(len(body)) != size || hex.EncodeToString(got[:]) != sum {
			return fmt.Errorf("%d bytes with SHA-256 %x, the manifest says %d bytes with %s", len(body), got, size, sum)
		}
		return nil
	})
}

// object copies an object once check has found it sound. One reading that finds damage
// proves none: it is read again.
func (r *run) object(ctx context.Context, name string, check func(body []byte) error) error {
	var body []byte
	err := restore.Retry(ctx, func() error {
		var err error
		if body, err = objstore.ReadAll(ctx, r.From, name, maxObjectBytes); err != nil {
			return err
		}
		if err := check(body); err != nil {
			return fmt.Errorf("object %s: %w: %w", name, objstore.ErrCorrupt, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.To.Create(ctx, name, body); err != nil {
		return err
	}
	r.objects.Add(1)
	r.bytes.Add(int64(len(body)))
	if r.Copied != nil {
		r.Copied(int64(len(body)))
	}
	return nil
}

// archives copies the segments of all shards, some at a time: order matters within one only. One
// that fails does not end the others.
func (r *run) archives(ctx context.Context) error {
	shards, err := segment.Shards(ctx, r.From, r.Region)
	if err != nil {
		return err
	}
	failed := make([]error, len(shards))
	var g errgroup.Group
	g.SetLimit(parallelShards)
	for i, shard := range shards {
		g.Go(func() error {
			if err := r.archive(ctx, shard); err != nil {
				failed[i] = fmt.Errorf("segments of shard %d: %w", shard, err)
			}
			return nil
		})
	}
	_ = g.Wait() // nothing returns an error
	return errors.Join(failed...)
}

// archive copies the segments of a shard behind those that are there, in order, so that
// the copy never has a segment without those before it. What is void is left out.
func (r *run) archive(ctx context.Context, shard int32) error {
	all, newest, err := segment.List(ctx, r.From, r.Region, shard)
	if err != nil {
		return err
	}
	there, err := segment.Numbers(ctx, r.To, r.Region, shard)
	if err != nil {
		return err
	}
	last := int64(0)
	if len(there) > 0 {
		last = there[len(there)-1]
	}
	for _, at := range all {
		if at.Number <= last || newest != nil && newest.IsVoid(at.Number) {
			continue
		}
		err := r.object(ctx, format.SegmentName(r.Region, shard, at.Number), func(body []byte) error {
			_, err := segment.Verify(body, r.Region, shard, at.Number)
			return err
		})
		if errors.Is(err, objstore.ErrNotFound) {
			continue // it was pruned meanwhile, and those before it
		}
		if err != nil {
			return err
		}
		r.segments.Add(1)
	}
	return nil
}
