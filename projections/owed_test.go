package projections_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// A model of events that comes to a shard which has folded something, as one that was restored, is
// made of the logs again, as far as they are there; that is owed until it is known how far, through
// crashes too. What no log has it keeps, if nothing is gained.
func TestModelIsOwedTheLogs(t *testing.T) {
	gained, kept := 0, 0
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 15))
		w, fs := spoilt(rng, 50, 3000), vfs.NewCrashableMem()
		s := open(t, config(fs))
		apply(t, s, w.half()...)
		closeShard(t, s)

		s = open(t, withModels(fs, counts())) // by somebody who cannot read logs
		since := events.VectorOf(s.Logs())
		apply(t, s, randomRuns(rng, w, s)...)
		if err := s.RebuildOwed(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkCounts(t, s, w, since)
		closeShard(t, s)

		h := &history{w: w, size: 20 + rng.IntN(300), first: events.Vector{}}
		for l, next := range since {
			switch rng.IntN(3) {
			case 0:
				h.first[l] = rng.Int64N(next + 1)
			case 1:
				h.first[l] = int64(len(w[l])) // nobody can tell what it has lost
			}
		}
		s = open(t, withHistory(crashed(rng, fs), h))
		at := events.VectorOf(s.Logs())
		if st := statusOf(t, s, "counts"); !st.Owed || st.State != derived.Running || !st.Served {
			t.Fatalf("it is not owed the logs: %+v", st)
		}
		want, gains := events.Vector{}, false
		began := statusOf(t, s, "counts").Since
		for l, next := range at {
			if want[l] = min(h.first[l], next); want[l] == 0 {
				delete(want, l)
			}
			gains = gains || h.first[l] < began[l]
		}
		if !gains {
			want = began
			kept++
		} else {
			gained++
		}
		if err := s.RebuildOwed(t.Context()); err != nil {
			t.Fatal(err)
		}
		apply(t, s, randomRuns(rng, w, s)...)
		wait(t, s)
		checkCounts(t, s, w, want)
		if st := statusOf(t, s, "counts"); st.Owed {
			t.Errorf("it is owed the logs still: %+v", st)
		}
		apply(t, s, w.everything()...)
		checkCounts(t, s, w, want)
		checkShard(t, s, w, w.ends())
		closeShard(t, s)
	}
	if gained == 0 {
		t.Error("no model has gained anything: the test tests too little")
	}
	t.Logf("%d have gained, %d have kept what they had", gained, kept)
}

// Where no log can be read again a model keeps what it has gathered, and nothing is owed
// any more.
func TestModelIsOwedNothing(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, w.half()...)
	closeShard(t, s)
	h := &history{w: w, size: 3, first: w.ends()}
	s = open(t, withHistory(fs, h))
	defer closeShard(t, s)
	since := events.VectorOf(s.Logs())
	apply(t, s, w.everything()...)
	if err := s.RebuildOwed(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, s)
	checkCounts(t, s, w, since)
	if st := statusOf(t, s, "counts"); st.Owed || h.pieces > 0 {
		t.Errorf("status %+v after %d pieces", st, h.pieces)
	}
}

// unknown does not know where logs begin.
type unknown struct{ *history }

var (
	_          = projections.History(unknown{})
	errUnknown = errors.New("the cluster is away")
)

func (unknown) First(context.Context, events.Log, int64) (int64, error) { return 0, errUnknown }

// While nobody knows where the logs begin they stay owed, and it is said why; whoever begins
// the model anew by hand is owed nothing; nor is a model that has everything.
func TestModelStaysOwed(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, w.half()...)
	closeShard(t, s)
	h := &history{w: w, size: 3}
	cfg := withHistory(fs, h)
	cfg.History = unknown{h}
	s = open(t, cfg)
	if err := s.RebuildOwed(t.Context()); !errors.Is(err, errUnknown) {
		t.Errorf("%v", err)
	}
	if st := statusOf(t, s, "counts"); !st.Owed || st.Waiting != errUnknown.Error() {
		t.Errorf("status %+v", st)
	}
	closeShard(t, s)

	s = open(t, withHistory(fs, h))
	now := events.VectorOf(s.Logs())
	if err := s.RebuildModel(t.Context(), "counts", derived.Rebuild{FromNow: true}); err != nil {
		t.Fatal(err)
	}
	if err := s.RebuildOwed(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, s)
	checkCounts(t, s, w, now)
	closeShard(t, s)

	s = open(t, withHistory(vfs.NewMem(), h))
	defer closeShard(t, s)
	apply(t, s, w.everything()...)
	if st := statusOf(t, s, "counts"); st.Owed {
		t.Errorf("one that was there from the beginning is owed the logs: %+v", st)
	}
}
