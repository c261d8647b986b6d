package replicator_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	seedFlag   = flag.Uint64("link.seed", 0, "replay this seed only (default: a few fixed ones)")
	roundsFlag = flag.Int("link.rounds", 25, "rounds of each seed")
)

// storm is a link that is stopped and started at random moments while records
// are written and both clusters misbehave.
type storm struct {
	*world
	rng          *rand.Rand
	source, dest *cluster
	link         *runningLink
}

// moment sleeps up to a random time of very different magnitudes.
func (s *storm) moment() {
	most := time.Millisecond << s.rng.IntN(13) // up to 4 s
	time.Sleep(time.Duration(s.rng.Int64N(int64(most))))
}

// weather makes something happen that must not matter.
func (s *storm) weather() {
	c := s.source
	if s.rng.IntN(2) == 0 {
		c = s.dest
	}
	retriable := []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.UnknownServerError}
	switch s.rng.IntN(8) {
	case 0:
		c.gate.Cut()
	case 1:
		c.gate.Hold()
	case 2, 3:
		c.gate.Open()
	case 4:
		c.gate.Slow(time.Duration(s.rng.Int64N(int64(50 * time.Millisecond))))
	case 5:
		c.down()
		c.up()
	case 6:
		s.dest.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: retriable[s.rng.IntN(len(retriable))], Count: 1 + s.rng.IntN(3)})
	case 7:
		s.source.writeTo(s.rng.Int32N(partitions), 200)
	}
}

// round lets the link run for a while.
func (s *storm) round() {
	for range s.rng.IntN(4) {
		s.weather()
		s.source.write(s.rng.IntN(10))
		s.moment()
	}
	if s.rng.IntN(3) > 0 { // else it goes on
		s.link.stop()
		s.check()
		s.link.start()
	}
}

// check demands that nothing is wrong so far.
func (s *storm) check() {
	s.Helper()
	for p := range int32(partitions) {
		checkPrefix(s.source, s.dest, topic, p)
	}
	if st := s.link.Status(); len(st.Stopped) > 0 {
		s.Fatalf("stopped: %q", st.Stopped)
	}
}

// Stopped and started at random moments under random faults, a link neither
// loses nor doubles nor reorders anything, and catches up once all is well.
func TestStopAndStartInStorm(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("replay: go test ./replicator -run TestStopAndStartInStorm -link.seed %d -link.rounds %d", seed, *roundsFlag)
				}
			}()
			two(t, func(w *world, source, dest *cluster) {
				s := &storm{world: w, rng: rand.New(rand.NewPCG(seed, 0)), source: source, dest: dest, link: w.link(us, eu)}
				for range *roundsFlag {
					s.round()
				}
				source.gate.Open()
				dest.gate.Open()
				awaitMirrored(source, dest)
				s.check()
			})
		})
	}
}

// A link that ends with writes under way leaves a mirror on which the next one
// can go on at once, whenever it is told to end.
func TestEndWithWritesUnderWay(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.gate.Slow(time.Millisecond)
		dest.gate.Slow(time.Millisecond)
		l := w.link(us, eu)
		for i := range 60 {
			source.write(10)
			time.Sleep(time.Duration(i) * 500 * time.Microsecond)
			l.stop()
			l.start()
		}
		awaitMirrored(source, dest)
		if s := l.Status(); len(s.Stopped) > 0 {
			t.Errorf("stopped: %q", s.Stopped)
		}
	})
}
