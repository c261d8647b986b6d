package pipeline_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

func (r *region) drills() *api.DrillList {
	r.w.Helper()
	list, err := r.ListDrills(r.w.Context(), api.ListDrillsParams{Most: 100})
	if err != nil {
		r.w.Fatal(err)
	}
	return list
}

// drill makes a drill, a second after what was before.
func (r *region) drill() *format.Drill {
	r.w.Helper()
	time.Sleep(time.Second) // names sort by time
	d, err := r.DrillRestore(r.w.Context())
	if err != nil {
		r.w.Fatal(err)
	}
	return d
}

// A drill restores the newest state and another one, proves them, leaves nothing on
// the disk, and can be read by anybody afterwards.
func TestDrill(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		d, err := r.DrillRestore(r.w.Context())
		if err != nil || events.KindOf(d.Err()) != events.KindInconsistent || !d.Proved().IsZero() {
			t.Fatalf("without a backup: %+v, %v", d, err)
		}
		time.Sleep(time.Second)
		first := r.backup()
		if d, err = r.DrillRestore(r.w.Context()); err != nil || d.Err() != nil || len(d.Trials) != 2 || d.Trials[0].Backup != first.ID {
			t.Fatalf("%+v, %v", d, err)
		}
		r.put("later", "x")
		r.eventsFolded(43)
		time.Sleep(time.Second)
		second := r.backup()
		if d, err = r.DrillRestore(r.w.Context()); err != nil || d.Err() != nil || len(d.Trials) != 2 {
			t.Fatalf("%+v, %v", d, err)
		}
		newest, random := d.Trials[0], d.Trials[1]
		if newest.Backup != second.ID || random.Backup != first.ID && random.Backup != second.ID || !d.Proved().Equal(second.Created) || newest.Bytes == 0 || len(newest.States) == 0 {
			t.Errorf("%+v", d)
		}
		if left := r.below("scratch"); len(left) > 0 {
			t.Errorf("left in the scratch directory: %q", left)
		}
		list := r.drills()
		if len(list.Drills) != 3 || list.Drills[0].ID != d.ID || list.Drills[2].Err() == nil {
			t.Errorf("drills: %+v", list)
		}
		if _, err := r.ListDrills(r.w.Context(), api.ListDrillsParams{Drill: "x"}); events.KindOf(err) != events.KindNotFound {
			t.Errorf("no such drill: %v", err)
		}
	})
}

// A region that has written nothing yet is drilled as any other.
func TestDrillOfNothing(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.await("a backup", func() error {
			_, err := r.CreateBackup(r.w.Context())
			return err
		})
		d, err := r.DrillRestore(r.w.Context())
		if err != nil || d.Err() != nil || len(d.Trials[0].States) != 0 || d.Proved().IsZero() {
			t.Fatalf("%+v, %v", d, err)
		}
	})
}

// A backup that cannot be restored is found by the drill, and told; an older one is
// drilled all the same, if it is drawn.
func TestDrillFindsDamage(t *testing.T) {
	one(t, func(r *region) {
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		filled(r)
		first := r.backup()
		time.Sleep(time.Second)
		second := r.backup()
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpGet}, Name: "*/tables/" + second.ID + "/*", Effect: faults.FlipBit})
		d, err := r.DrillRestore(r.w.Context())
		if err != nil {
			t.Fatal(err)
		}
		if newest, random := d.Trials[0], d.Trials[1]; !strings.Contains(newest.Error, second.ID) || (random.Backup == first.ID) != (random.Error == "") {
			t.Errorf("%+v", d)
		}
		if problems := strings.Join(r.status().Problems, "\n"); !strings.Contains(problems, "restore drill: ") {
			t.Errorf("problems: %s", problems)
		}
		if left := r.below("scratch"); len(left) > 0 {
			t.Errorf("left in the scratch directory: %q", left)
		}
	})
}

