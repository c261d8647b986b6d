//go:build kafka

package kafkatest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	killRounds = flag.Int("kill.rounds", envInt("KILL_ROUNDS", 8), "rounds of TestKillRounds; 50 for a full run")
	killSeed   = flag.Uint64("kill.seed", 0, "seed of TestKillRounds; 0: another one each time")
)

func envInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// checkEvery is how many rounds go by between comparisons; the last round ends
// with one.
const checkEvery = 4

// strikes is what is killed in a round. "zombie" freezes a link's process while
// another instance takes over, and lets both go on.
var strikes = []string{
	"link", "zombie", "dest", "zombie link", "source", "zombie dest", "link dest", "zombie source", "source dest", "link source dest", "link source",
}

// strikesOnHoles is what is killed while the source's log has holes: mostly what
// two instances could disagree about.
var strikesOnHoles = []string{"zombie", "zombie dest", "link", "zombie link", "link dest", "dest", "zombie source"}

// Links and brokers are killed by -9, and links are frozen while others take
// over, at any moment of a steady load. Whenever it is quiet, the mirror is the log,
// record for record and offset for offset.
func TestKillRounds(t *testing.T) {
	k := newKilling(plainWorld(t))
	k.rounds(strikes, *killRounds, func() *load { return k.load(k.seed) }, func() int {
		ends := k.source.ends(k.topic)
		k.await("all is mirrored", patience, func() error { return k.mirrored(ends) })
		k.link.awaitMirroring()
		return k.sameOffsets()
	})
}

// The same with transactions in the log, so that offsets differ and what has no
// place in the mirror has to be left out by every instance alike.
func TestKillRoundsOnHoles(t *testing.T) {
	k := newKilling(plainWorld(t))
	k.rounds(strikesOnHoles, (*killRounds+1)/2, func() *load { return k.transactionalLoad(k.seed) }, func() int {
		k.quiet()
		k.awaitMirroredTo(k.source.stables(k.topic))
		return k.sameRecords()
	})
	n := k.sameRecords()
	k.link.kill()
	k.verifyAnew(n)
}

// killing is a run of rounds.
type killing struct {
	*world
	seed    uint64
	random  *rand.Rand
	link    *process
	zombie  *process    // frozen, or at work beside the link
	leaders *replicated // of whom some are upset; nil: each side is one broker
	led     string      // the topic whose leaders they are
	current *load
	acked   int64 // records that producers know to be written, of loads that have ended

	starting time.Duration // that brokers took to start
}

func newKilling(w *world) *killing {
	w.Helper()
	seed := *killSeed
	for seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	w.Logf("replay: go test -tags kafka ./replicator/kafkatest -run '^%s$' -count=1 -v -kill.seed=%d -kill.rounds=%d", w.Name(), seed, *killRounds)
	k := &killing{world: w, seed: seed, random: rand.New(rand.NewPCG(seed, 0))}
	k.link = k.spawn()
	k.link.awaitMirroring()
	return k
}

// rounds strikes so many times; every few rounds it stops the load and compares
// everything from the beginning.
func (k *killing) rounds(strikes []string, n int, start func() *load, compare func() int) {
	k.Helper()
	order := k.random.Perm(len(strikes))
	for round := range n {
		if k.current == nil {
			k.current = start()
		}
		strike := strikes[order[round%len(order)]]
		begun := time.Now()
		k.starting = 0
		k.round(strike)
		k.Logf("round %d: %s: %s, of which brokers took %s to start", round, strike,
			time.Since(begun).Round(time.Millisecond), k.starting.Round(time.Millisecond))
		if round%checkEvery == checkEvery-1 || round == n-1 {
			k.current.stop()
			records := compare()
			k.unstopped()
			k.acked += k.current.acked.Load()
			if int64(records) < k.acked {
				k.Errorf("producers wrote %d records, the log has %d", k.acked, records)
			}
			k.Logf("round %d: %d records are the same; of the producers' runs %d have failed", round, records, k.current.failed.Load())
			k.current = nil
		}
		if k.Failed() {
			k.FailNow()
		}
	}
}

// quiet waits until no transaction is open. One whose producer was in doubt is
// ended by the broker.
func (k *killing) quiet() {
	k.Helper()
	k.await("all transactions have ended", patience, func() error {
		ends := k.source.ends(k.topic)
		for num, at := range k.source.stables(k.topic) {
			if at != ends[num] {
				return fmt.Errorf("partition %d is stable up to offset %d of %d", num, at, ends[num])
			}
		}
		return nil
	})
}

