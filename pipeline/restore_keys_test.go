package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
)

// values are what a reader of a region sees of keys; of several side by side all.
func (r *region) values(keys []string) map[string]string {
	r.w.Helper()
	all := map[string]string{}
	for _, key := range keys {
		e, err := r.Get(r.w.Context(), api.GetParams{Stream: "session", Key: []byte(key)})
		switch {
		case events.KindOf(err) == events.KindNotFound:
			continue
		case err != nil:
			r.w.Fatal(err)
		}
		values := []string{string(e.Value)}
		if len(e.Siblings) > 0 {
			values = nil
			for _, s := range e.Siblings {
				values = append(values, string(s.Value))
			}
		}
		slices.Sort(values)
		all[key] = strings.Join(values, " | ")
	}
	return all
}

func (r *region) restoreKeys(p api.RestoreKeysParams) *api.RestoredKeys {
	r.w.Helper()
	p.Stream = "session"
	done, err := r.RestoreKeys(r.w.Context(), p)
	if err != nil {
		r.w.Fatalf("%s: restore keys: %v", r.cfg.Region, err)
	}
	return done
}

// change writes something to a key that the stream's rule has a meaning for.
func change(rng *rand.Rand, r *region, rule, key string) {
	var context *events.Vector
	if rng.IntN(3) == 0 {
		context = &events.Vector{} // of somebody who has seen nothing
	}
	value := fmt.Sprintf("%d", rng.IntN(1000))
	switch n := rng.IntN(10); {
	case n == 0:
		if _, err := r.Put(r.w.Context(), api.PutParams{Stream: "session", Key: []byte(key), Context: context}); err != nil {
			r.w.Fatal(err)
		}
	case rule == "fieldmap" && n < 8:
		field := fmt.Sprintf("%q", string(rune('a'+rng.IntN(4))))
		patches := []string{`{"set":{%[1]s:%[2]s}}`, `{"unset":[%[1]s]}`, `{"increment":{%[1]s:%[2]s}}`, `{"add":{%[1]s:[%[2]s,"x"]}}`, `{"remove":{%[1]s:["x"]}}`}
		r.must(events.TypePatch, key, fmt.Sprintf(patches[rng.IntN(len(patches))], field, value), context)
	case rule == "fieldmap":
		r.must("", key, `{"a":`+value+`,"<b>":"\u2028"}`, context)
	default:
		r.must("", key, value, context)
	}
}

// Whatever three regions have done to keys since, keys go back to what a backup has, in
// all regions, whichever region and rule; and what is back is not written again.
func TestRestoreKeys(t *testing.T) {
	long(t)
	for _, rule := range []string{"lww", "multivalue", "fieldmap"} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s/%d", rule, seed), func(t *testing.T) { restoreKeys(t, rule, rand.New(rand.NewPCG(seed, 1))) })
		}
	}
}

