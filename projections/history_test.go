package projections_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// history gives a world's logs again, as far as they are still there.
type history struct {
	w     world
	size  int                             // of a piece
	first events.Vector                   // where logs begin
	piece func(l events.Log, n int) error // called before the nth piece of all; nil: nothing happens

	pieces int // calls never overlap in one shard
}

func (h *history) First(_ context.Context, l events.Log, to int64) (int64, error) {
	return min(h.first[l], to), nil
}

func (h *history) Records(_ context.Context, l events.Log, from, to int64) iter.Seq2[projections.Piece, error] {
	return func(yield func(projections.Piece, error) bool) {
		for from < to {
			h.pieces++
			if h.piece != nil {
				if err := h.piece(l, h.pieces); err != nil {
					yield(projections.Piece{}, err)
					return
				}
			}
			if first := h.first[l]; from < first {
				yield(projections.Piece{}, &projections.GapError{Log: l, Want: from, Got: first})
				return
			}
			end := min(from+int64(h.size), int64(len(h.w[l])))
			if !yield(projections.Piece{Records: h.w[l][from:end], Next: end}, nil) {
				return
			}
			from = end
		}
	}
}

// checkCounts compares the entries of counts with what the logs say, from a cut on.
func checkCounts(t *testing.T, s *projections.Shard, w world, since events.Vector) {
	t.Helper()
	want, got := map[string]int{}, map[string]string{}
	for l, records := range w {
		for _, r := range records[min(since[l], s.Next(l)):s.Next(l)] {
			if e, err := decode(r); err == nil {
				want[fmt.Sprintf("key %s of %s", e.Key, l)]++
			}
		}
	}
	for _, row := range rows(t, s, "counts") {
		got[fmt.Sprintf("%s of %s", row.Key, row.Log)] = string(row.Value)
	}
	for at, n := range want {
		if got[at] != fmt.Sprint(n) {
			t.Fatalf("%s: %q are counted, want %d", at, got[at], n)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	if st := statusOf(t, s, "counts"); st.State != derived.Running || st.Since.Compare(since) != events.Equal || len(st.Again) > 0 || st.Stale != "" {
		t.Fatalf("status %+v, want it to run since %s", st, since)
	}
}

// spoilt is a wideWorld some of whose records are no events.
func spoilt(rng *rand.Rand, keys, records int) world {
	w := wideWorld(rng, keys, records)
	for _, records := range w {
		for _, r := range records {
			if rng.IntN(10) == 0 {
				r.Key = nil
			}
		}
	}
	return w
}

func withHistory(fs vfs.FS, h *history) projections.Config {
	cfg := withModels(fs, counts())
	cfg.History = h
	return cfg
}

func readAgain(t *testing.T, s *projections.Shard) {
	t.Helper()
	if err := s.RebuildModel(t.Context(), "counts", derived.Rebuild{}); err != nil {
		t.Fatal(err)
	}
}

// A model of events that is made by reading the logs again, while folding goes on, ends with
// the entries that it would have had from the beginning; what it had is served meanwhile.
func TestModelOfEventsIsReadAgain(t *testing.T) {
	during := 0
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 11))
		w, fs := spoilt(rng, 50, 6000), vfs.NewMem()
		s := open(t, config(fs))
		apply(t, s, w.half()...)
		closeShard(t, s)
		h := &history{w: w, size: 20 + rng.IntN(300)}
		s = open(t, withHistory(fs, h))
		since := events.VectorOf(s.Logs())
		apply(t, s, randomRuns(rng, w, s)...)
		checkCounts(t, s, w, since)
		readAgain(t, s)
		for {
			st := statusOf(t, s, "counts")
			if st.State != derived.Building {
				break
			}
			if !st.Served || st.Since.Compare(since) != events.Equal || st.Total < st.Done {
				t.Fatalf("in the midst of it: %+v", st)
			}
			apply(t, s, randomRuns(rng, w, s)...)
			during++
		}
		checkCounts(t, s, w, nil)
		for l, records := range w {
			apply(t, s, w.from(l, s.Next(l), len(records)))
		}
		checkCounts(t, s, w, nil)
		checkShard(t, s, w, w.ends())
		n := len(rows(t, s, "counts"))
		closeShard(t, s)
		if got := derivedKeys(t, fs); got != n+1 {
			t.Errorf("%d keys are in the database, want %d entries and a record", got, n)
		}
	}
	if during == 0 {
		t.Error("every rebuild was over before the first batch: the test tests too little")
	}
}

