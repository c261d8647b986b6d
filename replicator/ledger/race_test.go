package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// story is some instances that know more or less of the topic, and what they must
// be told.
type story struct {
	*world
	t         *rapid.T
	instances []*Ledger
	parts     []Partition
	runs      map[Partition][]mapping.Run // what has been acknowledged, in order
	again     map[Partition]bool          // of which some was taken back, or that were begun anew
	producers map[Partition]ProducerID
	epochs    map[Partition][]Epoch
	pauses    map[string]bool
}

// Several instances take turns, each with what it happens to know. Compaction comes
// in between, instances die and are replaced, and some race for real.
func TestInstancesAgree(t *testing.T) {
	cluster := newCluster(t)
	topics := 0
	rapid.Check(t, func(t *rapid.T) {
		topics++
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s := &story{
			world: newWorld(t, ctx, cluster, fmt.Sprintf("links-%d", topics)), t: t,
			parts: []Partition{p0, {Topic: "session", Partition: 1}},
			runs:  map[Partition][]mapping.Run{}, again: map[Partition]bool{}, producers: map[Partition]ProducerID{},
			epochs: map[Partition][]Epoch{}, pauses: map[string]bool{},
		}
		for range 3 {
			s.instances = append(s.instances, s.open())
		}
		defer func() {
			for _, l := range s.instances {
				l.Close()
			}
		}()
		s.fill(s.instances[0], p0, rapid.SampledFrom([]int{0, 1, blockChunks - 2, 2*blockChunks - 1}).Draw(t, "filled"))
		s.runs[p0] = s.instances[0].Map(p0).Runs()
		actions := []func(){s.append, s.append, s.append, s.race, s.propose, s.epoch, s.forget, s.reset, s.cut, s.pause, s.refresh, s.restart, s.compactNow}
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			actions[rapid.IntRange(0, len(actions)-1).Draw(t, "action")]()
		}
		s.check()
	})
}

func (s *story) instance() *Ledger {
	return s.instances[rapid.IntRange(0, len(s.instances)-1).Draw(s.t, "instance")]
}

func (s *story) part() Partition { return rapid.SampledFrom(s.parts).Draw(s.t, "partition") }

// append succeeds if and only if the writer knows everything.
func (s *story) append() {
	l, p := s.instance(), s.part()
	m := l.Map(p)
	runs := someRuns(m, rapid.SampledFrom([]int{1, 1, 2, chunkRuns + 1}).Draw(s.t, "runs"))
	err := l.AppendRuns(s.ctx, p, m.Len(), runs)
	knows := slices.Equal(m.Runs(), s.runs[p])
	switch {
	case err == nil && knows:
		s.runs[p] = slices.Concat(s.runs[p], runs)
	case err == nil:
		s.Fatalf("%s knows %d of %d runs of %s and could append", l.cfg.Instance, m.Len(), len(s.runs[p]), p)
	case !errors.Is(err, ErrSuperseded):
		s.Fatalf("%v", err)
	case knows && len(s.runs[p]) > 0 && !s.again[p]: // what has come since may look the same
		s.Fatalf("%s knows all runs of %s: %v", l.cfg.Instance, p, err)
	}
	if !slices.Equal(l.Map(p).Runs(), s.runs[p]) {
		s.Fatalf("after an append %s has %d runs of %s, want %d", l.cfg.Instance, l.Map(p).Len(), p, len(s.runs[p]))
	}
}

// race lets all append at once: one at most wins of those who know everything.
func (s *story) race() {
	p := s.part()
	errs := make([]error, len(s.instances))
	runs := make([][]mapping.Run, len(s.instances))
	knew := make([]bool, len(s.instances))
	var all sync.WaitGroup
	for i, l := range s.instances {
		m := l.Map(p)
		knew[i] = slices.Equal(m.Runs(), s.runs[p])
		// All different, so that it shows who has won.
		runs[i] = someRuns(m, 1)
		runs[i][0].Source += int64(100 * (i + 1))
		all.Go(func() { errs[i] = l.AppendRuns(s.ctx, p, m.Len(), runs[i]) })
	}
	all.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && (won >= 0 || !knew[i]):
			s.Fatalf("%s has won as well, or without knowing (it knew: %v)", s.instances[i].cfg.Instance, knew[i])
		case err == nil:
			won = i
		case !errors.Is(err, ErrSuperseded):
			s.Fatalf("%v", err)
		}
	}
	if won >= 0 {
		s.runs[p] = slices.Concat(s.runs[p], runs[won])
	} else if slices.Contains(knew, true) && len(s.runs[p]) > 0 {
		s.Fatalf("nobody has won a chunk of %s", p)
	}
}

func (s *story) propose() {
	l, p := s.instance(), s.part()
	s.do(l.Refresh(s.ctx)) // a producer that is known is not asked for again
	mine := ProducerID{ID: rapid.Int64Range(0, 9).Draw(s.t, "id")}
	winners, err := l.Propose(s.ctx, map[Partition]ProducerID{p: mine})
	s.do(err)
	if _, decided := s.producers[p]; !decided {
		s.producers[p] = mine
	}
	if winners[p] != s.producers[p] {
		s.Fatalf("producer of %s is %v, %s was told %v", p, s.producers[p], l.cfg.Instance, winners[p])
	}
}

