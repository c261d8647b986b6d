package pipeline_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// drillsOf are the reports of drills in a bucket, oldest first.
func (r *region) drillsOf(bucket objstore.Bucket) (all []*format.Drill) {
	r.w.Helper()
	ids, err := catalog.Drills(r.w.Context(), bucket, r.cfg.Region)
	if err != nil {
		r.w.Fatal(err)
	}
	for _, id := range ids {
		d, err := catalog.Drill(r.w.Context(), bucket, r.cfg.Region, id)
		if err != nil {
			r.w.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

// copied has a region copy to some buckets, and drill them by schedule.
func copied(r *region, every time.Duration, names ...string) map[string]*objstore.Memory {
	b := r.cfg.Backup
	b.Schedule.Drill, b.Schedule.DrillCopies, b.Schedule.Copy, b.Schedule.Full = every, every, 5*time.Minute, every
	all := map[string]*objstore.Memory{}
	r.copies = map[string]objstore.Bucket{}
	for _, name := range names {
		all[name] = objstore.NewMemory(name)
		r.copies[name] = all[name]
	}
	return all
}

// copyOf is what the node says of a copy.
func (r *region) copyOf(name string) api.CopyStatus {
	r.w.Helper()
	all := r.status().Backup.Copies
	i := slices.IndexFunc(all, func(c api.CopyStatus) bool { return c.Copy == name })
	if i < 0 {
		r.w.Fatalf("nothing is said of copy %s: %+v", name, all)
	}
	return all[i]
}

// keyAge is the age of what is proved with a key in a copy, by the metrics.
func (r *region) keyAge(named, key string) float64 {
	r.w.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if l := m.GetLabel(); f.GetName() == "evenkeel_backup_copy_recipient_proved_age_seconds" && l[0].GetValue() == named && l[1].GetValue() == key {
				return m.GetGauge().GetValue()
			}
		}
	}
	return math.NaN()
}

// Copies are drilled by themselves, each in its turn, and the bucket as often as without them. Reports lie in the copies, and
// their ages, and what is proved with each key, are told of each.
func TestDrillsOfCopiesInTurn(t *testing.T) {
	long(t)
	const every = 12 * time.Minute
	one(t, func(r *region) {
		copies := copied(r, every, "cold", "north", "west")
		filled(r)
		time.Sleep(3 * every) // each is drilled first as soon as it is seen to have something
		first := map[string]int{}
		for name, bucket := range copies {
			if first[name] = len(r.drillsOf(bucket)); first[name] < 1 || first[name] > 3 {
				t.Errorf("copy %s was drilled %d times after the start", name, first[name])
			}
		}
		own := len(r.drills().Drills)
		for i := range 9 * 4 {
			r.put("k", fmt.Sprint(i))
			time.Sleep(every / 4)
			for name := range copies {
				if c := r.copyOf(name); c.DrillEvery != (3*every).Seconds() || c.DrillError != "" || c.Undrilled != "" || c.Drill == nil || c.Drill.Error != "" || time.Since(*c.Drill.Proved) > 5*every {
					t.Fatalf("%s: %+v, %+v", name, c, c.Drill)
				}
			}
		}
		if n := len(r.drills().Drills) - own; n < 7 || n > 10 {
			t.Errorf("in nine intervals the bucket was drilled %d times", n)
		}
		var at []time.Time
		for name, bucket := range copies {
			all := r.drillsOf(bucket)
			if n := len(all) - first[name]; n != 3 {
				t.Errorf("in nine intervals copy %s was drilled %d times", name, n)
			}
			for _, d := range all[first[name]:] {
				at = append(at, d.Created)
				if d.Err() != nil || len(d.Trials) != 2 || !slices.Equal(d.Trials[0].OpenedBy, keyIDs[:1]) {
					t.Errorf("%s: %+v", name, d)
				}
			}
			for i, key := range keyIDs {
				if age := r.keyAge(name, key); (i == 0) != (age < (5*every).Seconds()) || (i == 1) != math.IsInf(age, 1) {
					t.Errorf("%s: key %d is proved for a state of %f s ago", name, i, age)
				}
			}
		}
		slices.SortFunc(at, time.Time.Compare)
		for i := range at[1:] {
			if apart := at[i+1].Sub(at[i]); apart < every/2 {
				t.Errorf("two copies were drilled within %s", apart)
			}
		}
		if s := r.status(); len(s.Problems) > 0 || len(s.Backup.Copies[0].Recipients) != 2 {
			t.Errorf("%q, %+v", s.Problems, s.Backup.Copies[0])
		}
	})
}

// A node that is there for some minutes of each day drills each copy every other day, and the bucket each day, as its clock
// says whose turn it is.
func TestDrillsOfCopiesOverDays(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		copies := copied(r, 24*time.Hour, "cold", "west")
		filled(r)
		for i := range 9 {
			r.put("k", fmt.Sprint(i))
			time.Sleep(21 * time.Minute)
			r.away(24*time.Hour - 21*time.Minute)
		}
		if n := len(r.drills().Drills); n < 8 || n > 10 {
			t.Errorf("in nine days the bucket was drilled %d times", n)
		}
		for name, bucket := range copies {
			all := r.drillsOf(bucket)
			if len(all) < 4 || len(all) > 5 {
				t.Errorf("in nine days copy %s was drilled %d times", name, len(all))
			}
			for i := 2; i < len(all); i++ {
				if apart := all[i].Created.Sub(all[i-1].Created); apart < 36*time.Hour || apart > 60*time.Hour {
					t.Errorf("copy %s was drilled after %s", name, apart)
				}
			}
		}
	})
}

