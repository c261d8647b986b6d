package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/touched"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// Vault is a bucket, and a region that folds, archives and backs up logs of three regions, all of
// them streams of one of the merge rules each. There is no Kafka and no node: what would be done by one is
// done when it is asked for, so that a day costs little.
type Vault struct {
	*World
	*Region

	shards   []*projections.Shard
	disks    []*vfs.MemFS
	notes    []*touched.Set
	builders []*segment.Builder
	count    int // of records
}

// NewVault makes one, in a bubble. Old backups are kept for as long as told.
func NewVault(t testing.TB, seed uint64, keep config.Keep) *Vault {
	t.Helper()
	w := &World{
		Rand: rand.New(rand.NewPCG(seed, 11)), t: t, seed: seed, shape: Shape{AllRules: true, Keep: &keep}, written: map[events.Log][]*kgo.Record{},
	}
	for _, name := range []events.Region{"eu-central-1", "us-east-1", "us-west-1"} {
		w.Regions = append(w.Regions, &Region{Name: name, world: w})
	}
	r := w.Regions[1]
	r.Bucket, r.folded, r.pins = objstore.NewMemory("bucket"), map[string][]events.LogState{}, map[string]pin{}
	v := &Vault{World: w, Region: r}
	for p := range int32(partitions) {
		v.disks = append(v.disks, vfs.NewMem())
		v.shards, v.notes = append(v.shards, v.open(p)), append(v.notes, touched.New(1<<20))
		v.builders = append(v.builders, segment.NewBuilder(segment.Config{Region: r.Name, Shard: p, Software: "sim", Sealer: seal.None(), Chain: digest.NewChain()}, nil))
		for _, l := range v.logsOf(p) {
			v.must(v.builders[p].Begin(format.LogEnd{Log: l}))
		}
	}
	return v
}

func (v *Vault) must(err error) {
	if err != nil {
		v.t.Helper()
		v.t.Fatal(err)
	}
}

// open opens a shard.
func (v *Vault) open(p int32) *projections.Shard {
	s, err := projections.Open(projections.Config{
		Partition: p, Dir: "own", FS: v.disks[p], Rules: v.rules(), Lineage: projections.Lineage{ID: "own"}, Epoch: 1, MemTableBytes: 1 << 18,
	})
	v.must(err)
	return s
}

// Close closes the shards, and says what was done to the bucket that may not be done.
func (v *Vault) Close() {
	for _, s := range v.shards {
		v.must(s.Close())
	}
	for _, violation := range v.Bucket.Violations() {
		v.t.Errorf("bucket: %s", violation)
	}
}

func (v *Vault) logsOf(p int32) (logs []events.Log) {
	for _, r := range v.Regions {
		for _, s := range v.Streams() {
			logs = append(logs, events.Log{Origin: events.FirstOrigin(r.Name), Stream: s, Partition: p})
		}
	}
	return logs
}

func (v *Vault) anyLog() events.Log {
	logs := v.logsOf(v.Rand.Int32N(partitions))
	return logs[v.Rand.IntN(len(logs))]
}

// WriteSome writes some records into some logs: of writers that know what is in others, or used to be, or
// say nothing of it.
func (v *Vault) WriteSome() {
	for range 1 + v.Rand.IntN(12) {
		l := v.anyLog()
		record, err := events.Encode(v.anyEvent(l))
		v.must(err)
		record.Offset = int64(len(v.written[l]))
		if record.Timestamp.IsZero() {
			record.Timestamp = time.Now().Truncate(time.Millisecond)
		}
		v.written[l] = append(v.written[l], record)
	}
}

func (v *Vault) anyEvent(l events.Log) events.Event {
	v.count++
	clock := time.Now().Add(time.Duration(v.Rand.IntN(2_000)-1_000) * time.Millisecond)
	e := events.Event{
		Key: fmt.Sprint("key-", v.Rand.IntN(12)), Clock: events.HLCAt(clock), ID: fmt.Sprint(v.count), Source: "sim", Type: events.TypePut,
		Value: fmt.Appendf(nil, `{"by":"%s-%d"}`, l.Origin.Region, v.count), Deps: v.anyContext(l),
	}
	switch n := v.Rand.IntN(8); {
	case l.Stream == metrics && n > 1:
		e.Type = events.TypeAppend
	case l.Stream == metrics: // a put is one more, too
	case n < 2:
		e.Type, e.Value = events.TypeDelete, nil
	case l.Stream == registry && n < 4:
		e.Type = events.TypeResolve
	case l.Stream == usage && n < 7:
		e.Type, e.Value = events.TypePatch, v.anyPatch()
	case n == 7: // bare
		e = events.Event{Key: e.Key, Clock: events.HLCFromMillis(clock.UnixMilli()), Value: e.Value}
	}
	e.Op = events.OpOf(e.Type, e.Value)
	return e
}

