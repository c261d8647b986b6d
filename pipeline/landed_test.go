package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// batch makes events with the ids from first on.
func batch(turn string, first, n int) api.LoadParams {
	p := api.LoadParams{Stream: "session", Source: "load", Turn: turn}
	for i := range n {
		id := strconv.Itoa(first + i)
		p.Events = append(p.Events, api.LoadEvent{ID: id, Key: []byte("key-" + id), Value: []byte(id)})
	}
	return p
}

func ids(first, n int) (list []string) {
	for i := range n {
		list = append(list, strconv.Itoa(first+i))
	}
	return list
}

func (r *region) load(p api.LoadParams) *api.LoadResult {
	r.w.Helper()
	res, err := r.Load(r.w.Context(), p)
	if err != nil {
		r.w.Fatalf("load: %v", err)
	}
	return res
}

func (r *region) landed(after *events.Vector) *api.LandedResult {
	r.w.Helper()
	res, err := r.Landed(r.w.Context(), api.LandedParams{Stream: "session", Source: "load", After: after})
	if err != nil {
		r.w.Fatalf("landed: %v", err)
	}
	slices.SortFunc(res.IDs, func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
	return res
}

// wantIDs checks what has landed behind a cut.
func (r *region) wantIDs(after events.Vector, want []string) *api.LandedResult {
	r.w.Helper()
	res := r.landed(&after)
	if !slices.Equal(res.IDs, want) {
		r.w.Errorf("landed behind %s: %v, want %v", after, res.IDs, want)
	}
	return res
}

func TestLoadRefused(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Limits.MaxValueBytes = 1_000
		r.start()
		good := api.LoadEvent{ID: "1", Key: []byte("k"), Value: []byte("v")}
		ahead := events.HLCAt(time.Now().Add(events.MaxClockSkew + time.Minute))
		for name, c := range map[string]struct {
			p     api.LoadParams
			kind  events.Kind
			parts []string
		}{
			"no source":       {api.LoadParams{Stream: "session", Events: []api.LoadEvent{good}}, events.KindInvalid, []string{"source"}},
			"no events":       {api.LoadParams{Stream: "session", Source: "s"}, events.KindInvalid, []string{"events"}},
			"too many events": {api.LoadParams{Stream: "session", Source: "s", Events: make([]api.LoadEvent, 100_001)}, events.KindInvalid, []string{"100000"}},
			"unknown stream":  {api.LoadParams{Stream: "x", Source: "s", Events: []api.LoadEvent{good}}, events.KindNotFound, []string{"config, session"}},
			"no id":           {api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{good, {Key: []byte("k"), Value: []byte("v")}}}, events.KindInvalid, []string{"id"}},
			"value too large": {api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{good, {ID: "seven", Key: []byte("k"), Value: noise(1_001)}}}, events.KindInvalid, []string{`"seven"`, "limits.max_value_bytes"}},
			"no key":          {api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{good, {ID: "seven", Value: noise(1)}}}, events.KindInvalid, []string{`"seven"`, "key"}},
			"clock ahead":     {api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{good, {ID: "seven", Key: []byte("k"), Clock: &ahead}}}, events.KindRefused, []string{`"seven"`, ahead.String(), "1m0s"}},
			"source too long": {api.LoadParams{Stream: "session", Source: string(noise(2_000)), Events: []api.LoadEvent{good}}, events.KindInvalid, []string{"source"}},
		} {
			_, err := r.Load(r.w.Context(), c.p)
			wantKind(t, err, c.kind, c.parts...)
			for p := range int32(partitions) {
				if end := r.end("session", p); end != 0 {
					t.Fatalf("%s: partition %d ends at %d", name, p, end)
				}
			}
		}
		for _, source := range []string{"", string(noise(2_000))} {
			_, err := r.Landed(r.w.Context(), api.LandedParams{Stream: "session", Source: source})
			wantKind(t, err, events.KindInvalid, "source")
		}
		_, err := r.Landed(r.w.Context(), api.LandedParams{Stream: "x", Source: "s"})
		wantKind(t, err, events.KindNotFound, "config, session")
		want := api.LoadLimits{MaxValueBytes: 1_000, MaxClockSkewSeconds: 60, MaxBodyBytes: r.cfg.API.MaxBodyBytes}
		if told := r.landed(nil).Limits; told == nil || *told != want {
			t.Errorf("it tells of the limits %+v, want %+v", told, want)
		}
	})
}