// Drills are made by themselves, by the schedule, also over restarts; after one that
// failed sooner. What they prove is a metric.
func TestDrillSchedule(t *testing.T) {
	long(t)
	const every = time.Hour
	one(t, func(r *region) {
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		r.cfg.Backup.Schedule.Drill, r.cfg.Backup.Schedule.Full = every, 30*time.Minute
		filled(r)
		count := func(want int, when string) {
			t.Helper()
			if got := len(r.drills().Drills); got != want {
				t.Errorf("%s: %d drills, want %d", when, got, want)
			}
		}
		time.Sleep(every / 2)
		count(1, "after the start")
		time.Sleep(every)
		count(2, "after an interval")
		r.away(time.Minute)
		time.Sleep(every / 4)
		count(2, "after a restart")
		if s := r.status().Backup; s.Drill == nil || s.Drill.Error != "" || s.Drill.Proved == nil || s.DrillEvery != every.Seconds() {
			t.Errorf("status: %+v", s.Drill)
		}
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpGet}, Name: "*/tables/*", Effect: faults.FailBefore})
		time.Sleep(every)
		failed := len(r.drills().Drills)
		if failed < 3 || r.status().Backup.Drill.Error == "" || r.status().Backup.Drill.Proved == nil {
			t.Errorf("%d drills, status: %+v", failed, r.status().Backup.Drill)
		}
		bucket.SetRules()
		time.Sleep(every)
		count(failed+1, "after the bucket is back")
		if s := r.status(); s.Backup.Drill.Error != "" || len(s.Problems) > 0 {
			t.Errorf("status: %+v, %q", s.Backup.Drill, s.Problems)
		}
	})
}

// A node that cannot open backups drills none by itself, and says so if it is asked to.
func TestDrillWithoutIdentity(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		r.cfg.Backup.IdentityEnv, r.cfg.Backup.Identity = "", ""
		r.cfg.Backup.Schedule.Drill = time.Hour
		filled(r)
		r.backup()
		time.Sleep(3 * time.Hour)
		if n := len(r.drills().Drills); n > 0 {
			t.Errorf("%d drills", n)
		}
		d, err := r.DrillRestore(r.w.Context())
		if err != nil || d.Err() == nil || !strings.Contains(d.Err().Error(), "key") {
			t.Errorf("%+v, %v", d, err)
		}
		status := r.status()
		if said := strings.Join(status.Problems, "\n"); !strings.Contains(said, "cannot open its backups") || !strings.Contains(said, "identity_file") {
			t.Errorf("problems: %s", said)
		}
		if status.Backup.DrillEvery != 0 {
			t.Errorf("drills are said to come every %v s", status.Backup.DrillEvery)
		}
	})
}

// With an archive, times between backups are drilled, and the newest state is the one
// that is archived.
func TestDrillOfTimes(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		r.cfg.Backup.Schedule.Segment = time.Second
		filled(r)
		r.backup()
		for i := range 20 {
			r.put(fmt.Sprint("later-", i), "x")
			time.Sleep(time.Minute)
		}
		written := time.Now().Add(-time.Minute)
		times := 0
		for range 5 {
			d, err := r.DrillRestore(r.w.Context())
			if err != nil || d.Err() != nil || len(d.Trials) != 2 {
				t.Fatalf("%+v, %v", d, err)
			}
			if strings.HasPrefix(d.Trials[1].Aim, "time ") {
				times++
			}
			var events int64
			for _, st := range d.Trials[0].States {
				events += st.Events
			}
			if late := d.Proved().Sub(written); late < 0 || late > 10*time.Second || events != 42+20 {
				t.Errorf("the newest state of %s has %d events; the last was written at %s", d.Proved(), events, written)
			}
			time.Sleep(time.Second)
		}
		if times == 0 {
			t.Error("no time was drilled")
		}
	})
}

// A segment that is missing from the archive, or damaged, is found by the drill of a time behind it: it is no time to which
// no restore is promised, for which a backup would do as well.
func TestDrillFindsABrokenArchive(t *testing.T) {
	long(t)
	gone := func(r *region, name string) error { return r.bucket.Delete(r.w.Context(), name) }
	for name, c := range map[string]struct {
		nth  int64 // behind a backup
		harm func(r *region, name string) error
	}{
		"the first is gone":        {1, gone},
		"one in the midst is gone": {2, gone},
		"one is damaged": {2, func(r *region, name string) error {
			return r.bucket.(*objstore.Memory).Damage(name, func(b []byte) []byte { b[100] ^= 4; return b })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.cfg.Backup.Schedule.Segment, r.cfg.Backup.Keep.Segment = time.Second, 24*time.Hour
				filled(r)
				at := r.put("later", "value")
				r.has("later", "value")
				r.archived(at.Log, at.Offset+1)
				first := r.backup()
				s, err := segment.Newest(r.w.Context(), r.bucket, us, at.Partition)
				if err != nil {
					t.Fatal(err)
				}
				for i := range 20 {
					r.put("later", fmt.Sprint(i))
					time.Sleep(time.Minute)
				}
				r.backup()
				time.Sleep(time.Minute)
				broken := format.SegmentName(us, at.Partition, s.Number+c.nth)
				if err := c.harm(r, broken); err != nil {
					t.Fatal(err)
				}
				for range 60 {
					d := r.drill()
					drawn := d.Trials[1]
					if d.Trials[0].Error != "" || drawn.Aim == "backup "+first.ID {
						t.Fatalf("%+v", d)
					}
					if drawn.Error == "" {
						continue // before it, or behind the second backup
					}
					if !strings.HasPrefix(drawn.Aim, "time ") || !strings.Contains(drawn.Error, broken) {
						t.Errorf("%+v, want %s named", drawn, broken)
					}
					if again := r.drill().Trials[1]; again.Aim != drawn.Aim || again.Error == "" {
						t.Errorf("%+v, then %+v", drawn, again)
					}
					return
				}
				t.Error("no drill has noticed")
			})
		})
	}
}

