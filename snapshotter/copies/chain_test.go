package copies_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/copies"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// source is a bucket with chains of backups, and what each of them is.
type source struct {
	t      *testing.T
	bucket *objstore.Memory
	newest *format.Manifest
	is     map[string][]string // id → its layers, from the full's on
}

func newSource(t *testing.T) *source {
	return &source{t: t, bucket: objstore.NewMemory("from"), is: map[string][]string{}}
}

// full makes a backup of all, delta one of what has changed since the newest.
func (s *source) full()  { s.t.Helper(); s.made(nil) }
func (s *source) delta() { s.t.Helper(); s.made(s.newest) }

func (s *source) made(parent *format.Manifest) {
	s.t.Helper()
	cfg := snapshotter.Config{Region: region, Software: "test", Merge: map[events.Stream]string{"session": "lww"}, Sealer: seal.None()}
	id, now := snapshotter.NewID()
	layer := fmt.Sprintf("backup %d", len(s.is))
	shards, err := snapshotter.Shards(s.t.Context(), s.bucket, id, []snapshotter.Cut{cut{0, layer}, cut{1, layer + " again"}}, cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	layers := []string{layer}
	if parent == nil {
		s.newest, err = snapshotter.Publish(s.t.Context(), s.bucket, id, now, shards, cfg)
	} else {
		layers = append(slices.Clone(s.is[parent.ID]), layer)
		s.newest, err = snapshotter.PublishDelta(s.t.Context(), s.bucket, id, now, parent, shards, cfg)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.is[id] = layers
	time.Sleep(time.Second)
}

// layers collects what is restored of shard 0.
type layers struct {
	mu     sync.Mutex
	tables map[int]string
}

func (l *layers) Create(partition int32, n int) (io.WriteCloser, error) {
	return &piece{to: l, of: partition, n: n}, nil
}
func (l *layers) Finish(context.Context, format.Shard, [][]int) error { return nil }

type piece struct {
	bytes.Buffer
	to *layers
	of int32
	n  int
}

func (p *piece) Close() error {
	if p.of != 0 {
		return nil
	}
	p.to.mu.Lock()
	defer p.to.mu.Unlock()
	p.to.tables[p.n] = p.String()
	return nil
}

// audit restores every backup that can be seen in a copy, and fails unless each is what
// the source has made. It returns their ids.
func (s *source) audit(to *objstore.Memory) (ids []string) {
	s.t.Helper()
	all, err := catalog.All(context.Background(), to, region)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range all {
		ids = append(ids, m.ID)
		chain, err := catalog.LoadChain(context.Background(), to, m)
		if err != nil {
			s.t.Errorf("%s %s is in the copy, and not all of it: %v", m.Kind, m.ID, err)
			continue
		}
		got := layers{tables: map[int]string{}}
		if _, err := restore.Run(context.Background(), restore.Source{Bucket: to}, chain, &got, nil); err != nil {
			s.t.Errorf("%s %s is in the copy, and cannot be restored: %v", m.Kind, m.ID, err)
			continue
		}
		for i, want := range s.is[m.ID] {
			if got.tables[i] != want || len(got.tables) != len(s.is[m.ID]) {
				s.t.Errorf("%s %s is restored to %v, want %q", m.Kind, m.ID, got.tables, s.is[m.ID])
				break
			}
		}
	}
	for _, v := range slices.Concat(s.bucket.Violations(), to.Violations()) {
		s.t.Errorf("the buckets' contract was broken: %s", v)
	}
	return ids
}

// there fails unless the copy has every backup that the source has.
func (s *source) there(to *objstore.Memory) {
	s.t.Helper()
	has := s.audit(to)
	ids, err := catalog.IDs(context.Background(), s.bucket, region)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, id := range ids {
		if !slices.Contains(has, id) {
			s.t.Errorf("the copy has not %s, only %q", id, has)
		}
	}
}

// pruned keeps the newest full backup and what builds on it.
func pruned(t *testing.T, bucket objstore.Bucket) {
	t.Helper()
	cfg := prune.Config{Region: region, Software: "test", Policy: prune.Policy{Last: 1, Deltas: prune.Deltas{Finest: time.Hour, TenMinutes: time.Hour, Hours: time.Hour}}}
	if _, err := prune.Run(context.Background(), bucket, cfg); err != nil {
		t.Error(err)
	}
}

// steps lets something happen before a certain call of any of some buckets, and lets none through
// after it if that kills.
type steps struct {
	mu    sync.Mutex
	left  int
	then  func()
	kills bool
	dead  bool
}

func (s *steps) step() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left--; s.left == 0 {
		s.then()
		s.dead = s.kills
	}
	if s.dead {
		return errDead
	}
	return nil
}

var errDead = errors.New("the process is dead")

// stepping counts the calls of a bucket.
type stepping struct {
	objstore.Bucket
	*steps
}

func (b stepping) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	if err := b.step(); err != nil {
		return nil, objstore.Info{}, err
	}
	return b.Bucket.Get(ctx, name)
}

