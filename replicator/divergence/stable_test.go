package divergence_test

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

func TestStable(t *testing.T) {
	us, west, eu := testOrigins[0], testOrigins[1], testOrigins[2]
	said := func(o events.Origin, stream events.Stream, partition int32, deps string) divergence.Attestation {
		c, err := events.ParseContext(deps)
		if err != nil {
			t.Fatal(err)
		}
		return divergence.Attestation{Log: events.Log{Origin: o, Stream: stream, Partition: partition}, Applied: c}
	}
	for _, c := range []struct {
		name string
		said []divergence.Attestation
		want string
	}{
		{"nobody", nil, ""},
		{"one is missing", []divergence.Attestation{said(us, "session", 0, "us-east-1@9"), said(west, "session", 0, "us-east-1@9")}, ""},
		{"all", []divergence.Attestation{
			said(us, "session", 0, "eu-central-1_2@4,us-east-1@9"),
			said(west, "session", 0, "eu-central-1_2@5,us-east-1@7,us-west-1@3"),
			said(eu, "session", 0, "eu-central-1_2@6,us-east-1@8"),
		}, "eu-central-1_2/session/0@4,us-east-1/session/0@7"},
		{"partitions and streams are apart", []divergence.Attestation{
			said(us, "session", 0, "us-east-1@9"), said(west, "session", 1, "us-east-1@9"), said(eu, "config", 0, "us-east-1@9"),
		}, ""},
	} {
		if got := divergence.Stable(testOrigins, c.said).String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// What is stable has been folded by every region, and never goes down while no
// state is lost.
func TestStableIsFolded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		before := events.Vector{}
		for range 200 {
			switch w.rng.IntN(4) {
			case 0:
				w.write(1 + w.rng.IntN(4))
			case 1:
				w.mirror(w.regions[w.rng.IntN(3)], w.regions[w.rng.IntN(3)], 1+w.rng.IntN(9))
			case 2:
				w.regions[w.rng.IntN(3)].apply(1 + w.rng.IntN(5))
			case 3:
				w.second()
			}
			stable := w.regions[0].judge.Stable()
			if order := stable.Compare(before); order != events.Equal && order != events.After {
				t.Fatalf("went from %s to %s", before, stable)
			}
			for log, next := range stable {
				for _, r := range w.regions {
					if r.folds[log].state().next < next {
						t.Fatalf("%s is stable up to %d, %s has folded %d", log, next, r.origin, r.folds[log].state().next)
					}
				}
				own := func(l events.Log) int64 { return w.regions[0].folds[l].state().next }
				if settled := w.regions[0].judge.Settled(log, own); settled != 0 && settled != next {
					t.Fatalf("%s is settled up to %d, stable up to %d", log, settled, next)
				}
				if settled := w.regions[0].judge.Settled(log, func(events.Log) int64 { return 0 }); settled != 0 {
					t.Fatalf("%s is settled up to %d where nothing is folded", log, settled)
				}
			}
			before = stable
		}
		w.quiesce()
		if len(w.regions[0].judge.Stable()) == 0 && slices.ContainsFunc(slices.Collect(maps.Values(w.regions[0].log)), func(l []record) bool { return len(l) > 0 }) {
			t.Fatal("all is folded everywhere and nothing is stable")
		}
	})
}