// A time whose segments were pruned, since they were older than what is kept, is no failure: the backup before it is
// restored.
func TestDrillOfPrunedTimes(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		b := r.cfg.Backup
		b.Schedule.Segment, b.Keep.Segment, b.Keep.Full = time.Second, 5*time.Minute, 30*24*time.Hour
		filled(r)
		first := r.backup()
		for range 2 {
			for i := range 10 {
				r.put(fmt.Sprint("key-", i), fmt.Sprint("value-", i))
				time.Sleep(time.Minute)
			}
			r.backup()
		}
		report, err := r.PruneBackups(r.w.Context(), api.PruneBackupsParams{Run: true})
		if err != nil || len(report.Deleted) == 0 {
			t.Fatalf("%+v, %v", report, err)
		}
		instead := 0
		for range 40 {
			d := r.drill()
			if d.Err() != nil || len(d.Trials) != 2 {
				t.Fatalf("%+v", d)
			}
			if d.Trials[1].Aim == "backup "+first.ID {
				instead++
			}
		}
		if instead == 0 {
			t.Error("no time was drawn that is not archived any more")
		}
	})
}

// What has failed is restored again by each drill, also if it was the newest then, until it succeeds or is gone: that others
// succeed says nothing of it.
func TestDrillRepeatsWhatFailed(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		filled(r)
		first := r.backup()
		r.written("later", "value")
		time.Sleep(time.Minute)
		second := r.backup()
		r.damage(first.ID)
		var d *format.Drill
		for range 60 {
			if d = r.drill(); d.Err() != nil {
				break
			}
		}
		for range 5 {
			if was := d.Trials[1]; d.Trials[0].Error != "" || was.Aim != "backup "+first.ID || was.Error == "" {
				t.Fatalf("%+v", d)
			}
			d = r.drill()
		}
		if s := r.status().Backup.Drill; !strings.Contains(s.Error, first.ID) || s.Proved == nil || !s.Proved.Equal(second.Created) {
			t.Errorf("%+v", s)
		}
		r.damage(first.ID) // which heals it
		if d = r.drill(); d.Err() != nil || d.Trials[1].Aim != "backup "+first.ID || len(d.Trials) != 3 {
			t.Errorf("healed: %+v", d)
		}
		if d = r.drill(); d.Err() != nil || len(d.Trials) != 2 {
			t.Errorf("over: %+v", d)
		}

		r.written("later", "third")
		third := r.backup()
		r.damage(third.ID)
		if d = r.drill(); d.Trials[0].Error == "" {
			t.Errorf("%+v", d)
		}
		r.written("later", "fourth")
		r.backup()
		for range 3 {
			if d = r.drill(); d.Trials[0].Error != "" || d.Trials[1].Aim != "backup "+third.ID || d.Trials[1].Error == "" {
				t.Errorf("the newest of before: %+v", d)
			}
		}
		if err := r.bucket.Delete(r.w.Context(), format.ManifestName(us, third.ID)); err != nil {
			t.Fatal(err)
		}
		if d = r.drill(); d.Err() != nil || len(d.Trials) != 2 {
			t.Errorf("gone: %+v", d)
		}
	})
}

