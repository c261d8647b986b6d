// Package restore brings a backup back: it fetches every table of the backup,
// verifies it against the manifest, and hands it to a Target that assembles the
// state and proves it. Nothing is taken on trust: a table whose size or hash
// differs is refused and named.
package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Target is where state is restored to. Its methods are called from several
// goroutines, for one shard from one.
type Target interface {
	// Create opens a place for the nth table of a shard. If fetching the table
	// broke off, it is called again for the same table: what was written before
	// is forgotten.
	Create(partition int32, n int) (io.WriteCloser, error)

	// Finish assembles the shard from the tables, in order, and proves that
	// its digests and counts are those of shard.States.
	Finish(ctx context.Context, shard format.Shard) error
}

// Report says what a restore did.
type Report struct {
	Backup   string            `json:"backup"`
	Region   events.Region     `json:"region"`
	Created  time.Time         `json:"created"` // when the backup was made
	Tables   int               `json:"tables"`
	Bytes    int64             `json:"bytes"`  // fetched
	States   []events.LogState `json:"states"` // proved
	Duration time.Duration     `json:"duration_ns"`
}

const (
	parallelShards = 2
	fetchAttempts  = 3 // of one table; damage may be that of one reading
	fetchPause     = time.Second
)

// Run restores a backup. fetched, if not nil, is told the bytes of every table
// that has been fetched and verified; it may be called from several goroutines.
func Run(ctx context.Context, bucket objstore.Reader, m *format.Manifest, target Target, fetched func(bytes int64)) (*Report, error) {
	begun := time.Now()
	report := &Report{Backup: m.ID, Region: m.Region, Created: m.Created, Bytes: m.Bytes(), States: m.States()}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelShards)
	for _, shard := range m.Shards {
		report.Tables += len(shard.Tables)
		g.Go(func() error {
			for n, t := range shard.Tables {
				if err := fetch(ctx, bucket, t, shard.Partition, n, target); err != nil {
					return fmt.Errorf("restore of backup %s, object %s: %w", m.ID, t.Name, err)
				}
				if fetched != nil {
					fetched(t.Size)
				}
			}
			if err := target.Finish(ctx, shard); err != nil {
				return fmt.Errorf("restore of backup %s: %w", m.ID, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	report.Duration = time.Since(begun)
	return report, nil
}

// fetch copies one table and verifies it. A reading that failed in a way that
// may pass is tried again.
func fetch(ctx context.Context, bucket objstore.Reader, t format.Table, partition int32, n int, target Target) error {
	for attempt := 1; ; attempt++ {
		err := fetchOnce(ctx, bucket, t, partition, n, target)
		damaged := errors.Is(err, objstore.ErrCorrupt)
		if attempt < fetchAttempts && (damaged || objstore.IsTemporary(err)) {
			if stopped := pause(ctx); stopped != nil { // one reading proves no damage
				return fmt.Errorf("%w after attempt %d: %w", stopped, attempt, err)
			}
			continue
		}
		if damaged {
			return events.Errorf(events.KindInconsistent, "%w", err)
		}
		return err
	}
}

func pause(ctx context.Context) error {
	timer := time.NewTimer(fetchPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func fetchOnce(ctx context.Context, bucket objstore.Reader, t format.Table, partition int32, n int, target Target) (err error) {
	body, _, err := bucket.Get(ctx, t.Name)
	if errors.Is(err, objstore.ErrNotFound) {
		return events.Errorf(events.KindInconsistent, "missing from the bucket: the backup is not complete: %w", err)
	}
	if err != nil {
		return err
	}
	defer body.Close()
	out, err := target.Create(partition, n)
	if err != nil {
		return err
	}
	hash := sha256.New()
	// One byte more than promised is enough to see that there is more.
	size, err := io.Copy(io.MultiWriter(out, hash), io.LimitReader(body, t.Size+1))
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); size != t.Size || sum != t.SHA256 {
		return fmt.Errorf("%w: %d bytes with SHA-256 %s are there, the manifest says %d bytes with %s", objstore.ErrCorrupt, size, sum, t.Size, t.SHA256)
	}
	return nil
}