// A crash at any point of it loses nothing and doubles nothing.
func TestModelCrashWhileReadAgain(t *testing.T) {
	resumed, lost := 0, 0
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 12))
		w, fs := bigWorld(rng, 1500), vfs.NewCrashableMem()
		s := open(t, config(fs))
		apply(t, s, w.half()...)
		closeShard(t, s)
		reached, gate, at := make(chan struct{}), make(chan struct{}), 1+rng.IntN(40)
		h := &history{w: w, size: 20, piece: func(_ events.Log, n int) error {
			if n == at {
				close(reached)
				<-gate
			}
			return nil
		}}
		s = open(t, withHistory(fs, h))
		readAgain(t, s)
		<-reached
		apply(t, s, randomRuns(rng, w, s)...)
		before := statusOf(t, s, "counts")
		after := crashed(rng, fs)
		close(gate)
		closeShard(t, s)

		again := &history{w: w, size: 50}
		s = open(t, withHistory(after, again))
		for l, records := range w {
			apply(t, s, w.from(l, s.Next(l), len(records)))
		}
		wait(t, s)
		if st := statusOf(t, s, "counts"); len(st.Since) > 0 { // what asked for the rebuild was lost with the crash
			lost++
			readAgain(t, s)
			wait(t, s)
		} else if before.Done > 0 {
			resumed++
		}
		checkCounts(t, s, w, nil)
		checkShard(t, s, w, w.ends())
		closeShard(t, s)
	}
	if resumed == 0 || lost == 0 {
		t.Errorf("%d rebuilds went on, %d were lost: the test tests too little", resumed, lost)
	}
}

// What the logs do not have any more is said; also what they lose while they are read.
func TestModelOfEventsSince(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 13))
	w, fs := spoilt(rng, 50, 3000), vfs.NewMem()
	logs := logsOf(0)
	first := events.Vector{logs[1]: 40, logs[4]: 7}
	s := open(t, config(fs))
	apply(t, s, w.half()...)
	closeShard(t, s)
	h := &history{w: w, size: 25, first: first.Clone()}
	s = open(t, withHistory(fs, h))
	readAgain(t, s)
	wait(t, s)
	checkCounts(t, s, w, first)
	if st := statusOf(t, s, "counts"); st.Reaches == nil {
		t.Errorf("it does not say from when on it has all: %+v", st)
	}

	h.first[logs[2]] = 3
	err := s.RebuildModel(t.Context(), "counts", derived.Rebuild{})
	if wantKind(t, err, events.KindRefused); !strings.Contains(err.Error(), logs[2].String()) {
		t.Errorf("%v", err)
	}
	apply(t, s, randomRuns(rng, w, s)...)
	checkCounts(t, s, w, first)
	first[logs[2]] = 3
	h.pieces, h.piece = 0, func(_ events.Log, n int) error {
		if n == 9 {
			h.first[logs[7]], first[logs[7]] = 90, 90
		}
		return nil
	}
	if err := s.RebuildModel(t.Context(), "counts", derived.Rebuild{AcceptLess: true}); err != nil {
		t.Fatal(err)
	}
	wait(t, s)
	checkCounts(t, s, w, first)
	apply(t, s, w.everything()...)
	checkCounts(t, s, w, first)

	maps.Copy(h.first, w.ends()) // nothing is left at all
	if err := s.RebuildModel(t.Context(), "counts", derived.Rebuild{AcceptLess: true}); err != nil {
		t.Fatal(err)
	}
	checkCounts(t, s, w, w.ends())
	closeShard(t, s)
}

// While the logs cannot be read it waits, and says why; the fold goes on, and so does the
// building of other models.
func TestModelOfEventsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(2, 14))
		w, fs := spoilt(rng, 50, 2000), vfs.NewMem()
		s := open(t, config(fs))
		apply(t, s, w.half()...)
		closeShard(t, s)
		away := errors.New("the cluster is away")
		h := &history{w: w, size: 30, piece: func(_ events.Log, n int) error {
			if n%3 == 1 && n < 12 {
				return away
			}
			return nil
		}}
		cfg := withHistory(fs, h)
		cfg.Models = append(cfg.Models, byValue(1))
		s = open(t, cfg)
		readAgain(t, s)
		waited := false
		for range 200 {
			st := statusOf(t, s, "counts")
			waited = waited || st.Waiting == away.Error()
			apply(t, s, randomRuns(rng, w, s)...)
			time.Sleep(50 * time.Millisecond)
		}
		if !waited {
			t.Error("it did not say why it waits")
		}
		wait(t, s)
		checkModel(t, s, 1)
		checkCounts(t, s, w, nil)
		closeShard(t, s)
	})
}

// A model that fails with an old event is stopped, as with a new one.
func TestModelOfEventsFailsWhenReadAgain(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, w.half()...)
	closeShard(t, s)
	picky := counts()
	picky.Fold = func(e derived.Event, entries *derived.Entries) error {
		if e.Position.Offset == 1 {
			return errors.New("not this one")
		}
		entries.Add("key "+e.Key, 1)
		return nil
	}
	cfg := withModels(fs, picky)
	cfg.History = &history{w: w, size: 3}
	s = open(t, cfg)
	defer closeShard(t, s)
	readAgain(t, s)
	wait(t, s)
	if st := statusOf(t, s, "counts"); st.State != derived.Stopped || !strings.Contains(st.Stopped, "not this one") || st.Stale == "" || len(st.Again) > 0 {
		t.Errorf("status %+v", st)
	}
	apply(t, s, w.everything()...)
	checkShard(t, s, w, w.ends())
}
