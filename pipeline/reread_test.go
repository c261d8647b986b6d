package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// expire has the region's cluster lose records of logs, as retention does.
func (r *region) expire(gone map[events.Log][]*kgo.Record) {
	r.w.Helper()
	expired := kadm.Offsets{}
	for l, records := range gone {
		if n := len(records); n > 0 {
			expired.AddOffset(string(l.Stream), l.Partition, records[n-1].Offset+1, -1)
		}
	}
	r.deleteRecords(expired)
}

// deleteRecords has the region's cluster lose what lies before offsets.
func (r *region) deleteRecords(before kadm.Offsets) {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	answers, err := kadm.NewClient(client).DeleteRecords(r.w.Context(), before)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		r.w.Fatal(err)
	}
}

// What Kafka has lost of the logs comes out of the archive, and what is not archived yet
// out of Kafka: a model of events that is rebuilt has all of it.
func TestModelOfEventsOutOfTheArchive(t *testing.T) {
	one(t, func(r *region) {
		held := archivedRegion(r, func() {})
		r.expire(held)
		for i := range 9 {
			r.put(fmt.Sprint("later-", i), "v")
		}
		r.has("later-8", "v")
		total := r.counted()
		if total != 40+40+1+9 {
			t.Fatalf("%d events are counted as they come", total)
		}
		r.rebuild(api.RebuildModelParams{Name: "event-counts", FromNow: true})
		if got := r.counted(); got != 0 {
			t.Fatalf("%d events are counted from now on", got)
		}
		d := r.rebuild(api.RebuildModelParams{Name: "event-counts"})
		if got := r.counted(); got != total || d.Since != nil {
			t.Errorf("%d events are counted when logs and archive are read again, want %d; since %v", got, total, d.Since)
		}
		r.put("and-on", "v")
		r.has("and-on", "v")
		if got := r.counted(); got != total+1 {
			t.Errorf("%d events are counted later, want %d", got, total+1)
		}
	})
}

// Where the logs have less than the model it is refused; if less will do, it says from when
// on it has all.
func TestModelOfEventsWithLess(t *testing.T) {
	one(t, func(r *region) {
		r.bucket, r.cfg.Backup = nil, nil
		r.start()
		for i := range 12 {
			r.put(fmt.Sprint("k", i), "v")
		}
		r.has("k11", "v")
		begun := time.Now()
		time.Sleep(time.Minute)
		gone := map[events.Log][]*kgo.Record{}
		for p := range int32(partitions) {
			l := events.Log{Origin: events.FirstOrigin(us), Stream: "session", Partition: p}
			gone[l] = r.committed("session", p)
		}
		for i := range 12 {
			r.put(fmt.Sprint("k", i), "w")
		}
		r.has("k11", "w")
		r.expire(gone)
		_, err := r.RebuildModel(r.w.Context(), api.RebuildModelParams{Name: "event-counts"})
		wantKind(t, err, events.KindRefused, "event-counts", "us-east-1/session/", "shard ")
		if got := r.counted(); got != 24 {
			t.Errorf("%d events are counted, want 24 as before", got)
		}
		d := r.rebuild(api.RebuildModelParams{Name: "event-counts", AcceptLess: true})
		if got := r.counted(); got != 12 || d.Since == nil || d.Since.Before(begun) {
			t.Errorf("%d events are counted since %v, want 12 since %v or later", got, d.Since, begun)
		}
	})
}

// Mirrors of logs with transactions have other offsets than the logs. What is read again
// of them is what was folded.
func TestModelOfEventsWithTransactions(t *testing.T) {
	two(t, func(a, b *region) {
		a.start()
		b.start()
		for i := range 9 {
			var records []*kgo.Record
			for j := range 5 {
				records = append(records, &kgo.Record{Topic: "session", Partition: int32(j % partitions), Key: fmt.Append(nil, "k", j), Value: fmt.Append(nil, i)})
			}
			a.transact(kgo.TransactionEndTry(i%3 != 1), records...)
		}
		for _, r := range []*region{a, b} {
			for j := range 5 {
				r.has(fmt.Sprint("k", j), "8")
			}
			d := r.rebuild(api.RebuildModelParams{Name: "event-counts"})
			if got := r.counted(); got != 6*5 || d.Since != nil {
				t.Errorf("%s: %d events are counted, want 30; since %v", r.cfg.Region, got, d.Since)
			}
		}
	})
}
