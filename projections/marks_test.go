package projections_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// longLog is a world of one log with some thousands of records. If it is sparse,
// offsets are missing in it.
func longLog(t *rapid.T, sparse bool) (world, events.Log) {
	w, l := world{}, logsOf(0)[0]
	n := rapid.IntRange(1, 3*projections.MarkEvery).Draw(t, "records")
	hole := rapid.IntRange(2, 400).Draw(t, "a hole after so many")
	for i := range n {
		var value []byte
		if i%5 > 0 {
			value = fmt.Appendf(nil, "value-%d", i)
		}
		w.write(l, bare(fmt.Sprintf("key-%d", i*i%37), value, int64(i)))
	}
	if sparse {
		for i, r := range w[l] {
			r.Offset = int64(i + i/hole*7)
		}
	}
	return w, l
}

// before counts the records below an offset.
func (w world) before(l events.Log, offset int64) int {
	i, _ := slices.BinarySearchFunc(w[l], offset, func(r *kgo.Record, offset int64) int { return int(r.Offset - offset) })
	return i
}

// marks are the states of a log before its first record and after each.
func (w world) marks(l events.Log) []events.Mark {
	var h digest.Hasher
	var chain digest.Sum
	one := map[string]events.Mark{} // of each live key alone
	marks := []events.Mark{{}}
	states := map[string]slice{}
	for _, r := range w[l] {
		e, err := events.Decode(r)
		if err != nil {
			panic(err) // these logs hold events
		}
		s := slice{log: l, clock: e.Clock, offset: r.Offset, event: e}
		if old, ok := states[e.Key]; ok {
			s.clock = max(s.clock, old.clock+1)
		}
		states[e.Key] = s
		delete(one, e.Key)
		if e.Op == events.OpPut {
			b := s.encode()
			one[e.Key] = events.Mark{Digest: h.Slice(l.Stream, e.Key, b).Digest(), Bytes: int64(len(e.Key) + len(b))}
		}
		chain = h.Chain(chain, r)
		m := events.Mark{Next: r.Offset + 1, Chain: chain.Digest(), Keys: int64(len(one))}
		var sum digest.Sum
		for _, k := range one {
			sum, m.Bytes = sum.Add(digest.FromDigest(k.Digest)), m.Bytes+k.Bytes
		}
		m.Digest = sum.Digest()
		marks = append(marks, m)
	}
	return marks
}

// A shard says at any time what a log's state was: after each of its last
// records, and before each MarkEvery-th; of other places it says that it does not
// know, never something wrong. A restart forgets those in memory only.
func TestMarks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, l := longLog(t, rapid.Bool().Draw(t, "sparse"))
		records, marks := w[l], w.marks(l)
		fs := vfs.NewMem()
		s := open(t, config(fs))
		defer func() { closeShard(t, s) }()
		folded, sinceStart := 0, 0 // of the records
		for folded < len(records) {
			n := min(rapid.IntRange(1, 2500).Draw(t, "batch"), len(records)-folded)
			apply(t, s, projections.Run{Log: l, Records: records[folded : folded+n], Sparse: true})
			folded += n
			if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
				closeShard(t, s)
				s = open(t, config(fs))
				sinceStart = folded
			}
		}
		next := records[folded-1].Offset + 1
		for range 30 {
			offset := rapid.Int64Range(0, next+3).Draw(t, "offset")
			if rapid.Bool().Draw(t, "multiple") {
				offset -= offset % projections.MarkEvery
			}
			n := w.before(l, offset)
			mark, err := s.At(l, offset)
			kept := offset%projections.MarkEvery == 0 || offset == next || n > max(folded-projections.MarkEvery, sinceStart)
			switch {
			case offset > next:
				if !errors.Is(err, projections.ErrMarkAhead) {
					t.Fatalf("offset %d of %d: %v", offset, next, err)
				}
			case err == nil:
				want := marks[n]
				want.Next = offset
				if mark != want {
					t.Fatalf("offset %d of %d: %+v, want %+v", offset, next, mark, want)
				}
			case kept || !errors.Is(err, projections.ErrMarkGone):
				t.Fatalf("offset %d of %d, %d records folded, started at %d: %v", offset, next, folded, sinceStart, err)
			}
		}
	})
}

// Buckets survive any number of batches and restarts, whether their journal was
// begun anew or not.
func TestBucketsSurvive(t *testing.T) {
	w, l := world{}, logsOf(0)[1]
	for i := range 4000 {
		w.write(l, bare(fmt.Sprintf("key-%d", i%1500), fmt.Appendf(nil, "%d", i), int64(i)))
	}
	fs := vfs.NewMem()
	s := open(t, config(fs))
	for from := int64(0); from < 4000; {
		n := 1 + from%97
		apply(t, s, w.from(l, from, int(n)))
		if from += n; from%7 == 0 {
			closeShard(t, s)
			s = open(t, config(fs))
		}
	}
	defer closeShard(t, s)
	want := w.fold(l, 4000)
	if got, next := s.Buckets(l); next != 4000 || got != want.buckets {
		t.Errorf("at %d, buckets %v differ", next, got.Differing(&want.buckets))
	}
	if _, err := s.Verify(); err != nil {
		t.Error(err)
	}
}

func TestEpochNeverGoesBack(t *testing.T) {
	fs := vfs.NewMem()
	for _, step := range []struct {
		under, want events.Epoch
		refused     bool
	}{{0, 0, false}, {3, 3, false}, {0, 3, false}, {3, 3, false}, {2, 0, true}, {7, 7, false}, {6, 0, true}} {
		cfg := config(fs)
		cfg.Epoch = step.under
		s, err := projections.Open(cfg)
		if step.refused {
			wantKind(t, err, events.KindRefused)
			continue
		}
		if err != nil || s.Epoch() != step.want {
			t.Fatalf("opened under %s: epoch %s, %v", step.under, s.Epoch(), err)
		}
		closeShard(t, s)
	}
}

func TestFence(t *testing.T) {
	w, s := smallWorld(0), openNew(t)
	l := logsOf(0)[0]
	apply(t, s, w.from(l, 0, 3))
	first := errors.New("node b has claimed it")
	s.Fence(first)
	s.Fence(errors.New("second"))
	_, err := s.Apply([]projections.Run{w.from(l, 3, 3)})
	wantKind(t, err, events.KindRefused)
	if !errors.Is(err, first) {
		t.Errorf("refused with %v", err)
	}
	checkShard(t, s, w, events.Vector{l: 3}) // and can be read
}

// In a sparse log what is missing between records is no gap; what was folded is
// skipped as ever.
func TestSparseRuns(t *testing.T) {
	s := openNew(t)
	l := logsOf(0)[0]
	at := func(offset int64) *kgo.Record {
		r := bare("k", []byte("v"), offset)
		r.Offset = offset
		return r
	}
	run := projections.Run{Log: l, Sparse: true, Records: []*kgo.Record{at(0), at(4), at(5), at(5000)}}
	if done := apply(t, s, run); done.Events != 4 || s.Next(l) != 5001 {
		t.Fatalf("%+v, next is %d", done, s.Next(l))
	}
	if done := apply(t, s, run); done.Skipped != 4 {
		t.Errorf("again: %+v", done)
	}
	run.Sparse, run.Records = false, []*kgo.Record{at(5002)}
	apply(t, s, run)
	wantAs[*projections.GapError](t, s.Blocked()[l])
}
