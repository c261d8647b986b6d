package replicator_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
)

// rivals are instances of one link that run at once, by mistake. Each reaches the
// clusters through gates of its own.
type rivals struct {
	*world
	rng          *rand.Rand
	source, dest *cluster
	links        []*runningLink
	gates        []*gate
}

// rival starts one more.
func (r *rivals) rival() {
	toSource, toDest := *r.source, *r.dest // the same clusters, with other gates
	toSource.gate, toDest.gate = newGate(r.dial), newGate(r.dial)
	l := &runningLink{w: r.world, source: &toSource, dest: &toDest, cfg: replicator.Config{
		Origin: events.FirstOrigin(us), Destination: eu, Topics: patterns(r.T, topic, compacted),
	}}
	r.stops = append(r.stops, func() { toSource.gate.Open(); toDest.gate.Open(); l.stop() })
	l.remake()
	r.links = append(r.links, l)
	r.gates = append(r.gates, toSource.gate, toDest.gate)
}

// Two or three instances, each paused, cut off and restarted at random, never double,
// lose or reorder a record, whether the log is dense or has holes that change
// meanwhile, and none of them stops.
func TestRivals(t *testing.T) {
	first, n := uint64(1), max(*countFlag/2, 1)
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	for seed := first; seed < first+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("replay: go test ./replicator -run TestRivals -link.seed %d -link.rounds %d", seed, *roundsFlag)
				}
			}()
			two(t, func(w *world, source, dest *cluster) {
				r := &rivals{world: w, rng: rand.New(rand.NewPCG(seed, 2)), source: source, dest: dest}
				r.run(seed%2 == 0)
			})
		})
	}
}

func (r *rivals) run(holes bool) {
	s := &sim{world: r.world, rng: r.rng, regions: []events.Region{us}, codecs: everyCodec}
	r.source.create(compacted, "cleanup.policy", "compact", "segment.bytes", "3000")
	r.source.produce(records(0, 1)...)
	for p := range int32(partitions) {
		first := record(p, 0)
		first.Topic, first.Key = compacted, []byte("written once") // else compaction would move the log's start, as no real one does
		r.source.produce(first)
	}
	for range 2 + r.rng.IntN(2) {
		r.rival()
	}
	for range *roundsFlag {
		if holes {
			s.produce(r.source)
		} else {
			r.source.write(r.rng.IntN(10))
		}
		r.event(holes)
		time.Sleep(time.Duration(r.rng.Int64N(int64(time.Millisecond << r.rng.IntN(14)))))
		for _, l := range r.links {
			if stops := l.Status().Stopped; len(stops) > 0 {
				r.Fatalf("stopped: %q", stops)
			}
		}
	}
	for _, g := range r.gates {
		g.Open()
	}
	r.links[0].start()
	for _, name := range []string{topic, compacted} {
		r.links[0].awaitView(name)
	}
	time.Sleep(time.Minute)
	for i, l := range r.links {
		l.start()
		for _, name := range []string{topic, compacted} {
			l.awaitView(name)
		}
		if stops := l.Status().Stopped; len(stops) > 0 {
			r.Fatalf("instance %d is stopped: %q", i, stops)
		}
	}
}

func (r *rivals) event(holes bool) {
	g := r.gates[r.rng.IntN(len(r.gates))]
	l := r.links[r.rng.IntN(len(r.links))]
	switch r.rng.IntN(9) {
	case 0:
		g.Hold()
	case 1:
		g.Cut()
	case 2, 3:
		g.Open()
	case 4:
		g.Slow(time.Duration(r.rng.Int64N(int64(20 * time.Millisecond))))
	case 5:
		l.remake()
	case 6:
		if l.running() {
			l.stop()
		} else {
			l.start()
		}
	case 7:
		errs := []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition}
		r.dest.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: mirror(us, topic), Err: errs[r.rng.IntN(len(errs))], Count: 1 + r.rng.IntN(3)})
	case 8:
		if holes {
			r.source.Compact()
		}
	}
}

// Two instances find an empty destination at the same moment: they agree on who
// writes, whatever comes first.
func TestRivalsAtTheStart(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.create(compacted)
		source.write(30)
		source.transaction(commit, records(30, 5)...)
		r := &rivals{world: w, source: source, dest: dest}
		for range 4 {
			r.rival()
		}
		for _, l := range r.links {
			l.awaitView(topic)
		}
		source.write(30)
		for _, l := range slices.Backward(r.links) {
			l.awaitView(topic)
		}
	})
}