func restoreKeys(t *testing.T, rule string, rng *rand.Rand) {
	threeWith(t, rule, func(a, b, c *region) {
		all := []*region{a, b, c}
		var keys []string
		for i := range 12 {
			keys = append(keys, fmt.Sprintf("k-%02d", i))
		}
		write := func(n int) {
			for range n {
				change(rng, all[rng.IntN(3)], rule, keys[rng.IntN(len(keys))])
			}
			settle(all)
		}
		write(40)
		at := all[rng.IntN(3)]
		then := at.values(keys)
		id := at.backup().ID
		write(40)
		time.Sleep(time.Minute)
		at.backup() // a newer one, which is not meant
		before := at.values(keys)

		plan := at.restoreKeys(api.RestoreKeysParams{Prefix: []byte("k-"), PastTarget: api.PastTarget{Backup: id}, Limit: 5})
		if settle(all); !sameValues(at.values(keys), before) || plan.Backup != id || !plan.More {
			t.Fatalf("only asked, and it was changed: %+v", plan)
		}
		one := at.restoreKeys(api.RestoreKeysParams{Key: []byte(keys[3]), PastTarget: api.PastTarget{Backup: id}, Write: true}).Keys[0]
		if one.Error != "" || len(one.Written) != len(one.Events) {
			t.Fatalf("%+v", one)
		}
		written := 0
		for p := (api.RestoreKeysParams{Prefix: []byte("k-"), PastTarget: api.PastTarget{Backup: id}, Limit: 5, Write: true}); ; {
			page := at.restoreKeys(p)
			for _, k := range page.Keys {
				if written += len(k.Written); k.Error != "" || len(k.Written) < len(k.Events) || len(k.Events) == 0 || string(k.Key) == keys[3] {
					t.Fatalf("%+v", k)
				}
			}
			if p.After = page.Last; !page.More {
				break
			}
		}
		settle(all)
		for _, r := range all {
			if got := r.values(keys); !sameValues(got, then) {
				t.Fatalf("%s has\n%v, want\n%v; before it had\n%v", r.cfg.Region, got, then, before)
			}
		}
		if again := at.restoreKeys(api.RestoreKeysParams{Prefix: []byte("k-"), PastTarget: api.PastTarget{Backup: id}, Write: true}); len(again.Keys) > 0 || again.Same == 0 || written == 0 {
			t.Errorf("again: %+v; %d events were written", again, written)
		}
		if pins := at.pins(); pins > 0 {
			t.Errorf("%d pins are left", pins)
		}
	})
}

// settle waits until all regions stand at one vector.
func settle(all []*region) {
	all[0].w.Helper()
	all[0].await("settled", func() error {
		cut := events.Vector{}
		for _, r := range all {
			for p := range int32(partitions) {
				log := events.Log{Origin: r.cfg.Origin(r.cfg.Region), Stream: "session", Partition: p}
				cut[log] = r.end("session", p)
			}
		}
		for _, r := range all {
			have := r.status().Vector()
			for log, next := range cut {
				if have[log] < next {
					return fmt.Errorf("%s has %s up to offset %d of %d", r.cfg.Region, log, have[log], next)
				}
			}
		}
		return nil
	})
}

func sameValues(a, b map[string]string) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// Events of a stream that only counts them are not taken back, and nothing is written.
func TestRestoreKeysAppend(t *testing.T) {
	threeWith(t, "append", func(a, b, c *region) {
		a.must(events.TypeAppend, "k", "1", nil)
		settle([]*region{a, b, c})
		b.backup()
		c.must(events.TypeAppend, "k", "2", nil)
		settle([]*region{a, b, c})
		end := b.end("session", 0) + b.end("session", 1) + b.end("session", 2)
		k := b.restoreKeys(api.RestoreKeysParams{Key: []byte("k"), Write: true}).Keys[0]
		if !k.Refused || !strings.Contains(k.Error, "append") || len(k.Written) > 0 || string(k.Now.Values[0]) != `{"count":2}` || string(k.Then.Values[0]) != `{"count":1}` {
			t.Errorf("%+v", k)
		}
		if now := b.end("session", 0) + b.end("session", 1) + b.end("session", 2); now != end {
			t.Errorf("%d records were written", now-end)
		}
	})
}

