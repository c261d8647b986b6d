package pipeline_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// ends are the ends of the region's own log.
func (r *region) ends() (all []int64) {
	for p := range int32(partitions) {
		all = append(all, r.end("session", p))
	}
	return all
}

// full checks that a write is refused for want of room, and that nothing of it is written.
func (r *region) full(typ, key, value string, context *events.Vector, parts ...string) {
	r.w.Helper()
	before := fmt.Sprint(r.ends())
	_, err := r.do(typ, key, value, context)
	wantKind(r.w, err, events.KindRefused, append(parts, `key "`+key+`"`, "nothing was written")...)
	if after := fmt.Sprint(r.ends()); after != before {
		r.w.Errorf("%s: logs end at %s, and before at %s", r.cfg.Region, after, before)
	}
}

// outcome is what a region has made of an event.
func (r *region) outcome(at events.Position) string {
	r.w.Helper()
	o, err := r.Outcome(r.w.Context(), api.OutcomeParams{Position: at})
	if err != nil {
		r.w.Fatalf("%s: outcome of %s: %v", r.cfg.Region, at, err)
	}
	return o.Parked
}

// noneParked checks that regions which have come to the same ends have set nothing aside.
func noneParked(all ...*region) {
	settle(all)
	for _, r := range all {
		if n := api.Known(r.status().Parked); n != 0 {
			r.w.Errorf("%s: %d records are parked", r.cfg.Region, n)
		}
	}
}

func fields(from, n int) string {
	var all []string
	for i := from; i < from+n; i++ {
		all = append(all, fmt.Sprintf(`"f%04d":1`, i))
	}
	return `{"set":{` + strings.Join(all, ",") + `}}`
}

// A value beyond those that may stand side by side is refused, also by the region that did not
// write the others; resolved, there is room.
func TestNoRoomForAnotherValue(t *testing.T) {
	threeWith(t, "multivalue", func(a, b, c *region) {
		all, nothing := []*region{a, b, c}, &events.Vector{}
		cut := events.Vector{}
		for i := range 64 {
			cut = cut.Join(a.must("", "k", fmt.Sprint(i), nothing))
		}
		read := a.get("k", cut)
		a.full("", "k", "one more", nothing, "stream session", "64 values", "resolve", "every region would park it")
		a.full(events.TypeResolve, "k", "of one who has read nothing", nothing, "64 values")
		a.must("", "other", "has room", nothing)
		// What another region writes is in its own log.
		cut = cut.Join(b.must("", "k", "b", nothing))
		if e := c.get("k", cut); len(e.Siblings) != 65 {
			t.Errorf("%d values", len(e.Siblings))
		}
		cut = cut.Join(a.must(events.TypeResolve, "k", "settled", &read.Context))
		a.get("k", cut)
		cut = cut.Join(a.must("", "k", "and one more", nothing))
		for _, r := range all {
			if e := r.get("k", cut); len(e.Siblings) != 3 {
				t.Errorf("%s: %d values, want those of a, b and the resolve", r.cfg.Region, len(e.Siblings))
			}
		}
		noneParked(all...)
	})
}

