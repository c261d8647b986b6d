package pipeline_test

import (
	"fmt"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/refill"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// A state that is further than the region's own logs is restored only if that is meant, and
// never opened: what is written next would be folded by the other regions alone.
func TestAheadOfTheLogs(t *testing.T) {
	two(t, func(a, b *region) {
		archives(a)
		a.start()
		b.start()
		first := a.put("k", "0")
		a.has("k", "0")
		a.archived(first.Log, first.Offset+1)
		for i := range 20 {
			a.put("k", fmt.Sprint(i))
		}
		last := a.put("k", "last")
		a.has("k", "last")
		a.archived(last.Log, last.Offset+1)
		a.backup()
		a.lose()

		job := a.refillJob()
		job.Request.Offsets = events.Vector{first.Log: first.Offset + 1}
		if _, err := refill.Run(a.w.Context(), job); err != nil {
			t.Fatal(err)
		}
		ends, err := pipeline.LogEnds(a.w.Context(), a.cfg, a.opts)
		if err != nil || ends[first.Log] != first.Offset+1 {
			t.Fatalf("%s, %v", ends, err)
		}
		restore := a.job()
		restore.Ends = ends
		both := []string{fmt.Sprintf("up to offset %d", last.Offset+1), fmt.Sprintf("ends at offset %d", first.Offset+1), "restore kafka", "--ahead"}
		_, err = pipeline.Restore(a.w.Context(), restore)
		wantKind(t, err, events.KindRefused, both...)
		_, err = pipeline.RestoreInPlace(a.w.Context(), restore)
		wantKind(t, err, events.KindRefused, both...)

		restore.Ends = nil
		if _, err := pipeline.Restore(a.w.Context(), restore); err != nil {
			t.Fatal(err)
		}
		if err := a.tryStart(); err != nil {
			t.Fatal(err)
		}
		a.troubled("is not open", both[0], both[1])
		a.stop()

		// Without that state it begins with no backup that is ahead.
		if err := a.disk.RemoveAll(pipeline.StateDir(a.cfg)); err != nil {
			t.Fatal(err)
		}
		a.start()
		a.has("k", "0")
		a.stop()
		if err := a.disk.RemoveAll(pipeline.StateDir(a.cfg)); err != nil {
			t.Fatal(err)
		}
		restore.Ends, restore.Request = ends, timeline.Request{Target: timeline.Target{Offsets: events.Vector{first.Log: first.Offset + 1}}}
		if _, err := pipeline.Restore(a.w.Context(), restore); err != nil {
			t.Fatal(err)
		}
		a.start()
		a.has("k", "0")
	})
}

// Where Kafka does not answer, nobody knows where the logs end.
func TestLogEndsUnknown(t *testing.T) {
	one(t, func(r *region) {
		r.down()
		_, err := pipeline.LogEnds(r.w.Context(), r.cfg, r.opts)
		wantKind(t, err, events.KindNotReady, "where its logs end")
	})
}
