package copies

import (
	"cmp"
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
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
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

	Cache *catalog.Cache // of the manifests that the copy has; nil: none

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
	There    int      `json:"there"`  // backups that the copy had already
	Mended   int64    `json:"mended"` // objects that the copy had lost, and has again

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

	objects, bytes, segments, mended atomic.Int64
}

// Run copies what the other bucket lacks: backups, oldest first, then segments; and what it has
// lost of those that it had, unless that was pruned there. What is damaged
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
	r.report.Objects, r.report.Bytes, r.report.Segments, r.report.Mended = r.objects.Load(), r.bytes.Load(), int(r.segments.Load()), r.mended.Load()
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
	there, err := inventory.ReadCached(ctx, r.To, r.Region, r.Cache)
	if err != nil {
		return err
	}
	floor, err := catalog.NewestFloor(ctx, r.To, r.Region)
	if err != nil {
		return err
	}
	has, lacking := map[string]bool{}, map[string]inventory.Backup{}
	for _, id := range there.Late {
		has[id] = true
	}
	for _, b := range there.Backups {
		if has[b.ID] = true; !b.Restorable() {
			lacking[b.ID] = b
		}
	}
	var failed []error
	for _, id := range ids {
		b, lacks := lacking[id]
		switch {
		case lacks:
			r.report.There++
			err = r.mend(ctx, b)
		case has[id]:
			r.report.There++
			continue
		case floor != nil && id <= floor.Below:
			r.report.Skipped = append(r.report.Skipped, id)
			continue
		default:
			has[id], err = r.backup(ctx, id, has)
		}
		if err != nil {
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
	if err := r.tables(ctx, m, slices.Collect(m.Tables())); err != nil {
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

// mend copies the tables again that the copy has lost of a backup. An object that is there and is
// not what it should be stays, and is named: nothing is ever overwritten.
func (r *run) mend(ctx context.Context, b inventory.Backup) error {
	var lost []format.Table
	if b.Manifest != nil {
		for t := range b.Manifest.Tables() {
			if slices.ContainsFunc(b.Problems, func(p inventory.Problem) bool { return p.Object == t.Name }) {
				lost = append(lost, t)
			}
		}
		if len(lost) == 0 {
			return nil // it lacks what it builds on
		}
	}
	m, err := catalog.Load(ctx, r.From, r.Region, b.ID)
	switch kind := events.KindOf(err); {
	case kind == events.KindNotFound || kind == events.KindRefused:
		return nil // it was pruned meanwhile, or only a newer version can read it, here and there
	case err != nil:
		return err
	case b.Manifest == nil:
		return events.Errorf(events.KindInconsistent, "object %s in the copy: %s; %s", b.Problems[0].Object, b.Problems[0].Error, deleteThere)
	}
	if err := r.tables(ctx, m, lost); err != nil {
		return err
	}
	r.mended.Add(int64(len(lost)))
	return nil
}

// deleteThere is what helps against an object of a copy that is damaged.
const deleteThere = "delete that object there by hand, and it is copied again"

// tables copies tables of a backup, while a pin keeps it from being deleted.
func (r *run) tables(ctx context.Context, m *format.Manifest, tables []format.Table) error {
	src := restore.Source{Bucket: r.From, Owner: r.Owner}
	_, err := src.Pinned(ctx, m, func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(parallelObjects)
		for _, t := range tables {
			g.Go(func() error { return r.table(ctx, t) })
		}
		return g.Wait()
	})
	return err
}

// table copies one table, verified against the manifest, unless it is there.
func (r *run) table(ctx context.Context, t format.Table) error {
	size, sum := t.Stored()
	info, err := r.To.Stat(ctx, t.Name)
	switch {
	case err == nil && info.Size == size:
		return nil // its hash is in its name
	case err == nil:
		return events.Errorf(events.KindInconsistent, "object %s has %d bytes in the copy, the manifest says %d; %s", t.Name, info.Size, size, deleteThere)
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
// the copy never has a segment without those before it; and those that it has lost among them. What
// is void is left out, and what lies before all that are there: that was pruned.
func (r *run) archive(ctx context.Context, shard int32) error {
	all, newest, err := segment.List(ctx, r.From, r.Region, shard)
	if err != nil {
		return err
	}
	there, first, last := map[int64]int64{}, int64(0), int64(0)
	for at, err := range segment.Behind(ctx, r.To, r.Region, shard, 0) {
		if err != nil {
			return err
		}
		there[at.Number], first, last = at.Size, cmp.Or(first, at.Number), at.Number
	}
	var failed []error
	for _, at := range all {
		if at.Number < first || newest != nil && newest.IsVoid(at.Number) {
			continue
		}
		switch size, is := there[at.Number]; {
		case !is:
			err = r.segment(ctx, shard, at.Number, at.Number < last)
		case size != at.Size:
			err = r.sound(ctx, shard, at.Number)
		default:
			continue
		}
		if err != nil {
			failed = append(failed, err)
		}
		if err != nil && (at.Number > last || !isOfOne(err)) {
			break
		}
	}
	return errors.Join(failed...)
}

// segment copies one segment, unless it was pruned meanwhile, and those before it with it.
func (r *run) segment(ctx context.Context, shard int32, number int64, lost bool) error {
	err := r.object(ctx, format.SegmentName(r.Region, shard, number), func(body []byte) error {
		_, err := segment.Verify(body, r.Region, shard, number)
		return err
	})
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	r.segments.Add(1)
	if lost {
		r.mended.Add(1)
	}
	return nil
}

// sound is nil if a segment that is there, in another size than where it is copied from, is what
// it should be: then the other is damaged.
func (r *run) sound(ctx context.Context, shard int32, number int64) error {
	name := format.SegmentName(r.Region, shard, number)
	body, err := objstore.ReadAll(ctx, r.To, name, maxObjectBytes)
	if err != nil {
		return err
	}
	if _, err := segment.Verify(body, r.Region, shard, number); err != nil {
		return fmt.Errorf("in the copy: %w; %s", err, deleteThere)
	}
	return nil
}
