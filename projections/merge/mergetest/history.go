package mergetest

import (
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

// Written is an event of a key, and where it was written.
type Written struct {
	At    events.Position
	Event events.Event
}

// Saw reports whether the writer had seen what was written at a position, as
// far as the event's context says: the definition that merge.Covered is held to.
func (w Written) Saw(at events.Position) bool {
	if at.Partition != w.At.Partition {
		return false
	}
	if at.Origin == w.At.Origin {
		says := slices.ContainsFunc(w.Event.Deps, func(s events.Seen) bool { return s.Origin == at.Origin })
		return at.Offset < w.At.Offset && (!says || at.Offset < w.Event.Deps.Next(at.Origin))
	}
	return at.Offset < w.Event.Deps.Next(at.Origin)
}

// Burial is a burial of the key that found its slice: from there on, of what its log had written before, the
// model knows nothing but what it takes away or holds down.
func Burial(key string, at events.Position) Written {
	return Written{At: at, Event: events.Event{Key: key, Op: events.OpPut, Type: events.TypeBury}}
}

// EffectiveClocks gives the clocks of a history in order of position, for rules
// under which an event is newer than all before it in its log. A burial has the clock of
// what it buries.
func EffectiveClocks(history []Written) []events.HLC {
	clocks := make([]events.HLC, len(history))
	for i, w := range history {
		clocks[i] = w.Event.Clock
		if i > 0 && history[i-1].At.Log == w.At.Log {
			if w.Event.IsBurial() {
				clocks[i] = clocks[i-1]
				continue
			}
			clocks[i] = max(w.Event.Clock, clocks[i-1].Next())
		}
	}
	return clocks
}

// logs are where a key is written: four origins, one of them the second
// incarnation of another, and two partitions.
func logs() []events.Log {
	var all []events.Log
	for _, o := range []events.Origin{{Region: "eu", Incarnation: 1}, {Region: "us", Incarnation: 1}, {Region: "us", Incarnation: 2}, {Region: "us-a", Incarnation: 1}} {
		for p := range int32(2) {
			all = append(all, events.Log{Origin: o, Stream: "s", Partition: p})
		}
	}
	return all
}

func byPosition(a, b Written) int { return a.At.Compare(b.At) }

// genClock gives clocks that often meet, and the largest ones.
func genClock() *rapid.Generator[events.HLC] {
	n := rapid.OneOf(rapid.Uint64Range(0, 4), rapid.Uint64Range(0, 4), rapid.SampledFrom([]uint64{math.MaxUint64 - 1, math.MaxUint64}), rapid.Uint64())
	return rapid.Map(n, func(n uint64) events.HLC { return events.HLC(n) })
}

// genHistory gives what was written of a key, in the order of writing: in two to
// four logs, often all in one partition, as it should be. Now and then what a log has of it is buried.
func genHistory(what *rapid.Generator[events.Event]) *rapid.Generator[[]Written] {
	return rapid.Custom(func(t *rapid.T) []Written {
		w := writing{T: t, next: map[events.Log]int64{}, seen: map[events.Log]map[events.Origin]int64{}}
		all := logs()
		if rapid.Bool().Draw(t, "in one partition") {
			all = slices.DeleteFunc(all, func(l events.Log) bool { return l.Partition > 0 })
		}
		all = rapid.Permutation(all).Draw(t, "logs")[:rapid.IntRange(2, 4).Draw(t, "origins")]
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Written {
			w.T = t
			return w.write(rapid.SampledFrom(all).Draw(t, "log"), what.Draw(t, "event"))
		}), 0, 16).Draw(t, "history")
	})
}

// writing draws a history.
type writing struct {
	*rapid.T
	next map[events.Log]int64                   // where the logs end
	seen map[events.Log]map[events.Origin]int64 // what each writer has seen of the other logs of its partition
}

func (w *writing) write(log events.Log, e events.Event) Written {
	offset := w.next[log] + rapid.Int64Range(0, 2).Draw(w.T, "records of other keys before")
	if rapid.IntRange(0, 9).Draw(w.T, "burial") == 9 {
		w.next[log] = offset + 1
		return Burial("k", log.At(offset))
	}
	e.Key, e.Clock = "k", genClock().Draw(w.T, "clock")
	switch rapid.IntRange(0, 5).Draw(w.T, "context") {
	case 0: // the writer does not say
	case 1:
		e.Deps = w.anything()
	default:
		e.Deps = w.honest(log)
	}
	w.next[log] = offset + 1
	return Written{At: log.At(offset), Event: e}
}

// honest is the context of a writer that has read more of the other logs since
// it last wrote, and of its own log all or less.
func (w *writing) honest(log events.Log) (c events.Context) {
	if w.seen[log] == nil {
		w.seen[log] = map[events.Origin]int64{}
	}
	for _, other := range logs() {
		if other.Partition != log.Partition {
			continue
		}
		seen, says := w.seen[log][other.Origin], false
		switch {
		case other != log:
			seen = rapid.SampledFrom([]int64{seen, rapid.Int64Range(seen, w.next[other]).Draw(w.T, "more"), w.next[other]}).Draw(w.T, "read")
			w.seen[log][other.Origin] = seen
		case rapid.Bool().Draw(w.T, "says what it had seen of its own log"):
			seen, says = w.next[log]-rapid.Int64Range(0, min(4, w.next[log])).Draw(w.T, "not seen"), true
		}
		if seen > 0 || says {
			c = append(c, events.Seen{Origin: other.Origin, Next: seen})
		}
	}
	return c
}

// anything is a context that may claim what never was.
func (w *writing) anything() (c events.Context) {
	origins := []events.Origin{{Region: "ap", Incarnation: 7}}
	for _, l := range logs() {
		origins = append(origins, l.Origin)
	}
	for _, o := range origins {
		next := rapid.OneOf(rapid.Int64Range(0, 12), rapid.Just(int64(math.MaxInt64))).Draw(w.T, "next")
		known := slices.ContainsFunc(c, func(s events.Seen) bool { return s.Origin == o })
		if !known && rapid.Bool().Draw(w.T, "claims") {
			c = append(c, events.Seen{Origin: o, Next: next})
		}
	}
	return c
}
