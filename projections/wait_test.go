package projections_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// Those who wait for a cut are woken by the step that reaches it, and no earlier.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := smallWorld(0)
		s := openNew(t)
		first, second := logsOf(0)[0], logsOf(0)[5]
		var waiting sync.WaitGroup
		var mu sync.Mutex
		done := map[string]bool{}
		wait := func(cut events.Vector) {
			waiting.Go(func() {
				if err := s.Wait(t.Context(), cut); err != nil {
					t.Error(err)
				}
				mu.Lock()
				done[cut.String()] = true
				mu.Unlock()
			})
		}
		cuts := []events.Vector{{}, {first: 1}, {first: 3}, {first: 1, second: 2}, {first: 3, second: 1, {Origin: first.Origin, Stream: first.Stream, Partition: 7}: 99}}
		for _, cut := range cuts {
			wait(cut)
		}
		check := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for i, cut := range cuts {
				if done[cut.String()] != slices.Contains(want, i) {
					t.Errorf("%s: waited for %s: %t", when, cut, done[cut.String()])
				}
			}
		}
		check("at first", 0)
		apply(t, s, w.from(first, 0, 2))
		check("after two of the first", 0, 1)
		apply(t, s, w.from(second, 0, 2))
		check("after two of the second", 0, 1, 3)
		apply(t, s, w.from(first, 2, 1))
		check("after all", 0, 1, 2, 3, 4)
		waiting.Wait()
	})
}

// Whoever gives up is told which log is how far behind; a log that has stopped is
// not waited for, whenever it stops.
func TestWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := smallWorld(0)
		s := openNew(t)
		log := logsOf(0)[0]
		apply(t, s, w.from(log, 0, 4))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Wait(ctx, events.Vector{log: 9})
		behind := wantAs[*projections.BehindError](t, err)
		if behind.Want != log.At(9) || behind.Next != 4 || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "up to offset 4, 5 short of 9") {
			t.Errorf("%v", err)
		}
		gap := errors.New("a gap")
		time.AfterFunc(time.Minute, func() { s.Block(log, gap) })
		for range 2 { // while it waits, and when it has stopped before
			if err := s.Wait(t.Context(), events.Vector{log: 9}); !errors.Is(err, gap) {
				t.Errorf("%v", err)
			}
		}
		if err := s.Wait(t.Context(), events.Vector{log: 4}); err != nil {
			t.Errorf("what was folded before: %v", err)
		}
	})
}

// A feed gives every key that has changed since it began or was pulled, and never
// moves its cut past one that it has not given.
func TestFeed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := openNew(t)
		w := world{}
		stream := streams[0]
		prefix := rapid.SampledFrom([]string{"", "a", "a\x00", "s-", "nothing"}).Draw(t, "prefix")
		wanted := func(key string) bool { return strings.HasPrefix(key, prefix) }
		cuts := []events.Vector{{}}
		follow := func(from events.Vector) *projections.Feed {
			f, err := projections.Follow([]*projections.Shard{s}, stream, wanted, from)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(f.Close)
			return f
		}
		fromNow, fromThen := follow(nil), follow(events.Vector{})
		since := map[*projections.Feed]events.Vector{fromNow: {}, fromThen: {}}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			var runs []projections.Run
			for range rapid.IntRange(1, 3).Draw(t, "logs") {
				l := rapid.SampledFrom(logsOf(0)).Draw(t, "log")
				if slices.ContainsFunc(runs, func(r projections.Run) bool { return r.Log == l }) {
					continue
				}
				at := int64(len(w[l]))
				for range rapid.IntRange(0, 3).Draw(t, "records") {
					w.write(l, genRecord().Draw(t, "record"))
				}
				runs = append(runs, w.from(l, at, len(w[l])))
			}
			apply(t, s, runs...)
			cuts = append(cuts, events.VectorOf(s.Logs()))
			for f := range since {
				if rapid.Bool().Draw(t, "pull") {
					since[f] = checkPull(t, f, w, stream, wanted, since[f], s)
				}
			}
		}
		cut := rapid.SampledFrom(cuts).Draw(t, "resumed at")
		checkPull(t, follow(cut), w, stream, wanted, cut, s)
	})
}

// checkPull compares what a feed gives with what the records since a cut are about.
func checkPull(t tb, f *projections.Feed, w world, stream events.Stream, wanted func(string) bool, since events.Vector, s *projections.Shard) events.Vector {
	t.Helper()
	got := map[string]bool{}
	if err := f.Pull(func(key string, upkeep bool) { got[key] = got[key] || !upkeep }); err != nil {
		t.Fatal(err)
	}
	now := events.VectorOf(s.Logs())
	for log, next := range now {
		if log.Stream != stream {
			continue
		}
		if f.Cut()[log] != next {
			t.Fatalf("the cut is %s, the shard stands at %s", f.Cut(), now)
		}
		parked := w.fold(log, next).parked
		for _, r := range w[log][since[log]:next] {
			isParked := slices.Contains(parked, log.At(r.Offset))
			if e, err := decode(r); err == nil && !isParked && !e.IsUpkeep() && wanted(e.Key) && !got[e.Key] {
				t.Fatalf("%q has changed at %s and was not given", e.Key, log.At(r.Offset))
			}
		}
	}
	for key := range got {
		if !wanted(key) {
			t.Fatalf("%q was not wanted", key)
		}
	}
	return now
}

