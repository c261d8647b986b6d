package pipeline_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

const west = events.Region("us-west-1")

// three runs a test with three regions, all of them up: what holds between two is
// not enough.
func three(t *testing.T, test func(a, b, c *region)) {
	t.Helper()
	threeOf(t, [3]events.Region{us, eu, west}, test)
}

// threeOf is three with the regions in another order.
func threeOf(t *testing.T, names [3]events.Region, test func(a, b, c *region)) {
	t.Helper()
	simulate(t, func(w *world) {
		for _, r := range w.regions {
			r.start()
		}
		test(w.regions[0], w.regions[1], w.regions[2])
	}, names[:]...)
}

// get reads a key that is there.
func (r *region) get(key string, at ...events.Vector) *api.Entry {
	r.w.Helper()
	p := api.GetParams{Stream: "session", Key: []byte(key)}
	for _, cut := range at {
		p.AtLeast = cut
	}
	e, err := r.Get(r.w.Context(), p)
	if err != nil {
		r.w.Fatalf("%s: get %s: %v", r.cfg.Region, key, err)
	}
	return e
}

// putAfter writes a value with the context of what was read before.
func (r *region) putAfter(key, value string, context *events.Vector) (*api.PutResult, error) {
	return r.Put(r.w.Context(), api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(value), Context: context})
}

// event reads back the event at a position.
func (r *region) event(at events.Position) events.Event {
	r.w.Helper()
	for _, record := range r.read("session", at.Partition) {
		if record.Offset != at.Offset {
			continue
		}
		e, err := events.Decode(record)
		if err != nil {
			r.w.Fatalf("%s: %v", at, err)
		}
		return e
	}
	r.w.Fatalf("nothing at %s", at)
	return events.Event{}
}

// What was written says what its writer had seen: of other origins what its region
// had folded, of its own all before it, or what the given context says.
func TestContexts(t *testing.T) {
	long(t)
	three(t, func(a, b, c *region) {
		seen := func(r *region, p events.Position) string { return r.event(p).Deps.String() }
		first := a.put("k", "a0")
		if got := seen(a, first); got != "" {
			t.Errorf("the first of all has seen %q", got)
		}
		b.has("k", "a0")
		second := b.put("k", "b0")
		if got := seen(b, second); got != "us-east-1@1" {
			t.Errorf("the second has seen %q", got)
		}
		c.has("k", "b0")
		c.get("k", events.Vector{first.Log: 1, second.Log: 1}) // of two links either may be the first
		third := c.put("k", "c0")
		if got, want := seen(c, third), "eu-central-1@1,us-east-1@1"; got != want {
			t.Errorf("the third has seen %q, want %q", got, want)
		}
		a.has("k", "c0")
		read := a.get("k", events.Vector{second.Log: 1, third.Log: 1})
		want := fmt.Sprintf("eu-central-1/session/%[1]d@1,us-east-1/session/%[1]d@1,us-west-1/session/%[1]d@1", first.Partition)
		if got := read.Context.String(); got != want {
			t.Errorf("read in %q, want %q", got, want)
		}
		a.put("k", "a1") // of one who has not read
		res, err := a.putAfter("k", "a2", &read.Context)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := seen(a, res.Position), "eu-central-1@1,us-east-1@1,us-west-1@1"; got != want {
			t.Errorf("one who has read has seen %q, want %q", got, want)
		}
		if want := (events.Vector{res.Position.Log: res.Position.Offset + 1}); res.AtLeast.Compare(want) != events.Equal {
			t.Errorf("at least %s, want %s", res.AtLeast, want)
		}
		page, err := a.Scan(a.w.Context(), api.ScanParams{Stream: "session", Freshness: api.Freshness{AtLeast: res.AtLeast}})
		if err != nil || len(page.Entries) != 1 || page.Entries[0].Context != nil {
			t.Fatalf("scan: %v, %+v", err, page)
		}
		res, err = a.putAfter("k", "a3", &page.Context)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := seen(a, res.Position), "eu-central-1@1,us-east-1@3,us-west-1@1"; got != want {
			t.Errorf("one who has scanned has seen %q, want %q", got, want)
		}
	})
}

