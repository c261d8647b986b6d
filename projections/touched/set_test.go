package touched_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/touched"
)

// logs are those of one stream of three regions.
var logs = []events.Log{
	{Origin: events.FirstOrigin("us"), Stream: "session"},
	{Origin: events.FirstOrigin("eu"), Stream: "session"},
	{Origin: events.FirstOrigin("ap"), Stream: "session"},
}

func record(offset int64, key string) *kgo.Record {
	return &kgo.Record{Offset: offset, Key: []byte(key), Value: []byte("v")}
}

// upkeep is a record that takes tombstones away, or buries what is hidden.
func upkeep(t rapid.TB, offset int64, make func([]events.Tombstone) (events.Event, error), keys ...string) *kgo.Record {
	t.Helper()
	var tombstones []events.Tombstone
	for _, key := range keys {
		tombstones = append(tombstones, events.Tombstone{Key: key})
	}
	e, err := make(tombstones)
	if err != nil {
		t.Fatal(err)
	}
	e.ID, e.Source = "1", "/t"
	r, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	r.Offset = offset
	return r
}

// model is the naive truth: what each record of each log touched.
type model struct {
	notes map[events.Log]map[int64][]string
	next  events.Vector
}

// since are the keys that records from one vector to before another touched.
func (m *model) since(log events.Log, from, to int64) map[string]bool {
	keys := map[string]bool{}
	for offset, touched := range m.notes[log] {
		if offset >= from && offset < to {
			for _, k := range touched {
				keys[k] = true
			}
		}
	}
	return keys
}

// Whatever is noted, dropped and asked: an answer has all that was touched, nothing
// that was not touched since, and a set that cannot have it all says so.
func TestSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.Int64Range(0, 4000).Draw(t, "bytes")
		s := touched.New(most)
		m := &model{notes: map[events.Log]map[int64][]string{}, next: events.Vector{}}
		reach := events.Vector{} // from where a set without bounds would know
		for _, l := range logs {
			m.notes[l] = map[int64][]string{}
			s.Begin(l, 0)
		}
		full := false
		t.Repeat(map[string]func(*rapid.T){
			"note": func(t *rapid.T) {
				l := rapid.SampledFrom(logs).Draw(t, "log")
				offset := m.next[l] + rapid.SampledFrom([]int64{0, 0, 0, 1, 7}).Draw(t, "hole")
				keys := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 1, 3, rapid.ID).Draw(t, "keys")
				make := events.NewCollection
				if rapid.Bool().Draw(t, "burial") {
					make = events.NewBurial
				}
				r := upkeep(t, offset, make, keys...)
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 0:
					keys, r = nil, &kgo.Record{Offset: offset} // no event
				case 1, 2:
					keys, r = keys[:1], record(offset, keys[0])
				}
				_, bytes := s.Size()
				full = full || bytes+3*200 > most // so something may have been let go of
				s.Note(l, r)
				s.Note(l, record(offset, "again")) // read again
				m.notes[l][offset], m.next[l] = keys, offset+1
			},
			"gap": func(t *rapid.T) {
				l := rapid.SampledFrom(logs).Draw(t, "log")
				s.Begin(l, m.next[l]) // no gap
				if rapid.IntRange(0, 5).Draw(t, "really") == 0 {
					m.next[l] += 3
					reach[l] = m.next[l]
					s.Begin(l, m.next[l])
				}
			},
			"forget": func(t *rapid.T) {
				below := draw(t, m.next)
				s.Forget(below)
				reach = reach.Join(below)
			},
			"since": func(t *rapid.T) {
				from, to := draw(t, m.next), draw(t, m.next)
				ahead := rapid.IntRange(0, 9).Draw(t, "ahead") == 0
				if ahead {
					to[logs[0]] = m.next[logs[0]] + 1
				}
				for _, l := range logs {
					from[l] = min(from[l], to[l])
				}
				got, err := s.Since(from, to)
				kind := events.KindOf(err)
				if ahead {
					if err == nil || kind != events.KindNotReady && kind != events.KindNotFound {
						t.Fatalf("ahead of what was noted: %v", err)
					}
					return
				}
				reached := true
				for _, l := range logs {
					reached = reached && (from[l] == to[l] || from[l] >= reach[l])
				}
				if err != nil {
					if kind != events.KindNotFound || reached && !full {
						t.Fatalf("since %v to %v, known from %v: %v", from, to, reach, err)
					}
					return
				}
				if !reached {
					t.Fatalf("since %v to %v: known only from %v, and yet answered", from, to, reach)
				}
				for _, l := range logs {
					checkKeys(t, m, l, got, from[l], to[l])
				}
			},
			"": func(t *rapid.T) {
				if _, bytes := s.Size(); bytes > most {
					t.Fatalf("%d bytes, at most %d", bytes, most)
				}
			},
		})
	})
}

