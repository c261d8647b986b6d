package snapshotter

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
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

	// Uploaded, if not nil, is told of every table that is in the bucket, with
	// the sum of bytes so far. It may be called from several goroutines.
	Uploaded func(bytes int64)
}

const (
	tableBytes     = 32 << 20 // before compression; bounds the memory that a backup takes
	parallelShards = 2
)

// Full backs up the cuts of all shards of a region and publishes the manifest.
func Full(ctx context.Context, bucket objstore.Bucket, cuts []Cut, cfg Config) (*format.Manifest, error) {
	m := &format.Manifest{
		Format:   format.Version,
		ID:       newID(time.Now()),
		Region:   cfg.Region,
		Created:  time.Now().UTC().Truncate(time.Millisecond),
		Software: cfg.Software,
		Merge:    cfg.Merge,
		Shards:   make([]format.Shard, len(cuts)),
	}
	u := uploader{bucket: bucket, manifest: m, uploaded: cfg.Uploaded}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelShards)
	for i, cut := range cuts {
		g.Go(func() error {
			shard, err := u.shard(ctx, cut)
			if err != nil {
				return fmt.Errorf("backup of shard %d: %w", cut.Partition(), err)
			}
			m.Shards[i] = shard
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(m.Shards, func(a, b format.Shard) int { return int(a.Partition - b.Partition) })
	if err := catalog.Publish(context.WithoutCancel(ctx), bucket, m); err != nil {
		return nil, err
	}
	return m, nil
}

// newID names a backup. Names sort by time; the random part keeps two backups
// of one millisecond apart.
func newID(now time.Time) string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails, by its contract
	return now.UTC().Format("20060102T150405.000Z") + "-" + hex.EncodeToString(random[:])
}

// uploader copies tables into the bucket.
type uploader struct {
	bucket   objstore.Bucket
	manifest *format.Manifest
	uploaded func(bytes int64)
}

func (u *uploader) shard(ctx context.Context, cut Cut) (format.Shard, error) {
	shard := format.Shard{Partition: cut.Partition(), Lineage: cut.LineageID(), States: cut.States()}
	err := cut.WriteTables(ctx, tableBytes, func() (io.WriteCloser, error) {
		return &table{ctx: ctx, up: u, shard: &shard}, nil
	})
	return shard, err
}

// table collects one table in memory and uploads it on Close.
type table struct {
	bytes.Buffer
	ctx   context.Context // of the one call that the table lives in
	up    *uploader
	shard *format.Shard
}

func (t *table) Close() error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	sum := sha256.Sum256(t.Bytes())
	tab := format.Table{
		Name:   t.up.manifest.TableName(t.shard.Partition, len(t.shard.Tables), sum),
		Size:   int64(t.Len()),
		SHA256: hex.EncodeToString(sum[:]),
	}
	if err := t.up.bucket.Create(t.ctx, tab.Name, t.Bytes()); err != nil {
		return err
	}
	t.shard.Tables = append(t.shard.Tables, tab)
	if t.up.uploaded != nil {
		t.up.uploaded(tab.Size)
	}
	return nil
}