// A copy that is away, and one that answers too slowly, keep neither the bucket nor another copy from being drilled. That they
// could not be is told until they are.
func TestDrillsBesideACopyThatIsAway(t *testing.T) {
	long(t)
	const every = 12 * time.Minute
	away := faults.Rule{Effect: faults.FailBefore}
	slow := faults.Rule{Ops: []string{objstore.OpGet}, Name: "*/tables/*", Delay: 2 * every, Effect: faults.FailBefore}
	for name, rule := range map[string]faults.Rule{"away": away, "slow": slow} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				copies := copied(r, every, "cold", "west")
				faulty := faults.New(copies["cold"])
				r.copies["cold"] = faulty
				filled(r)
				time.Sleep(3 * every)
				faulty.SetRules(rule)
				own, west, cold := len(r.drills().Drills), len(r.drillsOf(copies["west"])), len(r.drillsOf(copies["cold"]))
				time.Sleep(8 * every)
				if n := len(r.drills().Drills) - own; n < 4 {
					t.Errorf("in eight intervals the bucket was drilled %d times", n)
				}
				if n := len(r.drillsOf(copies["west"])) - west; n < 3 {
					t.Errorf("in eight intervals the other copy was drilled %d times", n)
				}
				c := r.copyOf("cold")
				if n := len(r.drillsOf(copies["cold"])) - cold; n != 0 || c.DrillError == "" || c.Drill == nil || c.Drill.Error != "" {
					t.Errorf("%d times, %+v", n, c)
				}
				if said := strings.Join(r.status().Problems, "\n"); !strings.Contains(said, "copy cold of the backups could not be drilled") {
					t.Errorf("problems: %s", said)
				}
				if age := r.gauge("evenkeel_backup_copy_proved_age_seconds", "cold"); age < (8 * every).Seconds() {
					t.Errorf("age %f", age)
				}
				faulty.SetRules()
				time.Sleep(2 * every)
				if c := r.copyOf("cold"); c.DrillError != "" || c.Drill.Error != "" || time.Since(*c.Drill.Proved) > 3*every || len(r.status().Problems) > 0 {
					t.Errorf("%+v, %q", c, r.status().Problems)
				}
			})
		})
	}
}

// What is damaged in a copy is found by its drill, named, and told; the bucket and the other copies are as they were. The drill
// is made once more soon, and then in its turn.
func TestDrillFindsDamageInACopy(t *testing.T) {
	long(t)
	const every = 20 * time.Minute
	for name, harm := range map[string]func(b *objstore.Memory, table string) error{
		"a flipped bit": func(b *objstore.Memory, table string) error {
			return b.Damage(table, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		},
		"an object that is gone": func(b *objstore.Memory, table string) error { return b.Lose(table) },
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				copies := copied(r, every, "cold", "west")
				r.cfg.Backup.Schedule.Full = 30 * 24 * time.Hour
				filled(r)
				time.Sleep(3 * every)
				table := r.someTable()
				r.stop()
				r.cfg.Backup.Schedule.Copy = 0 // or what is gone comes back
				if err := harm(copies["cold"], table); err != nil {
					t.Fatal(err)
				}
				r.start()
				before := len(r.drillsOf(copies["cold"]))
				time.Sleep(6*every + time.Minute)
				all := r.drillsOf(copies["cold"])
				if n := len(all) - before; n < 4 || n > 5 || all[len(all)-1].Err() == nil || !strings.Contains(all[len(all)-1].Err().Error(), table) {
					t.Fatalf("%d drills: %+v", n, all)
				}
				said := strings.Join(r.status().Problems, "\n")
				if !strings.Contains(said, "copy cold of the backups: restore drill") || !strings.Contains(said, table) || strings.Contains(said, "copy west") {
					t.Errorf("problems: %s", said)
				}
				if cold, west := r.gauge("evenkeel_backup_copy_drill_failed", "cold"), r.gauge("evenkeel_backup_copy_drill_failed", "west"); cold != 1 || west != 0 {
					t.Errorf("failed: cold %f, west %f", cold, west)
				}
				if c := r.copyOf("west"); c.Drill.Error != "" || time.Since(c.Drill.Created) > 2*every+time.Minute || r.status().Backup.Drill.Error != "" {
					t.Errorf("%+v", c)
				}
			})
		})
	}
}

