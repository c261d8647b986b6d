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
	l := r.instance(r.source, r.dest, replicator.Config{Topics: patterns(r.T, topic, compacted)})
	r.links = append(r.links, l)
	r.gates = append(r.gates, l.toSource, l.toDest)
}

// instance starts a link that reaches its clusters through gates of its own.
func (w *world) instance(source, dest *cluster, cfg replicator.Config) *runningLink {
	w.Helper()
	cfg.Origin, cfg.Destination = events.FirstOrigin(source.region), dest.region
	l := &runningLink{w: w, source: source, dest: dest, toSource: newGate(w.dial), toDest: newGate(w.dial), cfg: cfg}
	w.stops = append(w.stops, func() { l.toSource.Open(); l.toDest.Open(); l.stop() })
	l.remake()
	return l
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
		r.source.note(first)
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
		if holes && r.rng.IntN(2) == 0 {
			r.delay(s)
		} else {
			r.event(holes)
		}
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

// delay lets batches arrive late, after others have been made of what compaction
// has left of the same records.
func (r *rivals) delay(s *sim) {
	p := r.rng.Int32N(partitions)
	order := r.rng.Perm(len(r.links))
	for _, i := range order[1:] {
		r.links[i].toSource.Hold() // sees it later
	}
	r.links[order[0]].toDest.Stall()
	s.produceTo(r.source, compacted, p)
	time.Sleep(time.Second)
	for range 1 + r.rng.IntN(3) {
		s.produceTo(r.source, compacted, p)
	}
	r.source.Compact()
	for _, i := range order[1:] {
		r.links[i].toSource.Open()
		if r.rng.IntN(2) == 0 {
			time.Sleep(time.Duration(r.rng.Int64N(int64(2 * time.Second))))
		}
	}
	r.links[order[0]].toDest.Open()
}

func (r *rivals) event(holes bool) {
	g := r.gates[r.rng.IntN(len(r.gates))]
	l := r.links[r.rng.IntN(len(r.links))]
	switch r.rng.IntN(12) {
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
	case 8, 9, 10:
		g.Stall()
	case 11:
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
