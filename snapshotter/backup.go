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
	"hash"
	"io"
	"maps"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// Cut is a shard frozen at one vector.
type Cut interface {
	Partition() int32
	LineageID() string
	Epoch() events.Epoch // under which the shard is open; 0: none
	States() []events.LogState

	// WriteTables writes the cut, or for a delta what has changed since its parent,
	// as disjoint sorted tables in order, each of about tableBytes. For each it calls
	// create, with the table's first key, and closes the writer.
	WriteTables(ctx context.Context, tableBytes int64, create func(first []byte) (io.WriteCloser, error)) error
}

// Config is what a backup says of itself.
type Config struct {
	Region   events.Region
	Merge    map[events.Stream]string // the rule of each stream
	Software string                   // name and version of the writer

	// Sealer seals every table. Required; seal.None() for tables as they are.
	Sealer *seal.Sealer

	// Groups are the offsets of consumer groups that go with the backup; nil: none.
	Groups *format.Groups

	// Uploaded, if not nil, is told the bytes of every table that is in the
	// bucket. It may be called from several goroutines.
	Uploaded func(bytes int64)
}

// tableBytes is the size of a table before compression; it bounds the memory that a backup
// takes.
const tableBytes = 32 << 20

// parallelShards is how many shards are copied at a time: folding goes on meanwhile, and
// needs processors too.
func parallelShards() int { return max(2, runtime.GOMAXPROCS(0)/2) }

// Full backs up the cuts of all shards of a region and publishes the manifest.
// After an error there is no backup, except that the manifest may have been
// stored although its answer was lost; then the backup is whole.
func Full(ctx context.Context, bucket objstore.Bucket, cuts []Cut, cfg Config) (*format.Manifest, error) {
	id, now := NewID()
	m := cfg.manifest(id, now)
	for _, cut := range sorted(cuts) {
		m.Shards = append(m.Shards, emptyShard(cut))
	}
	if err := m.Validate(); err != nil { // before anything is uploaded in vain
		return nil, err
	}
	shards, err := Shards(ctx, bucket, id, cuts, cfg)
	if err != nil {
		return nil, err
	}
	return Publish(ctx, bucket, id, now, shards, cfg)
}

// NewID names a backup that begins now.
func NewID() (id string, now time.Time) {
	now = time.Now().UTC().Truncate(time.Millisecond)
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails, by its contract
	return format.NewID(now, random), now
}

// Shards copies the cuts of some shards into the bucket, as parts of the backup
// with an id. Nothing refers to them until Publish.
func Shards(ctx context.Context, bucket objstore.Bucket, id string, cuts []Cut, cfg Config) ([]format.Shard, error) {
	if !format.ValidID(id) {
		return nil, events.Errorf(events.KindInvalid, "backup id %q is malformed", id)
	}
	if cfg.Sealer == nil {
		return nil, errors.New("no sealer: tables are sealed, or explicitly not")
	}
	cuts = sorted(cuts)
	shards := make([]format.Shard, len(cuts))
	u := uploader{bucket: bucket, manifest: cfg.manifest(id, time.Time{}), sealer: cfg.Sealer, uploaded: cfg.Uploaded}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelShards())
	for i, cut := range cuts {
		shards[i] = emptyShard(cut)
		g.Go(func() error {
			if err := u.tables(ctx, cut, &shards[i]); err != nil {
				return fmt.Errorf("backup of shard %d: %w", cut.Partition(), err)
			}
			return nil
		})
	}
	return shards, g.Wait()
}

// Publish makes the backup exist of which all shards have been copied.
func Publish(ctx context.Context, bucket objstore.Bucket, id string, created time.Time, shards []format.Shard, cfg Config) (*format.Manifest, error) {
	m := cfg.manifest(id, created)
	m.Shards = byPartition(shards)
	return publish(ctx, bucket, m)
}

// PublishDelta is Publish for a backup of what has changed since another: that which all
// cuts that were copied were told (Cut). An error of kind events.KindInconsistent says
// that they do not fit.
func PublishDelta(ctx context.Context, bucket objstore.Bucket, id string, created time.Time, parent *format.Manifest, shards []format.Shard, cfg Config) (*format.Manifest, error) {
	if id <= parent.ID {
		return nil, events.Errorf(events.KindRefused, "backup %s cannot build on %s, whose id is not lower; check this machine's clock", id, parent.ID)
	}
	m := cfg.manifest(id, created)
	m.Kind, m.Parents = format.Delta, parent.Path()
	m.Shards = byPartition(shards)
	if err := m.Follows(parent); err != nil {
		return nil, err
	}
	return publish(ctx, bucket, m)
}

func byPartition(shards []format.Shard) []format.Shard {
	return slices.SortedFunc(slices.Values(shards), func(a, b format.Shard) int { return cmp.Compare(a.Partition, b.Partition) })
}