// What cannot be brought back says why: another producer's partition, and nothing at all.
// Values of secret streams do not come out.
func TestRestoreKeysTellsWhyNot(t *testing.T) {
	one(t, func(r *region) {
		s := config.Stream{Topic: "session", Merge: "multivalue", Secret: true}
		r.cfg.Streams["session"] = s
		r.start()
		r.put("k", "v")
		r.has("k", "v")
		own := r.get("k").Position.Partition
		id := r.backup().ID
		_, err := r.RestoreKeys(r.w.Context(), api.RestoreKeysParams{Stream: "session", Key: []byte("nobody")})
		wantKind(t, err, events.KindNotFound, "nobody", id)
		_, err = r.RestoreKeys(r.w.Context(), api.RestoreKeysParams{Stream: "nonsense", Key: []byte("k")})
		wantKind(t, err, events.KindNotFound, "nonsense")
		_, err = r.RestoreKeys(r.w.Context(), api.RestoreKeysParams{Stream: "session", Key: []byte("k"), Prefix: []byte("k")})
		wantKind(t, err, events.KindInvalid)
		r.produce(&kgo.Record{Topic: "session", Partition: (own + 1) % partitions, Key: []byte("k"), Value: []byte("hush")})
		r.await("there", func() error {
			if n := len(r.get("k").Siblings); n != 2 {
				return fmt.Errorf("%d values", n)
			}
			return nil
		})
		done := r.restoreKeys(api.RestoreKeysParams{Key: []byte("k"), Write: true})
		k := done.Keys[0]
		if !strings.Contains(k.Error, "another partitioner") || k.Now.Count != 2 || k.Then.Count != 1 || k.Now.Bytes != 5 {
			t.Errorf("%+v", k)
		}
		text, err := json.Marshal(done)
		if err != nil || strings.Contains(string(text), "hush") || strings.Contains(string(text), "values") {
			t.Errorf("%s, %v", text, err)
		}
	})
}

// A key goes back to what it was at a time that no backup is of.
func TestRestoreKeysToATime(t *testing.T) {
	one(t, func(r *region) {
		archives(r)
		r.start()
		r.put("k", "1")
		r.has("k", "1")
		r.backup()
		time.Sleep(time.Minute)
		r.put("k", "2")
		time.Sleep(time.Minute)
		at := time.Now()
		time.Sleep(time.Minute)
		last := r.put("k", "3")
		r.has("k", "3")
		r.archived(last.Log, last.Offset+1)
		done := r.restoreKeys(api.RestoreKeysParams{Key: []byte("k"), PastTarget: api.PastTarget{Time: &at}, Write: true})
		if k := done.Keys[0]; k.Error != "" || string(k.Then.Values[0]) != "2" || done.Segments == 0 {
			t.Errorf("%+v", done)
		}
		r.has("k", "2")
	})
}

// A call that is broken off says of each key what became of it: what was written is in the log,
// and no key counts as one that is what it was because nobody has looked.
func TestRestoreKeysBrokenOff(t *testing.T) {
	one(t, func(r *region) {
		const n = 60
		r.start()
		for i := range n {
			r.put(fmt.Sprintf("k-%02d", i), "then")
		}
		settle([]*region{r})
		id := r.backup().ID
		for i := range n {
			r.put(fmt.Sprintf("k-%02d", i), "now")
		}
		settle([]*region{r})
		ctx, leave := context.WithCancel(r.w.Context())
		defer leave()
		log, writes := r.kafka.TopicInfo("session").TopicID, 0
		r.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			r.kafka.KeepControl()
			if topics := req.(*kmsg.ProduceRequest).Topics; len(topics) == 1 && topics[0].TopicID == log {
				if writes++; writes == 6 {
					leave()
				}
			}
			return nil, nil, false
		})
		p := api.RestoreKeysParams{Stream: "session", Prefix: []byte("k-"), PastTarget: api.PastTarget{Backup: id}, Write: true}
		done, err := r.RestoreKeys(ctx, p)
		if err != nil {
			r.w.Fatal(err)
		}
		written, untold := 0, 0
		for _, k := range done.Keys {
			written += len(k.Written)
			if len(k.Written) == 0 && k.Error == "" {
				untold++
			}
		}
		if len(done.Keys) != n || done.Same > 0 || untold > 0 || written == 0 || written == n {
			t.Errorf("%d keys and %d that are the same; %d were written, and of %d nothing is told", len(done.Keys), done.Same, written, untold)
		}
		for _, k := range r.restoreKeys(p).Keys {
			if k.Error != "" {
				t.Errorf("%+v", k)
			}
		}
		if last := r.restoreKeys(p); last.Same != n {
			t.Errorf("%+v", last)
		}
	})
}