// A node that is killed while it drills a copy drills it when it is started again; nothing is left on the disk, and nothing in
// the copy.
func TestKilledWhileDrillingACopy(t *testing.T) {
	long(t)
	const every = 12 * time.Minute
	one(t, func(r *region) {
		copies := copied(r, every, "west")
		faulty := faults.New(copies["west"])
		r.copies["west"] = faulty
		filled(r)
		faulty.SetRules(faults.Rule{Ops: []string{objstore.OpGet}, Name: "*/tables/*", Delay: 4 * time.Minute})
		for range 3 {
			for struck := len(faulty.Log()); len(faulty.Log()) == struck; {
				time.Sleep(time.Minute)
			}
			time.Sleep(time.Minute)
			if len(r.below("scratch")) == 0 {
				t.Fatal("no drill is under way")
			}
			killed := r.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
			r.stop()
			r.disk = killed
			if n := len(r.drillsOf(copies["west"])); n != 0 {
				t.Fatalf("%d drills", n)
			}
			r.start()
		}
		faulty.SetRules()
		time.Sleep(2 * every)
		all := r.drillsOf(copies["west"])
		if len(all) < 1 || len(all) > 3 || all[0].Err() != nil || len(r.below("scratch")) > 0 {
			t.Errorf("%+v, left: %q", all, r.below("scratch"))
		}
	})
}

// What is archived in a copy is never thawed by a schedule: the copy is told as not drilled, and is drilled once it can be read.
// What is drawn and archived is passed over.
func TestArchivedCopiesAreNotDrilled(t *testing.T) {
	long(t)
	const every = 12 * time.Minute
	one(t, func(r *region) {
		copies := copied(r, every, "cold", "west")
		r.cfg.Backup.Schedule.Full = 30 * 24 * time.Hour
		faulty := faults.New(copies["cold"], faults.Rule{Ops: []string{objstore.OpThaw}, Effect: faults.Deny})
		r.copies["cold"] = faulty
		filled(r)
		time.Sleep(3 * every)
		for table := range r.newest().Tables() {
			if err := copies["cold"].Archive(table.Name); err != nil {
				t.Fatal(err)
			}
		}
		before := len(r.drillsOf(copies["cold"]))
		time.Sleep(6 * every)
		c := r.copyOf("cold")
		if n := len(r.drillsOf(copies["cold"])) - before; n != 0 || c.Undrilled != "archived" || c.DrillEvery != 0 || c.DrillError != "" {
			t.Errorf("%d drills, %+v", n, c)
		}
		if every := r.gauge("evenkeel_backup_copy_drill_every_seconds", "cold"); every != 0 || r.gauge("evenkeel_backup_copy_drill_every_seconds", "west") == 0 {
			t.Errorf("drilled every %f seconds", every)
		}
		if p := r.status().Problems; len(p) > 0 {
			t.Errorf("%q", p)
		}
		r.backup() // which can be read
		time.Sleep(3 * every)
		all := r.drillsOf(copies["cold"])
		if len(all) <= before || r.copyOf("cold").Undrilled != "" {
			t.Fatalf("%d drills, %+v", len(all)-before, r.copyOf("cold"))
		}
		for _, d := range all {
			if d.Err() != nil {
				t.Errorf("%+v", d)
			}
		}
		if asked := faulty.Log(); len(asked) > 0 {
			t.Errorf("something was to be thawed: %v", asked)
		}
	})
}

// Told not to, a node drills no copies, nor does one that drills nothing.
func TestNoDrillsOfCopies(t *testing.T) {
	long(t)
	for name, c := range map[string]struct{ own, copies time.Duration }{"copies": {12 * time.Minute, 0}, "none": {0, 12 * time.Minute}} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				copies := copied(r, 12*time.Minute, "west")
				r.cfg.Backup.Schedule.Drill, r.cfg.Backup.Schedule.DrillCopies = c.own, c.copies
				filled(r)
				time.Sleep(time.Hour)
				if n := len(r.drillsOf(copies["west"])); n > 0 {
					t.Errorf("%d drills", n)
				}
				if c := r.copyOf("west"); c.DrillEvery != 0 || c.Undrilled != "" || !math.IsInf(r.gauge("evenkeel_backup_copy_proved_age_seconds", "west"), 1) {
					t.Errorf("%+v", c)
				}
			})
		})
	}
}