// draw draws a vector that is covered by another.
func draw(t *rapid.T, most events.Vector) events.Vector {
	v := events.Vector{}
	for i, l := range logs {
		v[l] = rapid.Int64Range(0, most[l]).Draw(t, fmt.Sprintf("offset %d", i))
	}
	return v
}

func checkKeys(t *rapid.T, m *model, l events.Log, got map[events.Log][]string, from, to int64) {
	keys, there := got[l]
	if there != (from < to) {
		t.Fatalf("%s from %d to %d: answered: %t", l, from, to, there)
	}
	if !there {
		return
	}
	may := m.since(l, from, m.next[l])
	for k := range m.since(l, from, to) {
		if !slices.Contains(keys, k) {
			t.Fatalf("%s from %d to %d: %q is missing in %q", l, from, to, k, keys)
		}
	}
	for i, k := range keys {
		if !may[k] || slices.Contains(keys[:i], k) {
			t.Fatalf("%s from %d to %d: %q: touched since are %v", l, from, to, keys, slices.Collect(maps.Keys(may)))
		}
	}
}

// A full set lets go of the oldest, of whatever log, and answers for the rest.
func TestFullSetKeepsTheNewest(t *testing.T) {
	s := touched.New(10 * 140)
	for i := range int64(100) {
		for _, l := range logs {
			s.Note(l, record(i, fmt.Sprintf("key-%03d", i)))
		}
	}
	if keys, _ := s.Size(); keys < 6 || keys > 10 {
		t.Errorf("%d keys", keys)
	}
	at := func(offset int64) events.Vector {
		v := events.Vector{}
		for _, l := range logs {
			v[l] = offset
		}
		return v
	}
	if got, err := s.Since(at(98), at(100)); err != nil || len(got[logs[1]]) != 2 {
		t.Errorf("the last two: %v, %v", got, err)
	}
	if _, err := s.Since(at(90), at(100)); events.KindOf(err) != events.KindNotFound {
		t.Errorf("the last ten: %v", err)
	}
	// A key that is touched again and again takes no more room.
	for i := range int64(1000) {
		s.Note(logs[0], record(100+i, "hot"))
	}
	if _, err := s.Since(at(100), events.Vector{logs[0]: 1100, logs[1]: 100, logs[2]: 100}); err != nil {
		t.Error(err)
	}
	if got, err := s.Since(at(98), at(100)); err != nil || len(got[logs[1]]) != 2 {
		t.Errorf("the last two, after many touches of one key: %v, %v", got, err)
	}
}

// Who waits is woken when all logs that moved have been read, or gives up.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := touched.New(1 << 20)
		quiet, to := events.Vector{logs[2]: 7}, events.Vector{logs[0]: 2, logs[1]: 1, logs[2]: 7}
		woken := make(chan error)
		go func() { woken <- s.Wait(t.Context(), quiet, to) }()
		for _, step := range []func(){
			func() { s.Note(logs[0], record(0, "a")) },
			func() { s.Note(logs[1], record(0, "a")) },
		} {
			step()
			synctest.Wait()
			select {
			case err := <-woken:
				t.Fatalf("too early: %v", err)
			default:
			}
		}
		s.Note(logs[0], record(1, "a"))
		if err := <-woken; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		to[logs[1]] = 2
		if err := s.Wait(ctx, quiet, to); events.KindOf(err) != events.KindNotReady {
			t.Error(err)
		}
	})
}