// A clock within the skew that is allowed, and any of the past, is taken.
func TestLoadClocks(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		for i, clock := range []events.HLC{0, events.HLCFromMillis(1) + 5, events.HLCAt(time.Now()), events.HLCAt(time.Now().Add(events.MaxClockSkew))} {
			key := fmt.Sprint("k", i)
			r.load(api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{{ID: key, Key: []byte(key), Value: []byte("v"), Clock: &clock}}})
			r.has(key, "v")
			e, err := r.Get(r.w.Context(), api.GetParams{Stream: "session", Key: []byte(key)})
			if want := max(clock, 1); err != nil || e.Clock != want && e.Clock != clock {
				t.Errorf("clock %s became %s, %v", clock, e.Clock, err)
			}
		}
	})
}

// Landed tells what is in the logs behind a cut, of this source and no other.
func TestLanded(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		start := r.landed(nil)
		if len(start.IDs) > 0 || len(start.Ends) > 0 {
			t.Errorf("in empty logs: %+v", start)
		}
		first := r.load(batch(start.Turn, 1, 20))
		r.put("other", "source")
		r.produce(&kgo.Record{Topic: "session", Key: []byte("bare"), Value: []byte("v")}, &kgo.Record{Topic: "session", Value: []byte("no event")})
		other := batch("", 100, 3)
		other.Source = "another"
		r.load(other)
		second := r.load(batch(start.Turn, 21, 5))
		if first.Written != 20 || second.Written != 5 {
			t.Errorf("written %d and %d", first.Written, second.Written)
		}
		r.wantIDs(start.Ends, ids(1, 25))
		r.wantIDs(start.Ends.Join(first.Ends), ids(21, 5))
		end := r.wantIDs(start.Ends.Join(first.Ends).Join(second.Ends), []string{})
		var sum int64
		for _, next := range end.Ends {
			sum += next
		}
		if sum != 20+1+2+3+5 {
			t.Errorf("the ends %s add up to %d", end.Ends, sum)
		}
		if res := r.landed(nil); len(res.IDs) > 0 || res.Ends.Compare(end.Ends) != events.Equal {
			t.Errorf("without a cut: %+v", res)
		}
	})
}

// A batch is written in the turn of whoever asked last, or not at all.
func TestTurns(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		first := r.landed(nil)
		r.load(batch(first.Turn, 1, 5))
		r.load(batch(first.Turn, 6, 5)) // a turn lasts until the next
		second := r.landed(&events.Vector{})
		if first.Turn == second.Turn || first.Turn == "" {
			t.Errorf("turns %q and %q", first.Turn, second.Turn)
		}
		for _, turn := range []string{first.Turn, "made up"} {
			_, err := r.Load(r.w.Context(), batch(turn, 11, 5))
			wantKind(t, err, events.KindNotReady, "turn is over")
		}
		r.load(batch(second.Turn, 11, 5))
		other := batch(second.Turn, 16, 5)
		other.Source = "another"
		_, err := r.Load(r.w.Context(), other)
		wantKind(t, err, events.KindNotReady, "turn is over")
		r.load(batch("", 16, 5)) // who does not ask is not protected
		third := r.wantIDs(events.Vector{}, ids(1, 20))

		// A node that was restarted has forgotten all turns.
		r.stop()
		r.start()
		_, err = r.Load(r.w.Context(), batch(third.Turn, 21, 5))
		wantKind(t, err, events.KindNotReady, "turn is over")
		r.load(batch(r.wantIDs(events.Vector{}, ids(1, 20)).Turn, 21, 5))
		r.wantIDs(events.Vector{}, ids(1, 25))
	})
}