func (s *story) epoch() {
	l, p := s.instance(), s.part()
	s.do(l.Refresh(s.ctx))
	next := Epoch{Epoch: rapid.Int32Range(0, 2).Draw(s.t, "epoch"), Start: rapid.Int64Range(0, 5).Draw(s.t, "start")}
	if was := s.epochs[p]; len(was) > 0 {
		last := was[len(was)-1]
		next = Epoch{Epoch: last.Epoch + 1 + next.Epoch, Start: last.Start + 1 + next.Start}
	}
	s.do(l.AppendEpoch(s.ctx, p, next))
	s.epochs[p] = append(s.epochs[p], next)
}

func (s *story) forget() { s.begin(new(mapping.Map)) }

func (s *story) reset() {
	runs, err := mapping.New(mapping.Run{Source: rapid.Int64Range(50, 90).Draw(s.t, "source"), Dest: rapid.Int64Range(0, 40).Draw(s.t, "dest")})
	s.do(err)
	s.begin(runs)
}

// begin resets a partition, by an instance that may not know everything.
func (s *story) begin(runs *mapping.Map) {
	p := s.part()
	s.do(s.instance().Reset(s.ctx, p, runs))
	s.runs[p] = runs.Runs()
	s.again[p] = true
	delete(s.producers, p)
	delete(s.epochs, p)
}

// cut takes runs back, by an instance that knows everything.
func (s *story) cut() {
	l, p := s.instance(), s.part()
	s.do(l.Refresh(s.ctx))
	if len(s.runs[p]) == 0 {
		return
	}
	keep := rapid.IntRange(1, len(s.runs[p])).Draw(s.t, "keep")
	s.do(s.keep(l, p, keep))
	s.runs[p] = s.runs[p][:keep]
	s.again[p] = true
}

func (s *story) pause() {
	what := rapid.SampledFrom([]string{"link", "data", "topic/session/0"}).Draw(s.t, "what")
	paused := rapid.Bool().Draw(s.t, "paused")
	s.do(s.instance().SetPause(s.ctx, what, paused))
	s.pauses[what] = paused
	if !paused {
		delete(s.pauses, what)
	}
}

func (s *story) refresh() { s.do(s.instance().Refresh(s.ctx)) }

func (s *story) restart() {
	i := rapid.IntRange(0, len(s.instances)-1).Draw(s.t, "restarted")
	s.instances[i].Close()
	s.instances[i] = s.open()
}

func (s *story) compactNow() { s.compact(s.instances[0]) }

// check compares all instances, and one that is new, with what was acknowledged.
func (s *story) check() {
	for range 2 {
		s.same(s.parts, s.instances...)
		l := s.instances[0]
		for _, p := range s.parts {
			if got := l.Map(p).Runs(); !slices.Equal(got, s.runs[p]) {
				s.Fatalf("runs of %s: %v, want %v", p, got, s.runs[p])
			}
			if got := l.Epochs(p); !slices.Equal(got, s.epochs[p]) {
				s.Fatalf("epochs of %s: %v, want %v", p, got, s.epochs[p])
			}
			if got, ok := l.Producer(p); got != s.producers[p] || ok != decided(s.producers, p) {
				s.Fatalf("producer of %s: %v, want %v", p, got, s.producers[p])
			}
		}
		if got := fmt.Sprint(l.Pauses()); got != fmt.Sprint(s.pauses) {
			s.Fatalf("pauses %s, want %v", got, s.pauses)
		}
		if bad := l.Unreadable(); len(bad) > 0 {
			s.Fatalf("unreadable: %q", bad)
		}
		s.compactNow()
	}
}

func decided(producers map[Partition]ProducerID, p Partition) bool {
	_, ok := producers[p]
	return ok
}

// Appends to many partitions at once, by goroutines of one instance and by another
// instance, while readers look.
func TestManyAtOnce(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	const partitions, appends = 8, 20
	var parts []Partition
	var all sync.WaitGroup
	for n := range int32(partitions) {
		p := Partition{Topic: "session", Partition: n}
		parts = append(parts, p)
		for _, l := range []*Ledger{a, b, a} {
			all.Go(func() {
				for range appends {
					m := l.Map(p)
					err := l.AppendRuns(w.ctx, p, m.Len(), someRuns(m, 1+rand.IntN(2)))
					if err != nil && !errors.Is(err, ErrSuperseded) {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Go(func() {
		for range 20 {
			if err := b.Refresh(w.ctx); err != nil {
				t.Error(err)
			}
			w.cluster.Compact()
		}
	})
	all.Wait()
	w.same(parts, a, b)
	for _, p := range parts {
		if a.Map(p).Len() < appends {
			t.Errorf("%s has %d runs only", p, a.Map(p).Len())
		}
	}
	w.compact(a)
	w.same(parts, a, b)
}