func (v *Vault) anyPatch() []byte {
	switch element := v.Rand.IntN(6); v.Rand.IntN(4) {
	case 0:
		return fmt.Appendf(nil, `{"increment":{"n":%d}}`, element-2)
	case 1:
		return fmt.Appendf(nil, `{"add":{"s":["%d"]}}`, element)
	case 2:
		return fmt.Appendf(nil, `{"remove":{"s":["%d"]},"unset":["by"]}`, element)
	}
	return fmt.Appendf(nil, `{"set":{"by":"%d"},"increment":{"n":1}}`, v.count)
}

// anyContext is what a writer says that it has seen of a stream: all, some of it, or nothing.
func (v *Vault) anyContext(l events.Log) (c events.Context) {
	for _, r := range v.Regions {
		l.Origin = events.FirstOrigin(r.Name)
		end := int64(len(v.written[l]))
		if end == 0 || v.Rand.IntN(4) == 0 {
			continue
		}
		if v.Rand.IntN(2) == 0 {
			end = 1 + v.Rand.Int64N(end)
		}
		c = append(c, events.Seen{Origin: l.Origin, Next: end})
	}
	return c
}

// Fold folds what is new in the logs of a shard, up to any place in each.
func (v *Vault) Fold() {
	p := v.Rand.Int32N(partitions)
	for _, l := range v.logsOf(p) {
		next, end := v.shards[p].Next(l), int64(len(v.written[l]))
		if v.Rand.IntN(3) == 0 {
			end -= v.Rand.Int64N(end - next + 1)
		}
		_, err := v.shards[p].Apply([]projections.Run{{Log: l, Records: v.written[l][next:end]}})
		v.must(err)
	}
}

// LoseState has a shard begin with nothing, and fold its logs again from the beginning.
func (v *Vault) LoseState() {
	p := v.Rand.Int32N(partitions)
	v.must(v.shards[p].Close())
	v.disks[p] = vfs.NewMem()
	v.shards[p] = v.open(p)
}

// Sleep lets time pass, while shards are closed: open ones take time, too.
func (v *Vault) Sleep(long time.Duration) {
	for _, s := range v.shards {
		v.must(s.Close())
	}
	time.Sleep(long)
	for p := range int32(partitions) {
		v.shards[p] = v.open(p)
	}
}

// Archive closes a segment of any shard.
func (v *Vault) Archive() { v.archive(v.Rand.Int32N(partitions)) }

// archive closes a segment of a shard, and notes which keys are in it.
func (v *Vault) archive(p int32) {
	b := v.builders[p]
	for _, l := range v.logsOf(p) {
		next, _ := b.Next(l)
		for _, r := range v.written[l][next:] {
			v.must(b.Add(l, r))
			v.notes[p].Note(l, r)
		}
	}
	if b.Empty() {
		return
	}
	s, object, err := b.Close(time.Now(), 1, func(l events.Log, next int64) (events.Mark, bool) {
		m, err := v.shards[p].At(l, next)
		return m, err == nil
	})
	v.must(err)
	v.must(segment.Append(context.Background(), v.Bucket, s, object))
}

// way is the way of a process to the bucket that perhaps dies at one of its first calls, so many at most, and
// has to wait for some. Died is told of that.
func (v *Vault) way(calls int, died func()) *mortalBucket {
	slow := faults.NewSeed(v.Bucket, v.Rand.Uint64(), faults.Rule{Probability: 0.2, Delay: 50 * time.Millisecond}, faults.Rule{Probability: 0.02, Delay: time.Minute})
	b := &mortalBucket{Bucket: slow, region: v.Region, died: died, passes: func(context.Context) error { return nil }}
	if v.Rand.IntN(2) == 0 {
		b.dieAt(1+v.Rand.IntN(calls), Last(v.Rand.IntN(3)))
	}
	return b
}

// Backup makes a full backup, or a delta on the newest backup if one can be made, by a process that
// may die. What was torn is mended.
func (v *Vault) Backup(delta bool) error {
	ctx, bucket := context.Background(), v.way(16, func() {})
	err := func() error {
		var parent *format.Manifest
		if delta {
			for p := range int32(partitions) { // it is known what was touched of what is archived
				v.archive(p)
			}
			newest, err := catalog.Newest(ctx, bucket, v.Name)
			if err != nil {
				return err
			}
			if parent, err = catalog.Manifest(ctx, bucket, v.Name, catalog.ParentFor(time.Now(), newest)); err != nil {
				return err
			}
		}
		id, now := snapshotter.NewID()
		cuts, err := v.cuts(parent)
		for _, c := range cuts {
			defer func() { v.must(c.(io.Closer).Close()) }()
		}
		if err != nil {
			return err
		}
		cfg := snapshotter.Config{Region: v.Name, Software: "sim", Merge: v.streams(), Sealer: seal.None()}
		shards, err := snapshotter.Shards(ctx, bucket, id, cuts, cfg)
		switch {
		case err != nil:
		case parent != nil:
			_, err = snapshotter.PublishDelta(ctx, bucket, id, now, parent, shards, cfg)
		default:
			_, err = snapshotter.Publish(ctx, bucket, id, now, shards, cfg)
		}
		return err
	}()
	return v.ended(err, bucket)
}

