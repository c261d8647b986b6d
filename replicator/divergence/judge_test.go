package divergence_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

var runsFlag = flag.Uint64("divergence.n", 0, "run so many seeds (default 1000, or 200 with -short)")

func runs() uint64 {
	switch {
	case *runsFlag > 0:
		return *runsFlag
	case testing.Short():
		return 200
	}
	return 1000
}

const steps = 400

// Crashes, restores, lag, cut links, zombies, compaction, topics made anew: where
// nothing is wrong nothing is found, and when it is quiet everything is compared.
func TestNoFalseAlarm(t *testing.T) {
	for seed := range runs() {
		w := newWorld(seed)
		for range steps {
			w.step()
		}
		w.quiesce()
		if len(w.found) > 0 {
			t.Fatalf("seed %d: found %v where nothing was wrong", seed, w.found)
		}
		for _, r := range w.regions {
			for _, f := range r.findings() {
				if f.Result != divergence.Consistent {
					t.Fatalf("seed %d, when it was quiet: %s", seed, f.Describe(r.origin.Region))
				}
			}
		}
	}
}

// The same life, with one thing that goes wrong in one place: exactly that is
// found, in every region that can see it, and in the right layer.
func TestEveryFaultIsFound(t *testing.T) {
	for seed := range runs() {
		w := newWorld(seed)
		for range steps / 4 {
			w.step()
		}
		w.inject()
		for range steps {
			w.step()
		}
		w.quiesce()
		want := w.expected()
		for _, r := range w.regions {
			for _, f := range r.findings() {
				name := fmt.Sprintf("%s %s", r.origin.Region, f.Log)
				switch layer, bad := want[name]; {
				case bad && (f.Result != divergence.Diverged || f.Layer != layer):
					t.Fatalf("seed %d: fault %+v, but %s", seed, *w.fault, f.Describe(r.origin.Region))
				case !bad && f.Result != divergence.Consistent:
					t.Fatalf("seed %d: fault %+v, and yet %s", seed, *w.fault, f.Describe(r.origin.Region))
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(w.found)) {
			var r, l, layer string
			if _, err := fmt.Sscan(name, &r, &l, &layer); err != nil {
				t.Fatal(err)
			}
			if want[r+" "+l] != divergence.Layer(layer) {
				t.Fatalf("seed %d: fault %+v, and %s was found", seed, *w.fault, name)
			}
		}
	}
}

// inject makes the next record of some log go wrong in some region. It is of a
// key that never forgets.
func (w *world) inject() {
	logs := allLogs()
	f := &fault{region: w.rng.IntN(len(w.regions)), log: logs[w.rng.IntN(len(logs))], layer: divergence.LayerFold, times: 2 * w.rng.IntN(2)}
	origin := w.origin(f.log)
	if origin != w.regions[f.region] && w.rng.IntN(2) == 0 {
		f.layer = divergence.LayerLog
	}
	f.offset = int64(len(origin.log[f.log]))
	origin.log[f.log] = append(origin.log[f.log], record{key: w.rng.IntN(keys / 2), value: w.rng.Uint64()})
	w.fault = f
}

func (w *world) origin(l events.Log) *region {
	return w.regions[slices.Index(testOrigins, l.Origin)]
}

// expected are the regions that must see the fault, and in which layer: all
// others if an origin folds its own log wrongly, else the one.
func (w *world) expected() map[string]divergence.Layer {
	want := map[string]divergence.Layer{}
	culprit := w.regions[w.fault.region]
	for _, r := range w.regions {
		atOrigin := culprit.origin == w.fault.log.Origin
		if atOrigin != (r == culprit) {
			want[fmt.Sprintf("%s %s", r.origin.Region, w.fault.log)] = w.fault.layer
		}
	}
	return want
}