// While a batch is still on its way nobody is told that it has not landed, also
// if its caller has left.
func TestLandedWaits(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		start := r.landed(nil)
		letGo := r.holdWrites()
		ctx, leave := context.WithTimeout(r.w.Context(), time.Second)
		defer leave()
		if _, err := r.Load(ctx, batch(start.Turn, 1, 10)); !errors.Is(err, context.DeadlineExceeded) || events.KindOf(err) != events.KindNotReady {
			t.Errorf("the caller who left got %v", err)
		}
		ctx, leave = context.WithTimeout(r.w.Context(), time.Second)
		defer leave()
		_, err := r.Load(ctx, batch(start.Turn, 11, 10)) // waits behind the other
		wantKind(t, err, events.KindNotReady, "batch before this one")
		told := make(chan error, 1)
		go func() {
			res, err := r.Landed(r.w.Context(), api.LandedParams{Stream: "session", Source: "load", After: &start.Ends})
			if err == nil && len(res.IDs) != 10 {
				err = fmt.Errorf("landed: %v", res.IDs)
			}
			told <- err
		}()
		select {
		case err := <-told:
			t.Errorf("told while the batch was on its way: %v", err)
		case <-time.After(5 * time.Second):
		}
		letGo()
		if err := <-told; err != nil {
			t.Error(err)
		}
	})
}

// holdWrites has the region's Kafka take its time for the writes to the log of
// stream session that come from now on, until they are let go. (Not for others: they
// come from other clients, and kfake cannot end while two connections sleep.)
func (r *region) holdWrites() (letGo func()) {
	hold := make(chan bool)
	log := r.kafka.TopicInfo("session").TopicID
	r.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.kafka.KeepControl()
		if topics := req.(*kmsg.ProduceRequest).Topics; len(topics) != 1 || topics[0].TopicID != log {
			return nil, nil, false
		}
		r.kafka.SleepControl(func() { <-hold })
		return nil, nil, false
	})
	return func() { close(hold) }
}

// A search that finds no Kafka ends, and the next one finds it.
func TestLandedWithoutKafka(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.load(batch("", 1, 10))
		r.down()
		r.within(2*time.Minute+time.Second, "landed", func() {
			_, err := r.Landed(r.w.Context(), api.LandedParams{Stream: "session", Source: "load", After: &events.Vector{}})
			wantKind(t, err, events.KindNotReady, "session", "us-east-1")
		})
		r.up()
		r.wantIDs(events.Vector{}, ids(1, 10))
	})
}

// A log that ends with the mark of a transaction is searched to its end.
func TestLandedBeforeTransaction(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.load(batch("", 1, 10))
		for p := range int32(partitions) {
			r.transact(kgo.TryCommit, &kgo.Record{Topic: "session", Partition: p, Key: []byte("k"), Value: []byte("v")})
			r.transact(kgo.TryAbort, &kgo.Record{Topic: "session", Partition: p, Key: []byte("k"), Value: []byte("v")})
		}
		r.within(time.Minute, "landed", func() { r.wantIDs(events.Vector{}, ids(1, 10)) })
	})
}

// transact writes records as a transactional producer does.
func (r *region) transact(end kgo.TransactionEndTry, records ...*kgo.Record) {
	r.w.Helper()
	client := r.dial(kgo.TransactionalID("t"))
	defer client.Close()
	ctx := r.w.Context()
	err := client.BeginTransaction()
	if err == nil {
		err = client.ProduceSync(ctx, records...).FirstErr()
	}
	if err == nil {
		err = client.EndTransaction(ctx, end)
	}
	if err != nil {
		r.w.Fatalf("transaction: %v", err)
	}
}

// What cannot be searched any more is not taken for what has not landed.
func TestLandedInAnotherLog(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.load(batch("", 1, 50))
		noted := r.landed(nil).Ends
		var log events.Log
		for l := range noted {
			log = l
		}
		beyond := noted.Clone()
		beyond[log]++
		_, err := r.Landed(r.w.Context(), api.LandedParams{Stream: "session", Source: "load", After: &beyond})
		wantKind(t, err, events.KindRefused, log.String(), fmt.Sprint(noted[log]), "truncated or re-created")

		if err := r.kafka.DeleteRecords("session", log.Partition, 3); err != nil {
			t.Fatal(err)
		}
		_, err = r.Landed(r.w.Context(), api.LandedParams{Stream: "session", Source: "load", After: &events.Vector{}})
		wantKind(t, err, events.KindRefused, "topic session of us-east-1", fmt.Sprintf("partition %d", log.Partition), "offset 0", "expired")
		r.wantIDs(noted, []string{})
	})
}