// What a shard remembers is bounded. Who asks for more, or takes too long, is told,
// and is not given a part as if it were all.
func TestFeedIsBounded(t *testing.T) {
	s := openNew(t)
	w := world{}
	log := logsOf(0)[0]
	var shards = []*projections.Shard{s}
	all := func(string) bool { return true }
	write := func(n int) {
		t.Helper()
		at := int64(len(w[log]))
		for range n {
			w.write(log, bare(fmt.Sprintf("%030000d", len(w[log])), []byte("v"), 1))
		}
		apply(t, s, w.from(log, at, n))
	}
	write(1)
	begun := events.VectorOf(s.Logs())
	slow, err := projections.Follow(shards, log.Stream, all, begun)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	for range 60 { // 1.8 MB of keys
		write(1)
	}
	wantKind(t, slow.Pull(func(string, bool) {}), events.KindNotReady)
	_, err = projections.Follow(shards, log.Stream, all, begun)
	wantKind(t, err, events.KindNotFound)
	if !strings.Contains(err.Error(), log.String()+" from offset 1 on") {
		t.Errorf("%v", err)
	}
	newest, err := projections.Follow(shards, log.Stream, all, events.Vector{log: 60})
	if err != nil {
		t.Fatal(err)
	}
	defer newest.Close()
	given := 0
	if err := newest.Pull(func(string, bool) { given++ }); err != nil || given != 1 {
		t.Errorf("%d changes, %v", given, err)
	}
	write(60) // one step that is larger than the bound is remembered whole
	if err := newest.Pull(func(string, bool) { given++ }); err != nil || given != 61 {
		t.Errorf("%d changes, %v", given, err)
	}
	// Another opening remembers nothing, but knows where it stands.
	_, err = projections.Follow([]*projections.Shard{openNew(t)}, log.Stream, all, events.Vector{})
	if err != nil {
		t.Errorf("from the beginning of an empty shard: %v", err)
	}
}

// A shard says whether it has come to a cut without being waited for.
func TestReached(t *testing.T) {
	w := smallWorld(0)
	s := openNew(t)
	log, other := logsOf(0)[0], logsOf(0)[5]
	apply(t, s, w.from(log, 0, 2))
	for _, cut := range []events.Vector{nil, {log: 2}, {log: 1, other: 0}, {{Origin: log.Origin, Stream: log.Stream, Partition: 7}: 9}} {
		if err := s.Reached(cut); err != nil {
			t.Errorf("%s: %v", cut, err)
		}
	}
	err := s.Reached(events.Vector{log: 2, other: 4})
	if behind := wantAs[*projections.BehindError](t, err); behind.Want != other.At(4) || behind.Next != 0 || !strings.Contains(err.Error(), "still being folded") {
		t.Errorf("%v", err)
	}
	s.Block(other, errors.New("a gap"))
	if err := s.Reached(events.Vector{other: 1}); err == nil || !strings.Contains(err.Error(), "a gap") {
		t.Errorf("%v", err)
	}
}

// One who has seen more than a shard has, of another region or of the shard's owner before,
// is told again what the shard comes to: what it is shown until then is older.
func TestFeedOfAShardThatIsBehind(t *testing.T) {
	w := smallWorld(0)
	s := openNew(t)
	log, other := logsOf(0)[0], logsOf(0)[2]
	apply(t, s, w.from(log, 0, 1))
	seen := events.Vector{log: 3, other: 2, {Origin: log.Origin, Stream: log.Stream, Partition: 7}: 9}
	f, err := projections.Follow([]*projections.Shard{s}, log.Stream, func(string) bool { return true }, seen)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if want := (events.Vector{log: 1, {Origin: log.Origin, Stream: log.Stream, Partition: 7}: 9}); f.Cut().Compare(want) != events.Equal {
		t.Errorf("it begins at %s, want %s", f.Cut(), want)
	}
	apply(t, s, w.from(log, 1, 2), w.from(other, 0, 2))
	told := 0
	if err := f.Pull(func(string, bool) { told++ }); err != nil || told == 0 {
		t.Errorf("told %d keys, %v", told, err)
	}
}

// One who comes to the last steps of a shard when it is somebody else's already takes them, and
// then is told that it is over.
func TestFeedEndsBehindTheLastSteps(t *testing.T) {
	w := smallWorld(0)
	s := openNew(t)
	log := logsOf(0)[0]
	f, err := projections.Follow([]*projections.Shard{s}, log.Stream, func(string) bool { return true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	apply(t, s, w.from(log, 0, 2))
	s.Fence(errors.New("moved"))
	<-f.Moved()
	told := 0
	if err := f.Pull(func(string, bool) { told++ }); err != nil || told != 2 {
		t.Errorf("told %d keys, %v", told, err)
	}
	select {
	case <-f.Moved():
	default:
		t.Fatal("nothing tells that there is an end to come")
	}
	wantKind(t, f.Pull(func(string, bool) { told++ }), events.KindNotReady)
	if told != 2 {
		t.Errorf("told %d keys", told)
	}
}
