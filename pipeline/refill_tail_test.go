package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/refill"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/divergence"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// lostWithTail has three regions write; then a archives nothing more, and writes what b mirrors, and then what
// c does not get any more. It is lost with its Kafka and its disk. It returns what its log was.
func lostWithTail(a, b, c *region) map[events.Log][]*kgo.Record {
	a.w.Helper()
	archives(a)
	for _, r := range a.w.regions {
		r.start()
	}
	lived(a, b, c)
	memory := a.bucket
	a.bucket = faults.New(memory, faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.FailBefore})
	a.stop()
	a.start() // with a bucket to which nothing can be written any more
	mirrored := func(r *region, name string, writes int) {
		for i := range writes {
			a.put(fmt.Sprint(name, i%7), fmt.Sprint("acknowledged-", name, i))
		}
		r.mirrors(a, nil)
	}
	mirrored(c, "both-", 20)
	b.mirrors(a, nil)
	c.stop()
	mirrored(b, "only-b-", 20)
	b.stop()
	held := map[events.Log][]*kgo.Record{}
	for p := range int32(partitions) {
		held[events.Log{Origin: events.FirstOrigin(us), Stream: "session", Partition: p}] = a.committed("session", p)
	}
	a.lose()
	a.bucket = memory
	return held
}

// goOn lets the links of other regions go on with a log that has come back.
func goOn(others ...*region) {
	for _, r := range others {
		for topic, from := range map[string]string{"session": "same", "config": "same", divergence.Topic: "earliest"} {
			r.await(topic+" goes on", func() error {
				_, err := r.ResumeLink(r.w.Context(), api.ResumeLinkParams{Origin: us.String(), Topic: topic, Partition: replicator.All, From: from})
				if events.KindOf(err) == events.KindRefused && topic == "config" {
					return nil // nothing was ever written there
				}
				return err
			})
		}
	}
}

// What other regions had mirrored behind the archive comes back too, at the same offsets; all regions
// hold the same again, and go on.
func TestRefillTail(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		held := lostWithTail(a, b, c)
		plan, err := refill.Plan(w.Context(), a.refillJob())
		if err != nil || len(plan.Peers) == 0 {
			t.Fatalf("%+v, %v", plan, err)
		}
		done, err := refill.Run(w.Context(), a.refillJob())
		if err != nil {
			t.Fatal(err)
		}
		a.holds(held, false)
		took := map[events.Region]int64{}
		for _, l := range done.Logs {
			for _, p := range l.Peers {
				took[p.Region] += p.Took
				if !l.Same || l.Log.Stream == "session" && (p.Compared == 0 || p.Next > l.Next) {
					t.Errorf("%+v", l)
				}
			}
		}
		if took[west] < 40 || took[eu] > 0 {
			t.Errorf("taken: %v", took)
		}
		if _, err := pipeline.Restore(w.Context(), a.job()); err != nil {
			t.Fatal(err)
		}
		for _, r := range w.regions {
			r.start()
		}
		goOn(b, c)
		for i, r := range w.regions {
			r.put(fmt.Sprint("after-", i), "the loss")
		}
		b.mirrors(a, nil)
		c.mirrors(a, nil)
		settle(w.regions)
		for _, r := range w.regions {
			r.consistent()
			r.has("only-b-6", "acknowledged-only-b-13")
		}
	}, us, west, eu)
}

// Broken off wherever, it goes on and writes nothing twice.
func TestRefillTailGoesOn(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		held := lostWithTail(a, b, c)
		for n := 1; ; n++ {
			ctx, stop := context.WithCancel(w.Context())
			job, left := a.refillJob(), n
			step := func() {
				if left--; left == 0 {
					stop()
				}
			}
			job.Fetched, job.Taken = func(int64) { step() }, func(events.Log) { step() }
			done, err := refill.Run(ctx, job)
			stop()
			if err == nil {
				if n < partitions+2 || !done.Resumed {
					t.Errorf("after %d steps: %+v", n, done)
				}
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		a.holds(held, false)
	}, us, west, eu)
}

// altered makes a region's mirror of a partition anew, with one record changed.
func (r *region) altered(topic string, change func(records []*kgo.Record)) {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	var all [partitions][]*kgo.Record
	for p := range int32(partitions) {
		all[p] = r.read(topic, p)
	}
	change(all[0])
	admin := kadm.NewClient(client)
	if _, err := admin.DeleteTopic(r.w.Context(), topic); err != nil {
		r.w.Fatal(err)
	}
	if _, err := admin.CreateTopic(r.w.Context(), partitions, 1, nil, topic); err != nil {
		r.w.Fatal(err)
	}
	for _, records := range all {
		for _, record := range records {
			r.produce(&kgo.Record{Topic: topic, Partition: record.Partition, Key: record.Key, Value: record.Value, Headers: record.Headers, Timestamp: record.Timestamp})
		}
	}
}

