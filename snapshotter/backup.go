package snapshotter

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Cut is a shard frozen at one vector.
type Cut interface {
	Partition() int32
	LineageID() string
	States() []events.LogState

	// WriteTables writes the cut as disjoint sorted tables in order, each of
	// about tableBytes. For each it calls create and closes the writer.
	WriteTables(ctx context.Context, tableBytes int64, create func() (io.WriteCloser, error)) error
}

// Config is what a backup says of itself.
type Config struct {
	Region   events.Region
	Merge    map[events.Stream]string // the rule of each stream
	Software string                   // name and version of the writer

	// Uploaded, if not nil, is told the bytes of every table that is in the
	// bucket. It may be called from several goroutines.
	Uploaded func(bytes int64)
}

const (
	tableBytes     = 32 << 20 // before compression; bounds the memory that a backup takes
	parallelShards = 2
)

// Full backs up the cuts of all shards of a region and publishes the manifest.
// After an error there is no backup, except that the manifest may have been
// stored although its answer was lost; then the backup is whole.
func Full(ctx context.Context, bucket objstore.Bucket, cuts []Cut, cfg Config) (*format.Manifest, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	m := &format.Manifest{
		Format:   format.Version,
		ID:       newID(now),
		Region:   cfg.Region,
		Created:  now,
		Software: cfg.Software,
		Merge:    map[events.Stream]string{},
		Shards:   make([]format.Shard, len(cuts)),
	}
	maps.Copy(m.Merge, cfg.Merge)
	cuts = slices.SortedFunc(slices.Values(cuts), func(a, b Cut) int { return cmp.Compare(a.Partition(), b.Partition()) })
	for i, cut := range cuts {
		m.Shards[i] = format.Shard{
			Partition: cut.Partition(), Lineage: cut.LineageID(),
			States: append([]events.LogState{}, cut.States()...), Tables: []format.Table{},
		}
	}
	if err := m.Validate(); err != nil { // before anything is uploaded in vain
		return nil, err
	}
	u := uploader{bucket: bucket, manifest: m, uploaded: cfg.Uploaded}
	g, together := errgroup.WithContext(ctx)
	g.SetLimit(parallelShards)
	for i, cut := range cuts {
		g.Go(func() error {
			if err := u.tables(together, cut, &m.Shards[i]); err != nil {
				return fmt.Errorf("backup of shard %d: %w", cut.Partition(), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := catalog.Publish(ctx, bucket, m); err != nil {
		return nil, err
	}
	return m, nil
}

func newID(now time.Time) string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails, by its contract
	return format.NewID(now, random)
}

// uploader copies tables into the bucket.
type uploader struct {
	bucket   objstore.Bucket
	manifest *format.Manifest
	uploaded func(bytes int64)
}

// tables uploads the tables of a cut and adds them to its shard.
func (u *uploader) tables(ctx context.Context, cut Cut, shard *format.Shard) error {
	opened := 0
	err := cut.WriteTables(ctx, tableBytes, func() (io.WriteCloser, error) {
		opened++
		return &table{ctx: ctx, up: u, shard: shard}, nil
	})
	if err == nil && len(shard.Tables) != opened {
		err = fmt.Errorf("%d of %d tables are not in the bucket", opened-len(shard.Tables), opened)
	}
	return err
}

// table collects one table in memory and uploads it on Close.
type table struct {
	buf    bytes.Buffer
	ctx    context.Context // of the one call that the table lives in
	up     *uploader
	shard  *format.Shard
	closed bool
}

var errClosed = errors.New("table is closed already")

func (t *table) Write(p []byte) (int, error) {
	if t.closed {
		return 0, errClosed
	}
	return t.buf.Write(p)
}

func (t *table) Close() error {
	if t.closed {
		return errClosed
	}
	t.closed = true
	if err := t.ctx.Err(); err != nil {
		return err
	}
	sum := sha256.Sum256(t.buf.Bytes())
	tab := format.Table{
		Name:   t.up.manifest.TableName(t.shard.Partition, len(t.shard.Tables), sum),
		Size:   int64(t.buf.Len()),
		SHA256: hex.EncodeToString(sum[:]),
	}
	if err := t.up.bucket.Create(t.ctx, tab.Name, t.buf.Bytes()); err != nil {
		return err
	}
	t.shard.Tables = append(t.shard.Tables, tab)
	if t.up.uploaded != nil {
		t.up.uploaded(tab.Size)
	}
	return nil
}