// A load is stamped too, each event in its own partition.
func TestContextsOfLoads(t *testing.T) {
	three(t, func(a, b, c *region) {
		byPartition := map[int32]string{}
		for i := range 20 {
			key := fmt.Sprint("k", i)
			byPartition[b.put(key, "b").Partition] = ""
			c.put(key, "c")
			a.has(key, "c")
		}
		for p := range byPartition {
			byPartition[p] = fmt.Sprintf("eu-central-1@%d,us-west-1@%d", b.end("session", p), c.end("session", p))
		}
		load := api.LoadParams{Stream: "session", Source: "s"}
		old := events.HLCFromMillis(5)
		for i := range 20 {
			load.Events = append(load.Events, api.LoadEvent{ID: fmt.Sprint(i), Key: api.Bytes(fmt.Sprint("k", i)), Value: api.Bytes("a"), Clock: &old})
		}
		if _, err := a.Load(a.w.Context(), load); err != nil {
			t.Fatal(err)
		}
		found := 0
		for p, want := range byPartition {
			for _, record := range a.read("session", p) {
				e, err := events.Decode(record)
				if err != nil || e.Deps.String() != want || e.Clock != old {
					t.Errorf("%s in partition %d: %v, has seen %s, want %s, clock %s", e.Key, p, err, e.Deps, want, e.Clock)
				}
				if err := events.CheckClock(&e, record); err != nil {
					t.Errorf("an old clock: %v", err)
				}
				found++
			}
		}
		if found != 20 {
			t.Errorf("%d events", found)
		}
	})
}

// A context that claims what is not here, or speaks of something else, is refused
// and nothing is written.
func TestContextRefused(t *testing.T) {
	three(t, func(a, b, c *region) {
		at := a.put("k", "v")
		a.has("k", "v")
		other := (at.Partition + 1) % partitions
		own := at.Log
		for name, tc := range map[string]struct {
			context string
			parts   []string
		}{
			"ahead of its own log":    {own.At(2).String(), []string{own.String() + "@2", "offset 1", "us-east-1"}},
			"ahead of another's":      {fmt.Sprintf("eu-central-1/session/%d@1,%s", at.Partition, own.At(1)), []string{"eu-central-1/session", "offset 0"}},
			"a region that is none":   {fmt.Sprintf("mars/session/%d@1", at.Partition), []string{"mars/session"}},
			"another incarnation":     {fmt.Sprintf("us-east-1_2/session/%d@1", at.Partition), []string{"us-east-1_2/session"}},
			"another partition":       {fmt.Sprintf("us-east-1/session/%d@1", other), []string{"nothing of stream session, partition"}},
			"another stream":          {fmt.Sprintf("us-east-1/config/%d@1", at.Partition), []string{"nothing of stream session"}},
			"another partition ahead": {fmt.Sprintf("us-east-1/session/%d@99", other), []string{"nothing of stream session"}},
		} {
			context, err := events.ParseVector(tc.context)
			if err != nil {
				t.Fatal(err)
			}
			_, err = a.putAfter("k", "no", &context)
			wantKind(t, err, events.KindInvalid, append(tc.parts, "context")...)
			if t.Failed() {
				t.Fatalf("%s", name)
			}
		}
		if end := a.end("session", at.Partition); end != 1 {
			t.Errorf("%d events were written", end-1)
		}
		// One who has read nothing may say so.
		res, err := b.putAfter("fresh", "v", &events.Vector{})
		if err != nil || b.event(res.Position).Deps.String() != "eu-central-1@0" {
			t.Errorf("an empty context: %v", err)
		}
	})
}

// Keys go where Kafka's own clients put them: murmur2, whatever the topic has
// become since the start.
func TestPartitionOfKeys(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		plain := r.dial(kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
		defer plain.Close()
		for i := range 50 {
			key := strings.Repeat("k", i%7+1) + fmt.Sprint(i)
			record := &kgo.Record{Topic: "config", Key: []byte(key), Value: []byte("v")}
			if err := plain.ProduceSync(r.w.Context(), record).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if at := r.put(key, "v"); at.Partition != record.Partition {
				t.Errorf("%s is in partition %d, Kafka's is %d", key, at.Partition, record.Partition)
			}
		}
	})
}