// Where regions differ, from the archive or from each other, nothing is guessed: it is said where, and the
// operator leaves one out.
func TestRefillTailDiffers(t *testing.T) {
	long(t)
	for name, at := range map[string]func(records []*kgo.Record, archived int64) int{
		"from the archive": func(_ []*kgo.Record, archived int64) int { return int(archived) - 1 },
		"from each other":  func(_ []*kgo.Record, archived int64) int { return int(archived) },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				a, b, c := w.regions[0], w.regions[1], w.regions[2]
				held := lostWithTail(a, b, c)
				l := events.Log{Origin: events.FirstOrigin(us), Stream: "session"}
				archived := int64(-1)
				plan, err := refill.Plan(w.Context(), a.refillJob())
				if err != nil {
					t.Fatal(err)
				}
				for _, tail := range plan.Peers {
					if tail.Log == l {
						archived = tail.Archived
					}
				}
				var offset int
				c.altered("us-east-1.session", func(records []*kgo.Record) {
					offset = at(records, archived)
					records[offset].Value = []byte("another")
				})
				_, err = refill.Run(w.Context(), a.refillJob())
				wantKind(t, err, events.KindInconsistent, fmt.Sprintf("offset %d of the log", offset), "us-east-1.session of eu-central-1, partition 0", "--without-peer")
				job := a.refillJob()
				job.Without = []events.Region{eu}
				if _, err := refill.Run(w.Context(), job); err != nil {
					t.Fatal(err)
				}
				a.holds(held, false)
			}, us, west, eu)
		})
	}
}

// A mirror that lacks what comes right behind the archive cannot continue the log.
func TestRefillTailWithAHole(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		held := lostWithTail(a, b, c)
		for _, r := range []*region{b, c} {
			r.deleteBefore("us-east-1.session", r.end("us-east-1.session", 1)-1)
		}
		_, err := refill.Run(w.Context(), a.refillJob())
		wantKind(t, err, events.KindRefused, "what lies between is lost", "incarnation", "--without-peer")
		job := a.refillJob()
		job.ArchiveOnly = true
		if _, err := refill.Run(w.Context(), job); err != nil {
			t.Fatal(err)
		}
		for l := range held {
			if got := a.end("session", l.Partition); got == 0 || got > int64(len(held[l])) {
				t.Errorf("%s: %d records", l, got)
			}
		}
	}, us, west, eu)
}

// One that cannot be asked may be the one that has most: that is no reason to go on without it, unless an
// operator says so. An earlier point is one of the archive.
func TestRefillTailUnreachable(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		held := lostWithTail(a, b, c)
		b.down()
		_, err := refill.Run(w.Context(), a.refillJob())
		wantKind(t, err, events.KindNotReady, "--without-peer us-west-1")
		then := a.refillJob()
		then.ArchiveOnly = true
		plan, err := refill.Plan(w.Context(), then)
		if err != nil {
			t.Fatal(err)
		}
		then.ArchiveOnly, then.Request.Target = false, timeline.Target{Vector: plan.Vector}
		if plan, err = refill.Plan(w.Context(), then); err != nil || len(plan.Peers) > 0 {
			t.Errorf("to a vector: %+v, %v", plan, err)
		}
		job := a.refillJob()
		job.Without = []events.Region{west}
		done, err := refill.Run(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		took := int64(0)
		for _, l := range done.Logs {
			for _, p := range l.Peers {
				took += p.Took
			}
			if got := a.end("session", l.Log.Partition); l.Log.Stream == "session" && (got != l.Records || got != c.end("us-east-1.session", l.Log.Partition)) {
				t.Errorf("%s: %d records of %d", l.Log, got, len(held[l.Log]))
			}
		}
		if took < 20 {
			t.Errorf("%d records from eu-central-1", took)
		}
		b.up()
		if _, err := refill.Run(w.Context(), a.refillJob()); err == nil {
			t.Error("filled again")
		}
	}, us, west, eu)
}

// A region that comes back as a new incarnation instead, on empty topics, has what was archived of the old one; the
// others have all that they had. What is written from then on, under the new one, wins over
// both, in all regions, although its log begins at offset 0 again.
func TestNewIncarnation(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		held := lostWithTail(a, b, c)
		for _, r := range w.regions {
			own := r.cfg.Regions[us]
			own.Incarnation = 2
			r.cfg.Regions[us] = own
		}
		if _, err := pipeline.Restore(w.Context(), a.job()); err != nil {
			t.Fatal(err)
		}
		for _, r := range w.regions {
			r.start()
		}
		old := a.status()
		a.has("key-3", "value-54") // archived under the old one
		for _, r := range []*region{b, c} {
			r.has("both-6", "acknowledged-both-13")
		}
		b.has("only-b-6", "acknowledged-only-b-13")
		for i := range 7 {
			p := a.put(fmt.Sprint("only-b-", i), "new")
			if p.Origin.Incarnation != 2 {
				t.Errorf("written at %s", p)
			}
			a.put(fmt.Sprint("both-", i), "new")
			a.put(fmt.Sprint("key-", i), "new")
		}
		for _, r := range w.regions {
			for i := range 7 {
				r.has(fmt.Sprint("only-b-", i), "new")
				r.has(fmt.Sprint("both-", i), "new")
				r.has(fmt.Sprint("key-", i), "new")
			}
		}
		b.put("key-1", "newer")
		for _, r := range w.regions {
			r.has("key-1", "newer")
			r.consistent()
		}
		// What was folded of the old one stays where it was.
		for _, st := range old.Logs {
			if st.Log.Origin != events.FirstOrigin(us) {
				continue
			}
			for _, now := range a.status().Logs {
				if now.Log == st.Log && now != st {
					t.Errorf("%+v, was %+v", now, st)
				}
			}
		}
		for l, records := range held {
			if n := b.status().Vector()[l]; n != int64(len(records)) {
				t.Errorf("%s: us-west-1 has folded %d of %d", l, n, len(records))
			}
		}
	}, us, west, eu)
}
