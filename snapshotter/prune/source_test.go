package prune_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// source is a region's state: two shards with a log of each of three origins, each key
// with its value and the offset of its last record. It stands in for Pebble: tables are
// lines of text, and what is restored from them is compared with the states.
type source struct {
	mu     sync.Mutex
	rng    *rand.Rand
	shards [shardCount]map[events.Log]*folded
	truth  map[string][][]events.LogState // by backup, what each shard must be restored to
}

const shardCount = 2

// folded is what a log amounts to.
type folded struct {
	state  events.LogState
	values map[string]string
	last   map[string]int64 // offset of the last record about a key
}

func newSource(seed uint64) *source {
	s := &source{rng: rand.New(rand.NewPCG(seed, 7)), truth: map[string][][]events.LogState{}}
	for p := range s.shards {
		s.shards[p] = map[events.Log]*folded{}
		for _, origin := range []events.Region{"us", "eu", "ap"} {
			log := events.Log{Origin: events.FirstOrigin(origin), Stream: "session", Partition: int32(p)}
			s.shards[p][log] = &folded{state: events.LogState{Log: log}, values: map[string]string{}, last: map[string]int64{}}
		}
	}
	return s
}

// write folds so many records.
func (s *source) write(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		shard := s.shards[s.rng.IntN(shardCount)]
		logs := slices.SortedFunc(maps.Keys(shard), events.Log.Compare)
		shard[logs[s.rng.IntN(len(logs))]].write(s.rng)
	}
}

func (f *folded) write(rng *rand.Rand) {
	key, offset := fmt.Sprintf("key-%02d", rng.IntN(40)), f.state.Next
	f.take(key, "")
	if rng.IntN(4) > 0 {
		f.take(key, fmt.Sprintf("value-%d", offset))
	}
	f.last[key] = offset
	f.state.Next, f.state.Events = offset+1, offset+1
}

// take makes a value that of a key, or takes it away if it is empty.
func (f *folded) take(key, value string) {
	sum := binary.BigEndian.Uint64(f.state.Digest[:])
	if was, there := f.values[key]; there {
		sum -= hashOf(key, was)
		delete(f.values, key)
		f.state.Keys--
	}
	if value != "" {
		sum += hashOf(key, value)
		f.values[key] = value
		f.state.Keys++
	}
	binary.BigEndian.PutUint64(f.state.Digest[:], sum)
}

func hashOf(key, value string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, key+"="+value)
	return h.Sum64()
}

// frozen is a shard at one vector, as all of it or what has changed since another.
type frozen struct {
	partition int32
	states    []events.LogState
	lines     []string
}

func (f *frozen) Partition() int32          { return f.partition }
func (f *frozen) LineageID() string         { return "lineage" }
func (f *frozen) Epoch() events.Epoch       { return 0 }
func (f *frozen) States() []events.LogState { return f.states }

func (f *frozen) WriteTables(_ context.Context, _ int64, create func(first []byte) (io.WriteCloser, error)) error {
	for half := range slices.Chunk(f.lines, max(1, (len(f.lines)+1)/2)) {
		w, err := create([]byte(half[0]))
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, strings.Join(half, "")); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	return nil
}

// freeze takes cuts of all shards for a backup: of what has changed since its parent, of
// everything if that is nil.
func (s *source) freeze(id string, parent *format.Manifest) (cuts []snapshotter.Cut) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, shard := range s.shards {
		f, since := &frozen{partition: int32(p)}, events.Vector{}
		if parent != nil {
			since = events.VectorOf(parent.Shards[p].States)
		}
		for _, log := range slices.SortedFunc(maps.Keys(shard), events.Log.Compare) {
			f.states = append(f.states, shard[log].state)
			for _, key := range slices.Sorted(maps.Keys(shard[log].last)) {
				if value, there := shard[log].values[key]; shard[log].last[key] >= since[log] && (there || parent != nil) {
					f.lines = append(f.lines, fmt.Sprintf("%s\t%s\t%s\n", log, key, value))
				}
			}
		}
		cuts = append(cuts, f)
		s.truth[id] = append(s.truth[id], f.states)
	}
	return cuts
}

func backupConfig() snapshotter.Config {
	return snapshotter.Config{Region: region, Software: "test", Merge: map[events.Stream]string{"session": "lww"}, Sealer: seal.None()}
}