func (b stepping) Stat(ctx context.Context, name string) (objstore.Info, error) {
	if err := b.step(); err != nil {
		return objstore.Info{}, err
	}
	return b.Bucket.Stat(ctx, name)
}

func (b stepping) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return b.ListAfter(ctx, prefix, "")
}

func (b stepping) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	if err := b.step(); err != nil {
		return func(yield func(objstore.Info, error) bool) { yield(objstore.Info{}, err) }
	}
	return b.Bucket.ListAfter(ctx, prefix, after)
}

func (b stepping) Create(ctx context.Context, name string, body []byte) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Bucket.Create(ctx, name, body)
}

func (b stepping) Delete(ctx context.Context, name string) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, name)
}

// chains makes two chains, of which the first is old enough to be pruned, and says whether
// the copy already has the first full backup.
func chains(t *testing.T, to objstore.Bucket, begun bool) *source {
	t.Helper()
	s := newSource(t)
	s.full()
	if begun {
		if _, err := copies.Run(t.Context(), copies.Config{Region: region, From: s.bucket, To: to, Owner: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	s.delta()
	s.delta()
	time.Sleep(72 * time.Hour)
	s.full()
	s.delta()
	return s
}

// While chains are copied, just before any of its calls, the copier dies, or the source is
// pruned, or the copy, or several of it. What can be seen in the copy can be restored and
// is what it was, at any time; and the next run brings all that the source still has.
func TestChainCrashMatrix(t *testing.T) {
	for name, test := range map[string]struct{ kills, source, copy bool }{
		"killed":                           {kills: true},
		"pruned at the source":             {source: true},
		"pruned in the copy":               {copy: true},
		"pruned at the source, and killed": {kills: true, source: true},
		"pruned in both, and killed":       {kills: true, source: true, copy: true},
	} {
		for _, begun := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, begun=%t", name, begun), func(t *testing.T) {
				for nth := 1; ; nth++ {
					if struck := chainCrash(t, nth, begun, test.kills, test.source, test.copy); !struck || t.Failed() {
						t.Logf("%d calls", nth-1)
						break
					}
				}
			})
		}
	}
}

func chainCrash(t *testing.T, nth int, begun, kills, atSource, inCopy bool) (struck bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		to := objstore.NewMemory("to")
		s := chains(t, to, begun)
		at := &steps{left: nth, kills: kills, then: func() {
			if atSource {
				pruned(t, s.bucket)
			}
			if inCopy {
				pruned(t, to)
			}
		}}
		_, _ = copies.Run(t.Context(), copies.Config{Region: region, From: stepping{s.bucket, at}, To: stepping{to, at}, Owner: "test"}) // may fail
		struck = at.left <= 0
		s.audit(to)
		if _, err := copies.Run(t.Context(), copies.Config{Region: region, From: s.bucket, To: to, Owner: "test"}); err != nil {
			t.Errorf("call %d: the next run: %v", nth, err)
		}
		if !inCopy {
			s.there(to)
			return
		}
		if ids := s.audit(to); !slices.Contains(ids, s.newest.ID) {
			t.Errorf("call %d: the copy has not the newest, only %q", nth, ids)
		}
	})
	return struck
}

// For simulated weeks chains grow and are pruned on both sides while a copier is at work that
// meets every fault and dies at any call.
func TestChainsUnderFaults(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 10
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) { chainsUnderFaults(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func chainsUnderFaults(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, seed))
	s, to := newSource(t), objstore.NewMemory("to")
	s.full()
	from, faultyTo := faults.NewSeed(s.bucket, seed), faults.NewSeed(to, seed+1)
	for range 25 {
		switch rng.IntN(8) {
		case 0:
			s.full()
		case 1, 2, 3:
			s.delta()
		case 4:
			pruned(t, s.bucket)
		case 5:
			pruned(t, to)
		default:
			time.Sleep(time.Duration(rng.IntN(72)) * time.Hour)
		}
		var rules []faults.Rule
		for _, effect := range []faults.Effect{faults.FailBefore, faults.FailAfter, faults.TearBody, faults.TruncateBody, faults.FlipBit} {
			rules = append(rules, faults.Rule{Effect: effect, Probability: 0.05 * rng.Float64()})
		}
		from.SetRules(rules...)
		faultyTo.SetRules(append(rules, faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.Late, Probability: 0.1})...)
		at := &steps{left: 1 + rng.IntN(60), kills: rng.IntN(2) == 0, then: func() {
			if rng.IntN(2) == 0 {
				pruned(t, s.bucket)
			}
		}}
		_, _ = copies.Run(t.Context(), copies.Config{Region: region, From: stepping{from, at}, To: stepping{faultyTo, at}, Owner: "test"}) // may fail
		s.audit(to)
		faultyTo.Land(t.Context())
		s.audit(to)
	}
	if _, err := copies.Run(t.Context(), copies.Config{Region: region, From: s.bucket, To: to, Owner: "test"}); err != nil {
		t.Error(err)
	}
	s.audit(to)
}