// Fields, elements, bytes and sums beyond what a slice may hold are refused.
func TestNoRoomForAnotherField(t *testing.T) {
	threeWith(t, "fieldmap", func(a, b, c *region) {
		big := strings.Repeat("v", 900_000)
		patch := func(r *region, key, value string) events.Vector {
			return r.must(events.TypePatch, key, value, nil)
		}
		cut := patch(a, "fields", fields(0, 1_000)).Join(patch(a, "fields", fields(1_000, 24)))
		cut = cut.Join(patch(a, "sum", `{"increment":{"n":9223372036854775807}}`))
		for i := range 4 {
			cut = cut.Join(patch(a, "bytes", fmt.Sprintf(`{"set":{"f%d":%q}}`, i, big)))
		}
		var numbers []string
		for i := range 4_096 {
			numbers = append(numbers, fmt.Sprint(i))
		}
		cut = cut.Join(patch(a, "elements", `{"add":{"s":[`+strings.Join(numbers, ",")+`]}}`))
		a.get("fields", cut)
		a.full(events.TypePatch, "fields", `{"set":{"one-more":1}}`, nil, "1025 fields", "at most 1024", "put the key")
		a.full(events.TypePatch, "fields", `{"unset":["one-more"]}`, nil, "1025 fields")
		a.full(events.TypePatch, "sum", `{"increment":{"n":1}}`, nil, "64 bits")
		a.full(events.TypePatch, "bytes", fmt.Sprintf(`{"set":{"f":%q}}`, big), nil, "bytes", "4194304")
		a.full(events.TypePatch, "elements", `{"add":{"s":["one more"]}}`, nil, "4097 elements")
		patch(a, "fields", `{"set":{"f0000":2}}`)
		cut = cut.Join(patch(a, "sum", `{"increment":{"n":-1}}`))
		// In a reset's stead there is room: it stands before the event that it makes room for.
		read := b.get("sum", cut)
		cut = cut.Join(b.must("", "sum", `{"put":true}`, &read.Context))
		settle([]*region{a, b, c})
		patch(a, "sum", `{"increment":{"n":9223372036854775807}}`)
		cut = cut.Join(a.must("", "fields", `{"kept":1}`, nil))
		a.get("fields", cut)
		cut = cut.Join(patch(a, "fields", `{"set":{"one-more":1}}`))
		for _, r := range []*region{a, b, c} {
			if e := r.get("fields", cut); string(e.Value) != `{"kept":1,"one-more":1}` {
				t.Errorf("%s: %s", r.cfg.Region, e.Value)
			}
		}
		noneParked(a, b, c)
	})
}

// What makes room counts from when it is acknowledged, though it is not folded yet.
func TestRoomIsThereAtOnce(t *testing.T) {
	const rounds = 20
	threeWith(t, "multivalue", func(a, b, c *region) {
		nothing := &events.Vector{}
		for i := range rounds {
			key, cut := fmt.Sprint("k", i), events.Vector{}
			for n := range 64 {
				cut = cut.Join(a.must("", key, fmt.Sprint(n), nothing))
			}
			read := a.get(key, cut)
			cut = cut.Join(a.must(events.TypeResolve, key, "settled", &read.Context))
			cut = cut.Join(a.must("", key, "one more", nothing))
			if e := a.get(key, cut); len(e.Siblings) != 2 {
				t.Errorf("%d values", len(e.Siblings))
			}
		}
		noneParked(a, b, c)
	})
	threeWith(t, "fieldmap", func(a, b, c *region) {
		for i := range rounds {
			key := fmt.Sprint("k", i)
			a.get(key, a.must(events.TypePatch, key, fields(0, 1_000), nil).Join(a.must(events.TypePatch, key, fields(1_000, 24), nil)))
			a.must("", key, `{"kept":1}`, nil)
			if e := a.get(key, a.must(events.TypePatch, key, `{"set":{"one-more":1}}`, nil)); string(e.Value) != `{"kept":1,"one-more":1}` {
				t.Errorf("%s", e.Value)
			}
		}
		noneParked(a, b, c)
	})
}

// A log that ends with the mark of a transaction is known to its end.
func TestNoRoomBeforeTransaction(t *testing.T) {
	threeWith(t, "multivalue", func(a, _, _ *region) {
		cut := events.Vector{}
		for i := range 64 {
			cut = cut.Join(a.must("", "k", fmt.Sprint(i), &events.Vector{}))
		}
		for log := range cut {
			for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
				a.transact(end, &kgo.Record{Topic: "session", Partition: log.Partition, Key: []byte("other"), Value: []byte("v")})
			}
		}
		a.get("k", cut)
		time.Sleep(time.Second)
		a.within(time.Second, "refuse", func() { a.full("", "k", "one more", &events.Vector{}, "64 values") })
	})
}