// backup makes a full backup, or a delta on the newest one.
func (s *source) backup(ctx context.Context, bucket objstore.Bucket, delta bool) (*format.Manifest, error) {
	var parent *format.Manifest
	if delta {
		newest, err := catalog.Newest(ctx, bucket, region)
		if err != nil {
			return nil, err
		}
		if parent, err = catalog.Manifest(ctx, bucket, region, catalog.ParentFor(time.Now(), newest)); err != nil {
			return nil, err
		}
	}
	id, now := snapshotter.NewID()
	shards, err := snapshotter.Shards(ctx, bucket, id, s.freeze(id, parent), backupConfig())
	if err != nil {
		return nil, err
	}
	if parent == nil {
		return snapshotter.Publish(ctx, bucket, id, now, shards, backupConfig())
	}
	return snapshotter.PublishDelta(ctx, bucket, id, now, parent, shards, backupConfig())
}

// made is backup for one that must succeed.
func (s *source) made(t rapid.TB, bucket objstore.Bucket, delta bool) *format.Manifest {
	t.Helper()
	m, err := s.backup(context.Background(), bucket, delta)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// merging is a target that puts layers together and proves the outcome.
type merging struct {
	source *source
	id     string

	mu     sync.Mutex
	tables map[string]*bytes.Buffer
}

type mergingTable struct{ *bytes.Buffer }

func (mergingTable) Close() error { return nil }

func (g *merging) Create(partition int32, n int) (io.WriteCloser, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	table := &bytes.Buffer{}
	g.tables[fmt.Sprintf("%d/%d", partition, n)] = table
	return mergingTable{table}, nil
}

func (g *merging) Finish(_ context.Context, shard format.Shard, layers [][]int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	logs := map[string]*folded{}
	for _, st := range shard.States {
		logs[st.Log.String()] = &folded{state: events.LogState{Log: st.Log, Next: st.Next, Events: st.Events}, values: map[string]string{}}
	}
	for _, tables := range layers {
		for _, n := range tables {
			for line := range strings.Lines(g.tables[fmt.Sprintf("%d/%d", shard.Partition, n)].String()) {
				field := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
				logs[field[0]].take(field[1], field[2])
			}
		}
	}
	for i, st := range shard.States {
		if got, truth := logs[st.Log.String()].state, g.source.truthOf(g.id)[shard.Partition][i]; got != st || st != truth {
			return events.Errorf(events.KindInconsistent, "restored %+v, the manifest says %+v, and it was %+v", got, st, truth)
		}
	}
	return nil
}

func (s *source) truthOf(id string) [][]events.LogState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.truth[id]
}

// restored restores a backup, and proves that it is what was there when it was made.
func (s *source) restored(ctx context.Context, bucket objstore.Bucket, id string) error {
	m, err := catalog.Load(ctx, bucket, region, id)
	if err != nil {
		return err
	}
	chain, err := catalog.LoadChain(ctx, bucket, m)
	if err != nil {
		return err
	}
	_, err = restore.Run(ctx, restore.Source{Bucket: bucket}, chain, &merging{source: s, id: id, tables: map[string]*bytes.Buffer{}}, nil)
	return err
}

// exist are the backups that exist.
func exist(t rapid.TB, bucket objstore.Reader) (all []*format.Manifest) {
	t.Helper()
	inv, err := inventory.Read(context.Background(), bucket, region)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range inv.Backups {
		if b.Manifest == nil {
			t.Fatalf("%s: %+v", b.ID, b.Problems)
		}
		all = append(all, b.Manifest)
	}
	return all
}

// audit checks that every backup that exists can be restored to what was there.
func (s *source) audit(t rapid.TB, bucket *objstore.Memory) (ids []string) {
	t.Helper()
	for _, m := range exist(t, bucket) {
		if err := s.restored(context.Background(), bucket, m.ID); err != nil {
			t.Errorf("%s %s exists and cannot be restored: %v", m.Kind, m.ID, err)
		}
		ids = append(ids, m.ID)
	}
	for _, violation := range bucket.Violations() {
		t.Errorf("the bucket's contract was broken: %s", violation)
	}
	return ids
}

// each makes backups at a pace, the first a full one and the rest deltas.
func (s *source) each(t rapid.TB, bucket objstore.Bucket, every time.Duration, n int) (made []*format.Manifest) {
	t.Helper()
	for i := range n {
		if i > 0 {
			time.Sleep(every)
		}
		s.write(3)
		made = append(made, s.made(t, bucket, i > 0))
	}
	return made
}
