package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// hidden starts three regions and has a key written in the first, and archived there, and deleted in the second.
func hidden(w *world) (written events.Position) {
	w.Helper()
	for _, r := range w.regions {
		r.cfg.Tombstones.Keep = 4 * time.Minute
		r.start()
	}
	a, b, c := w.regions[0], w.regions[1], w.regions[2]
	written = a.put("k", "v")
	b.has("k", "v")
	c.has("k", "v")
	b.delete("k")
	w.goneEverywhere("k")
	a.archived(written.Log, written.Offset+1)
	return written
}

func (w *world) goneEverywhere(key string) {
	w.Helper()
	for _, r := range w.regions {
		r.await(key+" gone", func() error { return r.gone(key) })
	}
}

// comesBack has a region that has lost everything come back as a new incarnation, from its archive: as it
// was at a time, if one is given. The others are told as they have to be, one after the other.
func (w *world) comesBack(r *region, at time.Time) {
	w.Helper()
	for _, o := range w.regions {
		again := o.cfg.Regions[r.cfg.Region]
		again.Incarnation = 2
		o.cfg.Regions[r.cfg.Region] = again
		if o != r {
			o.stop()
			o.start()
		}
	}
	job := r.job()
	job.Request.Time = at
	if _, err := pipeline.Restore(w.Context(), job); err != nil {
		w.Fatal(err)
	}
	r.start()
}

// staysGone wants that no region shows a key for a while, once all have come to know what there is.
func (w *world) staysGone(key string, long time.Duration) {
	w.Helper()
	w.goneEverywhere(key)
	for begun := time.Now(); time.Since(begun) < long; time.Sleep(10 * time.Second) {
		for _, r := range w.regions {
			if err := r.gone(key); err != nil {
				w.Fatalf("%s after %s: %v", r.cfg.Region, time.Since(begun), err)
			}
		}
	}
	for _, r := range w.regions {
		r.consistent()
	}
}

// A region is lost, and its archive lacks its last burial: the others collect nothing while it is away, however long that is,
// and say so; and nothing when it has come back without it. So nobody ever shows what was deleted.
func TestALostRegionLacksItsBurial(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		archives(a)
		for _, r := range []*region{b, c} { // so that they would collect after tombstones.keep
			r.cfg.Backup, r.bucket = nil, nil
		}
		memory := a.bucket
		faulty := faults.New(memory)
		a.bucket = faulty
		hidden(w)
		faulty.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.FailBefore})
		for _, r := range w.regions {
			r.upkept(1, 0)
		}
		time.Sleep(30 * time.Second) // attested
		a.lose()
		a.bucket = memory
		time.Sleep(20 * time.Minute)
		for _, r := range []*region{b, c} {
			r.upkept(1, 0)
			if stalled := gather(t, r.registry)["evenkeel_collect_stalled_seconds{}"]; stalled < 17*60 || stalled > 20*60 {
				t.Errorf("%s says that collecting has stood still for %v seconds", r.cfg.Region, stalled)
			}
		}
		w.comesBack(a, time.Time{})
		w.staysGone("k", 10*time.Minute)
		if left := a.slicesLeft("session"); len(left) != 2 {
			t.Errorf("%v", left)
		}
		if stalled := gather(t, a.registry)["evenkeel_collect_stalled_seconds{}"]; stalled < 9*60 {
			t.Errorf("it has less of its former log than others, and says that collecting has stood still for %v seconds", stalled)
		}
	}, us, west, eu)
}

// A region is restored to when a key was deleted, and not yet buried: as long as that can be restored it
// is not collected, so that it stays gone.
func TestRestoredToBeforeTheBurial(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a := w.regions[0]
		archives(a)
		hidden(w)
		time.Sleep(time.Minute)
		point := time.Now()
		for _, r := range w.regions {
			r.upkept(1, 0)
		}
		time.Sleep(20 * time.Minute)
		for _, r := range w.regions {
			r.upkept(1, 0)
		}
		a.lose()
		w.comesBack(a, point)
		w.staysGone("k", 10*time.Minute)
		for _, r := range w.regions[1:] {
			r.upkept(0, 0) // as of now
		}
	}, us, west, eu)
}