func publish(ctx context.Context, bucket objstore.Bucket, m *format.Manifest) (*format.Manifest, error) {
	if err := catalog.Publish(ctx, bucket, m); err != nil {
		return nil, err
	}
	return m, nil
}

// manifest is that of a backup without shards.
func (c Config) manifest(id string, created time.Time) *format.Manifest {
	m := &format.Manifest{
		Format: format.Version, ID: id, Kind: format.Full, Region: c.Region, Created: created, Software: c.Software,
		Merge: map[events.Stream]string{}, Shards: []format.Shard{}, Groups: c.Groups,
	}
	maps.Copy(m.Merge, c.Merge)
	return m
}

func sorted(cuts []Cut) []Cut {
	return slices.SortedFunc(slices.Values(cuts), func(a, b Cut) int { return cmp.Compare(a.Partition(), b.Partition()) })
}

// emptyShard is a shard of a backup before any of its tables are in the bucket.
func emptyShard(cut Cut) format.Shard {
	return format.Shard{
		Partition: cut.Partition(), Lineage: cut.LineageID(), Epoch: cut.Epoch(),
		States: append([]events.LogState{}, cut.States()...), Tables: []format.Table{},
	}
}

// uploader copies tables into the bucket.
type uploader struct {
	bucket   objstore.Bucket
	manifest *format.Manifest
	sealer   *seal.Sealer
	uploaded func(bytes int64)
}

// tables uploads the tables of a cut and adds them to its shard. While one is uploaded the
// next is written.
func (u *uploader) tables(ctx context.Context, cut Cut, shard *format.Shard) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	uploads, uctx := errgroup.WithContext(ctx)
	uploads.SetLimit(1)
	var firsts [][]byte
	err := cut.WriteTables(uctx, tableBytes, func(first []byte) (io.WriteCloser, error) {
		firsts = append(firsts, bytes.Clone(first))
		return u.newTable(uctx, shard, uploads)
	})
	if err != nil {
		if failed := context.Cause(uctx); failed != nil {
			err = failed // and nothing else was wrong
		}
		cancel()
		_ = uploads.Wait() // for nothing
		return err
	}
	if err := uploads.Wait(); err != nil {
		return err
	}
	if len(shard.Tables) != len(firsts) {
		return fmt.Errorf("%d of %d tables are not in the bucket", len(firsts)-len(shard.Tables), len(firsts))
	}
	if len(firsts) == 0 {
		return nil
	}
	shard.Firsts, err = u.sealFirsts(firsts)
	return err
}

// sealFirsts seals the first keys of a shard's tables, as the tables are sealed.
func (u *uploader) sealFirsts(firsts [][]byte) ([]byte, error) {
	var stored bytes.Buffer
	w, err := u.sealer.Writer(&stored)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(format.EncodeFirsts(firsts))
	err = errors.Join(err, w.Close())
	return stored.Bytes(), err
}

// table collects one table in memory, sealed, and has it uploaded on Close.
type table struct {
	stored  bytes.Buffer
	sealed  io.WriteCloser  // into stored
	sum     hash.Hash       // of the table
	size    int64           // of the table
	ctx     context.Context // of the one call that the table lives in
	up      *uploader
	uploads *errgroup.Group
	shard   *format.Shard
	closed  bool
}

var errClosed = errors.New("table is closed already")

func (u *uploader) newTable(ctx context.Context, shard *format.Shard, uploads *errgroup.Group) (*table, error) {
	t := &table{sum: sha256.New(), ctx: ctx, up: u, uploads: uploads, shard: shard}
	var err error
	t.sealed, err = u.sealer.Writer(&t.stored)
	return t, err
}

func (t *table) Write(p []byte) (int, error) {
	if t.closed {
		return 0, errClosed
	}
	_, _ = t.sum.Write(p) // never fails, by its contract
	t.size += int64(len(p))
	return t.sealed.Write(p)
}

// Close ends the table, and begins to upload it once the one before is uploaded.
func (t *table) Close() error {
	if t.closed {
		return errClosed
	}
	t.closed = true
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if err := t.sealed.Close(); err != nil {
		return err
	}
	keys := t.up.sealer.Keys()
	stored := sha256.Sum256(t.stored.Bytes())
	tab := format.Table{
		Name: t.up.manifest.TableName(t.shard.Partition, len(t.shard.Tables), stored, len(keys) > 0),
		Size: t.size, SHA256: hex.EncodeToString(t.sum.Sum(nil)),
		StoredSize: int64(t.stored.Len()), StoredSHA256: hex.EncodeToString(stored[:]),
		Keys: append([]string{}, keys...),
	}
	t.shard.Tables = append(t.shard.Tables, tab)
	t.uploads.Go(func() error {
		if err := t.up.bucket.Create(t.ctx, tab.Name, t.stored.Bytes()); err != nil {
			return err
		}
		if t.up.uploaded != nil {
			t.up.uploaded(tab.StoredSize)
		}
		return nil
	})
	return nil
}