// No reading is given out twice, whether a node stops or its power fails, and
// however far ahead it had been.
func TestClockAcrossRestarts(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		last := events.HLC(0)
		put := func(when string) {
			t.Helper()
			res, err := r.putAfter("k", "v", nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.Clock <= last {
				t.Errorf("%s: %s after %s", when, res.Clock, last)
			}
			last = res.Clock
			synctest.Wait()
		}
		put("first")
		disk := r.disk.(*vfs.MemFS)
		for i := range 3 {
			// Another region's clock is ahead: this one follows, and is ahead of
			// physical time when the power fails.
			ahead := events.HLCAt(time.Now().Add(50 * time.Second))
			record, err := events.Encode(events.Event{Key: "x", Op: events.OpPut, Value: []byte("v"), Clock: ahead, ID: "1", Source: "s", Type: events.TypePut})
			if err != nil {
				t.Fatal(err)
			}
			record.Topic = "session"
			r.produce(record)
			r.has("x", "v")
			put(fmt.Sprintf("ahead %d", i))
			if last <= ahead {
				t.Errorf("%s does not follow %s", last, ahead)
			}
			crashed := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
			r.stop()
			r.disk, disk = crashed, crashed
			r.start()
			put("after a crash")
			r.stop()
			r.start()
			put("after a stop")
		}
	})
}

// A write comes after what stood there when the node stopped, or in the backup that it begins
// with, though another region's clock is ahead and nothing is folded again.
func TestClockOfAStateThatIsOpened(t *testing.T) {
	for name, begin := range map[string]func(r *region){
		"after a stop": func(r *region) { r.stop() },
		"out of a backup": func(r *region) {
			r.backup()
			r.stop()
			r.disk = vfs.NewCrashableMem()
		},
	} {
		t.Run(name, func(t *testing.T) {
			three(t, func(a, b, c *region) {
				ahead := events.HLCAt(time.Now().Add(50 * time.Second))
				record, err := events.Encode(events.Event{Key: "x", Op: events.OpPut, Value: []byte("ahead"), Clock: ahead, ID: "1", Source: "s", Type: events.TypePut})
				if err != nil {
					t.Fatal(err)
				}
				record.Topic, record.Partition = "session", b.put("x", "before").Partition
				b.produce(record)
				settle([]*region{a, b, c})
				a.has("x", "ahead")
				begin(a)
				a.start()
				res, err := a.putAfter("x", "after", nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range []*region{a, b, c} {
					if e := r.get("x", res.AtLeast); string(e.Value) != "after" {
						t.Errorf("%s reads %q, written with the clock %s after one with %s", r.cfg.Region, e.Value, res.Clock, ahead)
					}
				}
			})
		})
	}
}

// A node whose clock was set back by more than folds bear writes nothing, rather
// than events that would be parked everywhere.
func TestClockSetBack(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		ahead := events.HLCAt(time.Now().Add(time.Hour))
		if err := r.disk.MkdirAll(dataDir, 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := r.disk.Create(fmt.Sprintf("%s/marker.clock.000001.%d", dataDir, uint64(ahead)), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		r.start()
		_, err = r.putAfter("k", "v", nil)
		wantKind(t, err, events.KindNotReady, "nothing is written", "clock", "set it right", dataDir)
		time.Sleep(time.Hour)
		r.put("k", "v")
		r.has("k", "v")
	})
}

// The limit for clocks that callers give is the configuration's.
func TestClockSkewLimit(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Limits.MaxClockSkew = 3 * time.Second
		r.start()
		load := func(ahead time.Duration) error {
			clock := events.HLCAt(time.Now().Add(ahead))
			_, err := r.Load(r.w.Context(), api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{{ID: "1", Key: []byte("k"), Value: []byte("v"), Clock: &clock}}})
			return err
		}
		if err := load(3 * time.Second); err != nil {
			t.Error(err)
		}
		wantKind(t, load(3*time.Second+time.Millisecond), events.KindRefused, "clock", "3s ahead", "limits.max_clock_skew")
	})
}

// Of what is folded together, a clock that nobody follows hides no other: what is written next comes
// after that.
func TestWriteComesAfterWhatWasFoldedWithAClockTooFarAhead(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.stop()
		ahead := time.Now().Add(50 * time.Second)
		r.produce( // and what has no clock of its own has its record's timestamp
			&kgo.Record{Topic: "session", Key: []byte("a"), Value: []byte("v"), Timestamp: ahead},
			&kgo.Record{Topic: "session", Key: []byte("b"), Value: []byte("v"), Timestamp: time.Now().Add(10 * time.Minute)},
		)
		r.start()
		r.has("b", "v")
		res, err := r.putAfter("a", "w", nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.Clock <= events.HLCAt(ahead) {
			t.Errorf("it was written at %s, what it comes after at %s", res.Clock, events.HLCAt(ahead))
		}
	})
}