// ended is the error with which something has ended, none if the process has died, and
// takes away what is torn.
func (v *Vault) ended(err error, bucket *mortalBucket) error {
	v.Mended()
	if bucket.isDead() {
		return nil
	}
	return err
}

type vaultCut struct{ *projections.Cut }

func (c vaultCut) LineageID() string { return c.Lineage().ID }

// vaultDelta is a cut of which only what has changed is copied.
type vaultDelta struct {
	vaultCut
	since events.Vector
	keys  map[events.Log][]string
}

func (c vaultDelta) WriteTables(ctx context.Context, tableBytes int64, create func(first []byte) (io.WriteCloser, error)) error {
	return c.WriteDelta(ctx, c.since, c.keys, tableBytes, create)
}

// cuts are those of all shards, whole or of what has changed since a backup.
func (v *Vault) cuts(parent *format.Manifest) (cuts []snapshotter.Cut, err error) {
	for p, s := range v.shards {
		cut, err := s.Freeze()
		if err != nil {
			return cuts, err
		}
		if cuts = append(cuts, vaultCut{cut}); parent == nil {
			continue
		}
		since := events.VectorOf(parent.Shards[p].States)
		keys, err := v.notes[p].Since(since, cut.Vector())
		if err != nil {
			return cuts, err
		}
		cuts[p] = vaultDelta{vaultCut{cut}, since, keys}
	}
	return cuts, nil
}

// Forget has a shard forget which keys were touched until now, as a process does that begins anew.
func (v *Vault) Forget() {
	p := v.Rand.Int32N(partitions)
	v.notes[p] = touched.New(1 << 20)
	for _, l := range v.logsOf(p) {
		next, _ := v.builders[p].Next(l)
		v.notes[p].Begin(l, next)
	}
}

// Prune prunes by a process that may die, or by two at once.
func (v *Vault) Prune() error {
	var pruning sync.WaitGroup
	ways := []*mortalBucket{v.way(60, func() {}), v.way(60, func() {})}[:1+v.Rand.IntN(2)]
	errs := make([]error, len(ways))
	for i, way := range ways {
		b := pipeline.Backups{Config: v.config(), Bucket: way, FS: vfs.NewMem(), Log: slog.New(slog.DiscardHandler)}
		pruning.Go(func() { _, errs[i] = b.Prune(context.Background(), api.PruneBackupsParams{Run: true}) })
	}
	pruning.Wait()
	torn := v.Mended() != ""
	for i, way := range ways {
		if way.isDead() || torn || events.KindOf(errs[i]) == events.KindRefused {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// Restore restores something by a process that may die, and then again, whatever has been done
// meanwhile; and checks what comes of it. An error of kind not found says that there is no such point, or no more.
func (v *Vault) Restore(meanwhile func()) error {
	disk := &film{MemFS: vfs.NewCrashableMem()}
	target := v.anyTarget()
	job, after := v.restoreJob(disk, target), vfs.NewMem()
	way := v.way(50, func() {
		disk.mu.Lock()
		defer disk.mu.Unlock()
		after = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * v.Rand.IntN(2), RNG: v.Rand})
	})
	job.Bucket = way
	restored, err := pipeline.Restore(context.Background(), job)
	fs := vfs.FS(disk.MemFS)
	if way.isDead() {
		v.Mended()
		meanwhile()
		fs, job.FS, job.Bucket = after, after, v.Bucket
		restored, err = pipeline.Restore(context.Background(), job)
		if events.KindOf(err) == events.KindNotFound && target.IsNewest() { // it had not pinned yet what it had planned
			job.Anew = true
			restored, err = pipeline.Restore(context.Background(), job)
		}
		if events.KindOf(err) == events.KindRefused && strings.Contains(err.Error(), "not empty") { // it was over
			restored, err = pipeline.ProveRestored(after, job.Dir)
		}
	}
	if err != nil {
		return fmt.Errorf("restore of %s: %w", target, err)
	}
	folded, err := v.foldAll(restored.Vector, v.written)
	if err != nil {
		return err
	}
	return v.isFold(fs, restored, folded, v.written, true)
}

func (v *Vault) anyTarget() (t timeline.Target) {
	switch v.Rand.IntN(3) {
	case 0:
		t.Time = time.Now().Add(-time.Duration(v.Rand.Int64N(int64(72 * time.Hour))))
	case 1:
		if all, err := catalog.IDs(context.Background(), v.Bucket, v.Name); err == nil && len(all) > 0 {
			t.Backup = all[v.Rand.IntN(len(all))]
		}
	}
	return t
}

// film is a disk of which a picture may be taken, but not while a file is locked or linked: for that
// MemFS takes its mutexes in another order.
type film struct {
	*vfs.MemFS
	mu sync.Mutex
}

func (f *film) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.MemFS.Lock(name)
}

func (f *film) Link(oldname, newname string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.MemFS.Link(oldname, newname)
}