// verifyAnew lets a link that has seen nothing of all this compare record by record
// through what the link topic says of offsets.
func (k *killing) verifyAnew(n int) {
	k.Helper()
	l := k.start()
	l.awaitMirrored()
	if same, expired := l.verify(); same != int64(n) || expired != 0 {
		k.Errorf("verified %d records and %d expired, want %d and 0", same, expired, n)
	}
}

// pause is a moment drawn from the seed: so that a strike may fall into anything.
func (k *killing) pause(most time.Duration) { time.Sleep(time.Duration(k.random.Int64N(int64(most)))) }

// round strikes once, brings everything back, and waits until records arrive.
func (k *killing) round(strike string) {
	k.Helper()
	k.pause(time.Second)
	var brokers []string
	respawn := false
	for _, what := range strings.Fields(strike) {
		switch what {
		case "link":
			k.link.kill()
			respawn = true
		case "zombie":
			k.takeOver()
		case "source":
			brokers = append(brokers, k.source.region.String())
		case "dest":
			brokers = append(brokers, k.dest.region.String())
		default:
			k.leaders.upset(what, k.led, k.random)
		}
		k.pause(200 * time.Millisecond)
	}
	k.restart(brokers)
	if k.leaders != nil {
		k.leaders.repair()
	}
	if respawn {
		k.pause(time.Second)
		k.link = k.spawn()
	}
	if k.zombie == nil {
		k.link.awaitMirroring()
	}
	k.awaitMirroredTo(k.source.stables(k.topic))
	k.unstopped()
	if k.zombie != nil {
		k.onlyOne()
		k.link.awaitMirroring()
	}
}

// takeOver freezes the link's process, lets another one mirror, and thaws the
// first: from now on there are two.
func (k *killing) takeOver() {
	k.Helper()
	k.zombie = k.link
	k.zombie.freeze()
	k.link = k.spawn()
	k.link.awaitMirroring()
	k.pause(2 * time.Second)
	k.zombie.thaw()
	k.pause(2 * time.Second)
}

// onlyOne kills one of two instances.
func (k *killing) onlyOne() {
	if k.random.IntN(2) == 0 {
		k.link, k.zombie = k.zombie, k.link
	}
	k.zombie.kill()
	k.zombie = nil
}

// restart kills brokers, all at once, and brings them back.
func (k *killing) restart(brokers []string) {
	k.Helper()
	if len(brokers) == 0 {
		return
	}
	var all sync.WaitGroup
	for _, b := range brokers {
		all.Go(func() { kafka(k.T, nil, "kill", b) })
	}
	all.Wait()
	k.pause(time.Second)
	begun := time.Now()
	bringUp(k.T, brokers...)
	k.starting += time.Since(begun)
}

// awaitMirroredTo waits until all partitions are mirrored up to offsets of the source.
// Of two instances at work it is either that says so: they take turns at each
// partition, as the one that comes second waits before it tries again, so that none
// has all of them at any one time.
func (k *killing) awaitMirroredTo(ends map[int32]int64) {
	k.Helper()
	k.await("what was written by then is mirrored", patience, func() error {
		reached := map[int32]int64{}
		var said []string
		for _, i := range k.instances() {
			d, _ := i.details()
			for _, p := range d.Partitions {
				if p.SourceNext != nil {
					reached[p.Partition] = max(reached[p.Partition], *p.SourceNext)
				}
				said = append(said, fmt.Sprintf("%d %s at %s %s", p.Partition, p.State, text(p.SourceNext), p.Reason))
			}
		}
		for num, end := range ends {
			if reached[num] < end {
				return fmt.Errorf("partition %d is at offset %d of %d; instances say: %q", num, reached[num], end, said)
			}
		}
		return nil
	})
}

// instances are those at work, or frozen.
func (k *killing) instances() []*process {
	if k.zombie == nil {
		return []*process{k.link}
	}
	return []*process{k.link, k.zombie}
}

// unstopped checks that no instance has given up a partition.
func (k *killing) unstopped() {
	k.Helper()
	for _, p := range k.instances() {
		if d, _ := p.details(); len(d.Stopped) > 0 {
			k.Errorf("a link has stopped: %v", d.Stopped)
		}
	}
}