// Writers who do not know of each other may all be let in where one has room. One gets it; the others are
// told that what they have written is parked, in every region, and it is counted and shown.
func TestWritersForTheLastRoom(t *testing.T) {
	const writers = 6
	threeWith(t, "multivalue", func(a, b, c *region) {
		all, nothing := []*region{a, b, c}, &events.Vector{}
		cut := events.Vector{}
		for i := range 63 {
			cut = cut.Join(a.must("", "k", fmt.Sprint(i), nothing))
		}
		a.get("k", cut)
		letGo := a.holdWrites()
		var written [writers]events.Position
		var writing sync.WaitGroup
		for i := range writers {
			writing.Go(func() {
				res, err := a.do("", "k", fmt.Sprint("last ", i), nothing)
				if err != nil {
					t.Error(err)
					return
				}
				written[i] = res.Position
			})
		}
		synctest.Wait()
		letGo()
		writing.Wait()
		for _, r := range all {
			parked := 0
			for _, at := range written {
				if reason := r.outcome(at); reason != "" {
					parked++
					if !strings.Contains(reason, "64 values") {
						t.Errorf("%s: %s is parked for %q", r.cfg.Region, at, reason)
					}
				}
			}
			if parked != writers-1 {
				t.Errorf("%s: of %d events %d are parked", r.cfg.Region, writers, parked)
			}
			if e := r.get("k", cut); len(e.Siblings) != 64 {
				t.Errorf("%s: %d values", r.cfg.Region, len(e.Siblings))
			}
			if s := r.status(); api.Known(s.Parked) != writers-1 || !strings.Contains(strings.Join(s.Problems, "\n"), "5 records are parked") || len(s.Examples) != writers-1 {
				t.Errorf("%s: %d parked, %d shown, problems %q", r.cfg.Region, api.Known(s.Parked), len(s.Examples), s.Problems)
			}
		}
		if x, y, z := a.status().Digest, b.status().Digest, c.status().Digest; *x != *y || *y != *z {
			t.Errorf("digests %s, %s, %s", x, y, z)
		}
		a.full("", "k", "after them", nothing, "64 values")
	})
}

// What has become of an event can be asked in any region, which waits until it knows.
func TestOutcome(t *testing.T) {
	threeWith(t, "multivalue", func(a, b, c *region) {
		res, err := a.do("", "k", "v", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*region{a, b, c} {
			if reason := r.outcome(res.Position); reason != "" {
				t.Errorf("%s: parked for %q", r.cfg.Region, reason)
			}
		}
		later := res.Position.Log.At(res.Position.Offset + 1)
		_, err = b.Outcome(b.w.Context(), api.OutcomeParams{Position: later, TimeoutSeconds: 2})
		wantKind(t, err, events.KindNotReady, "eu-central-1 is behind", "waited for 2s")
		_, err = b.Outcome(b.w.Context(), api.OutcomeParams{Position: events.Log{Origin: events.FirstOrigin("mars"), Stream: "session"}.At(0)})
		wantKind(t, err, events.KindInvalid, "no such log")
		_, err = b.Outcome(b.w.Context(), api.OutcomeParams{Position: later, TimeoutSeconds: 61})
		wantKind(t, err, events.KindInvalid, "timeout")
	})
}

// A key that is brought back while others fill it is told not to be what it was, and why.
func TestNoRoomToGoBackTo(t *testing.T) {
	threeWith(t, "fieldmap", func(a, _, _ *region) {
		a.get("k", a.must(events.TypePatch, "k", `{"add":{"s":["x"]}}`, nil))
		id := a.backup().ID
		a.get("k", a.must(events.TypePatch, "k", `{"set":{"kept":1},"remove":{"s":["x"]}}`, nil).Join(a.must(events.TypePatch, "k", fields(0, 1_022), nil)))
		letGo := a.holdWrites()
		var writing sync.WaitGroup
		writing.Go(func() { a.must(events.TypePatch, "k", fields(1_022, 1), nil) })
		synctest.Wait()
		var done *api.RestoredKeys
		writing.Go(func() {
			done = a.restoreKeys(api.RestoreKeysParams{Key: []byte("k"), PastTarget: api.PastTarget{Backup: id}, Write: true})
		})
		synctest.Wait()
		letGo()
		writing.Wait()
		if k := done.Keys[0]; len(k.Written) != 1 || !strings.Contains(k.Error, "parked at "+k.Written[0].String()) || !strings.Contains(k.Error, "1025 fields") {
			t.Errorf("%+v", k)
		}
	})
}