// A newest state of which not even a plan could be made is restored again as it was, though there is a backup behind the
// damage by then.
func TestDrillRepeatsWhatCouldNotBePlanned(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Schedule.Segment, r.cfg.Backup.Keep.Segment = time.Second, 24*time.Hour
		filled(r)
		r.backup()
		at := r.put("later", "1")
		r.archived(at.Log, at.Offset+1)
		time.Sleep(time.Minute)
		s, err := segment.Newest(r.w.Context(), r.bucket, us, at.Partition)
		if err != nil {
			t.Fatal(err)
		}
		broken := format.SegmentName(us, at.Partition, s.Number)
		at = r.put("later", "2")
		r.archived(at.Log, at.Offset+1)
		if err := r.bucket.Delete(r.w.Context(), broken); err != nil {
			t.Fatal(err)
		}
		first := r.drill()
		if newest := first.Trials[0]; newest.Backup != "" || !strings.Contains(newest.Error, broken) {
			t.Fatalf("%+v", first)
		}
		r.written("later", "3")
		r.backup()
		for range 3 {
			d := r.drill()
			if d.Trials[0].Error != "" || d.Err() == nil || !strings.Contains(d.Err().Error(), broken) {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// What has no place in the configuration any more is not restored again: that it is refused tells nothing of it.
func TestDrillRepeatsWhatHasAPlace(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		first := r.backup()
		r.damage(first.ID)
		if d := r.drill(); d.Trials[0].Error == "" {
			t.Fatalf("%+v", d)
		}
		r.stop()
		delete(r.cfg.Streams, "config")
		r.start()
		r.backup()
		for range 3 {
			if d := r.drill(); d.Err() != nil || len(d.Trials) != 2 {
				t.Fatalf("%+v", d)
			}
		}
	})
}

// Known damage hides no other: one more is drawn however many have failed. And it is no reason to hurry.
func TestDrillBesideKnownDamage(t *testing.T) {
	long(t)
	const every = 3 * time.Hour
	one(t, func(r *region) {
		filled(r)
		var bad []string
		for i := range 3 {
			bad = append(bad, r.backup().ID)
			r.written("later", fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		for _, id := range bad {
			r.damage(id)
		}
		r.backup()
		for range 60 { // until two are known
			if d := r.drill(); len(d.Trials) == 4 {
				break
			}
		}
		if d := r.drill(); len(d.Trials) != 4 || d.Trials[1].Error == "" || d.Trials[2].Error == "" {
			t.Fatalf("%+v", d)
		}
		for _, id := range bad {
			if err := r.bucket.Delete(r.w.Context(), format.ManifestName(us, id)); err != nil {
				t.Fatal(err)
			}
		}
		r.written("later", "last")
		last := r.backup()
		r.damage(last.ID)
		r.written("later", "whole")
		r.drill()
		time.Sleep(time.Second)
		r.backup()
		r.cfg.Backup.Schedule.Drill = every
		r.away(time.Minute)
		time.Sleep(every - time.Hour)
		before := len(r.drills().Drills)
		time.Sleep(2 * every)
		if n := len(r.drills().Drills) - before; n < 2 || n > 4 {
			t.Errorf("%d drills in two intervals, by known damage", n)
		}
		if s := r.status().Backup.Drill; s.Error == "" || s.Anew {
			t.Errorf("%+v", s)
		}
	})
}

// pruning is a bucket out of which manifests go when an object is read.
type pruning struct {
	objstore.Bucket

	mu   sync.Mutex
	goes func(name string) (manifests []string) // nil: nothing goes
}

func (b *pruning) set(goes func(name string) []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.goes = goes
}

func (b *pruning) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	rc, info, err := b.Bucket.Get(ctx, name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.goes == nil || err != nil {
		return rc, info, err
	}
	for _, manifest := range b.goes(name) {
		if err := b.Delete(ctx, manifest); err != nil {
			return nil, info, err
		}
	}
	return rc, info, nil
}

// A backup that is pruned between the moment in which it is drawn and its restore is no failed drill: another one is
// drawn.
func TestDrillWhilePruning(t *testing.T) {
	long(t)
	for name, c := range map[string]func(newest string, older []string) func(name string) []string{
		"while the newest is restored": func(newest string, older []string) func(name string) []string {
			return func(name string) []string {
				if !strings.Contains(name, "/tables/"+newest) {
					return nil
				}
				return older
			}
		},
		"once it is drawn": func(_ string, older []string) func(name string) []string {
			return func(name string) []string {
				for _, manifest := range older {
					if name == manifest {
						return []string{manifest}
					}
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				bucket := &pruning{Bucket: r.bucket}
				r.bucket = bucket
				filled(r)
				for range 5 {
					var older []string
					for range 4 {
						older = append(older, format.ManifestName(us, r.backup().ID))
						time.Sleep(time.Second)
					}
					newest := r.backup().ID
					bucket.set(c(newest, older))
					if d := r.drill(); d.Err() != nil || len(d.Trials) != 2 {
						t.Errorf("%+v", d)
					}
					bucket.set(nil)
				}
			})
		})
	}
}