// sharedAndOld starts three regions, of which the first can be restored, with a key that was written there, deleted in the second
// and buried, all of it so much longer ago than any state that can be restored. The last events are those before next.
func sharedAndOld(w *world, older time.Duration) (begun time.Time, next map[string]int64) {
	w.Helper()
	a, b := w.regions[0], w.regions[1]
	archives(a)
	for _, r := range w.regions {
		r.cfg.Tombstones.Keep = 4 * time.Minute
		r.start()
	}
	longest := a.cfg.Backup.RestorableFor() + older
	begun = time.Now()
	partition := a.cfg.PartitionOf([]byte("k"))
	write := func(r *region, age time.Duration, key string, value []byte, headers ...kgo.RecordHeader) {
		r.produce(&kgo.Record{Topic: "session", Partition: partition, Key: []byte(key), Value: value, Headers: headers, Timestamp: begun.Add(-age)})
	}
	write(a, longest+9*time.Hour, "k", []byte("v"))
	b.has("k", "v")
	write(b, longest+8*time.Hour, "k", nil)
	w.goneEverywhere("k")
	e, err := events.NewBurial([]events.Tombstone{{Key: "k"}})
	if err != nil {
		w.Fatal(err)
	}
	age := longest
	e.ID, e.Source, e.Clock = "burial", "/test", events.HLCAt(begun.Add(-age))
	record, err := events.Encode(e)
	if err != nil {
		w.Fatal(err)
	}
	write(a, age, e.Key, record.Value, record.Headers...)
	log := func(r events.Region) string {
		return events.Log{Origin: events.FirstOrigin(r), Stream: "session", Partition: partition}.String()
	}
	return begun, map[string]int64{log(us): 2, log(west): 1}
}

// What is older than any state that can be restored is collected; and a region that comes back as it was at the
// oldest of these has the burial.
func TestCollectedBeforeWhatCanBeRestored(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a := w.regions[0]
		begun, _ := sharedAndOld(w, time.Hour)
		for _, r := range w.regions {
			r.upkept(1, 2)
			r.consistent()
		}
		partition := a.cfg.PartitionOf([]byte("k"))
		a.archived(events.Log{Origin: events.FirstOrigin(us), Stream: "session", Partition: partition}, 2)
		a.lose()
		w.comesBack(a, begun.Add(-a.cfg.Backup.RestorableFor()))
		w.staysGone("k", 10*time.Minute)
	}, us, west, eu)
}

// What is not so old is collected by no region as long as any can be restored to before it, be it one that keeps nothing for so long itself.
func TestTombstonesAreHeldForOtherRegions(t *testing.T) {
	simulate(t, func(w *world) {
		w.regions[0].cfg.Backup.Keep.Full = 30 * 24 * time.Hour
		sharedAndOld(w, -10*time.Hour)
		time.Sleep(20 * time.Minute)
		for _, r := range w.regions {
			r.upkept(1, 0)
			r.consistent()
		}
	}, us, west, eu)
}

// Topics have dropped what a tombstone has to be older than: it stays while nobody knows its age, and goes where a node
// has noted long ago that it was there.
func TestTopicsForgetHowOldTombstonesAre(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		for _, r := range w.regions[1:] {
			archives(r) // each with backups holds tombstones
		}
		_, next := sharedAndOld(w, time.Hour)
		partition := w.regions[0].cfg.PartitionOf([]byte("k"))
		for _, r := range w.regions {
			r.upkept(1, 0)
			r.await("all folded", func() error {
				folded := map[string]int64{}
				for l, n := range events.VectorOf(r.status().Logs) {
					folded[l.String()] = n
				}
				for log, n := range next {
					if folded[log] < n {
						return fmt.Errorf("%s is at %d, want %d", log, folded[log], n)
					}
				}
				return nil
			})
		}
		for _, r := range w.regions {
			r.stop()
		}
		for _, r := range w.regions {
			for topic, end := range map[string]int64{"session": 1, "us-east-1.session": 2, "us-west-1.session": 1} {
				if r.cfg.Region == us && topic == "session" {
					end = 2
				}
				if err := r.kafka.DeleteRecords(topic, partition, end); err != nil {
					w.Logf("%s, %s: %v", r.cfg.Region, topic, err)
				}
			}
			r.start()
		}
		time.Sleep(20 * time.Minute)
		for _, r := range w.regions {
			r.upkept(0, 0) // since it was started
			r.stop()
			long := r.cfg.Backup.RestorableFor() + time.Hour
			if err := pipeline.NoteEnds(r.disk, r.cfg.DataDir, time.Now().Add(-long), next); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range w.regions {
			r.start()
		}
		for _, r := range w.regions {
			r.upkept(0, 2)
			r.consistent()
		}
	}, us, west, eu)
}
