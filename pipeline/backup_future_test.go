package pipeline_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// fromTheFuture puts into the bucket what a node would whose clock is ahead: a backup, the report of a drill,
// and a plan with its floor. It returns their names.
func (r *region) fromTheFuture(ahead time.Duration) (names []string) {
	r.w.Helper()
	ctx, at := r.w.Context(), time.Now().UTC().Add(ahead).Truncate(time.Millisecond)
	m := *r.newest()
	m.ID, m.Created, m.Kind, m.Parents, m.Groups = format.NewID(at, [4]byte{1}), at, format.Full, nil, nil
	m.Shards = nil
	for p := range int32(partitions) {
		m.Shards = append(m.Shards, format.Shard{Partition: p, Lineage: "future", States: []events.LogState{}, Tables: []format.Table{}})
	}
	d := format.Drill{
		Format: format.DrillVersion, Region: us, ID: m.ID, Created: at, Software: "test", Owner: "test",
		Trials: []format.Trial{{Aim: "newest", Backup: m.ID, StateTime: at, States: []events.LogState{}}},
	}
	plan := format.Plan{Format: 1, Region: us, Number: 7, Below: format.NewID(time.Unix(0, 0), [4]byte{}), Created: at, Software: "test", Owner: "test", Keep: []string{}, Delete: []string{}}
	floor := format.Floor{Format: 1, Region: us, Number: plan.Number, Below: plan.Below, Created: at, Software: "test", Owner: "test"}
	text, err := floor.Encode()
	if err == nil {
		err = r.bucket.Create(ctx, format.FloorName(us, floor.Number), text)
	}
	if err == nil {
		text, err = plan.Encode()
	}
	if err == nil {
		err = r.bucket.Create(ctx, format.PlanName(us, plan.Number), text)
	}
	if err == nil {
		err = catalog.PublishDrill(ctx, r.bucket, &d)
	}
	if err == nil {
		err = catalog.Publish(ctx, r.bucket, &m)
	}
	if err != nil {
		r.w.Fatal(err)
	}
	return []string{format.ManifestName(us, m.ID), format.PlanName(us, plan.Number), format.DrillName(us, d.ID)}
}

// What a wrong clock has dated in the future keeps nothing from being done at its time: full backups,
// deltas, drills and prunes; ages are those of the others; and the node says so.
func TestNothingWaitsForTheFuture(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		withDeltas(r)
		b := r.cfg.Backup
		const every = 20 * time.Minute // the bucket is looked at each five
		b.Schedule.Full, b.Schedule.Drill, b.Schedule.Prune = 2*every, every, every
		filled(r)
		time.Sleep(time.Minute)
		future := r.fromTheFuture(40 * 24 * time.Hour)
		begun := time.Now()
		for range 5 {
			r.written("key-00", time.Now().String())
			time.Sleep(every)
		}
		fulls, deltas := 0, 0
		list, err := r.ListBackups(r.w.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, made := range list.Backups {
			switch {
			case made.Created.Before(begun) || format.ManifestName(us, made.ID) == future[0]:
			case made.Kind == format.Full:
				fulls++
			default:
				deltas++
			}
		}
		if fulls < 2 || deltas < 84 {
			t.Errorf("%d full backups and %d deltas in a hundred minutes", fulls, deltas)
		}
		if n := len(r.drills().Drills); n < 5 {
			t.Errorf("%d drills", n)
		}
		s := r.status()
		if b := s.Backup; len(b.Prunes) != 1 || time.Since(b.Prunes[0].Began) > every+10*time.Minute || b.Prunes[0].Error != "" {
			t.Errorf("prunes: %+v", b.Prunes)
		}
		for _, name := range future {
			if !strings.Contains(strings.Join(s.Backup.Ahead, "\n"), name) {
				t.Errorf("%s is not told: %q", name, s.Backup.Ahead)
			}
		}
		if said := strings.Join(s.Problems, "\n"); !strings.Contains(said, "dated in the future") || !strings.Contains(said, future[0]) {
			t.Errorf("problems: %s", said)
		}
		for name, most := range map[string]float64{
			"evenkeel_backup_age_seconds": 400, "evenkeel_backup_full_age_seconds": (2 * every).Seconds() + 400, "evenkeel_backup_pruned_age_seconds": every.Seconds() + 600,
		} {
			if age := r.gauge(name, ""); !(age >= 0 && age <= most) {
				t.Errorf("%s: %v", name, age)
			}
		}
		// What a drill has proved of the future has no age.
		if age := r.gauge("evenkeel_backup_proved_age_seconds", ""); !(age >= 0) {
			t.Errorf("proved: %v", age)
		}
	})
}

// A region of which there is nothing but what is dated in the future has no backup, as far as anybody
// knows how old it is, and makes one.
func TestOnlyTheFuture(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		first := r.backup()
		r.fromTheFuture(time.Hour)
		if err := r.bucket.Delete(r.w.Context(), format.ManifestName(us, first.ID)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		if age := r.gauge("evenkeel_backup_age_seconds", "session"); !math.IsInf(age, 1) {
			t.Errorf("age: %v", age)
		}
		if age := r.gauge("evenkeel_backup_full_age_seconds", ""); !math.IsInf(age, 1) {
			t.Errorf("age: %v", age)
		}
		r.cfg.Backup.Schedule.Full = 24 * time.Hour
		r.away(0)
		time.Sleep(time.Second)
		if n := len(r.ids()); n != 2 {
			t.Errorf("%d backups", n)
		}
	})
}

// bothAhead is a bucket whose clock was ahead with that of whoever has made backups that are dated in
// the future: to a node whose own clock is behind it looks like that.
type bothAhead struct{ *objstore.Memory }

func (b bothAhead) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range b.Memory.List(ctx, prefix) {
			id, _ := format.ParseManifestName(us, info.Name)
			if at, unknown := format.IDTime(id); unknown == nil && at.After(info.Modified) {
				info.Modified = at
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// A node whose clock is behind that of who made the backups, and the bucket's, makes none by schedule,
// which would be dated before what is in them, and says why; but not for ever, and not once it
// is seen to be right.
func TestClockIsBehind(t *testing.T) {
	long(t)
	const patience = time.Hour // as often as full backups are made; TestClockPatience has others
	one(t, func(r *region) {
		withDeltas(r)
		r.cfg.Backup.Schedule.Full = patience
		memory := r.bucket.(*objstore.Memory)
		r.bucket = bothAhead{memory}
		filled(r)
		time.Sleep(time.Minute)
		future := r.fromTheFuture(40 * 24 * time.Hour)
		made := func(during time.Duration) int {
			before := len(r.ids())
			for range during / (10 * time.Minute) {
				r.written("key-00", time.Now().String())
				time.Sleep(10 * time.Minute)
			}
			return len(r.ids()) - before
		}
		said := func() string { return strings.Join(r.status().Problems, "\n") }
		time.Sleep(6 * time.Minute)
		if n := made(patience - 20*time.Minute); n > 0 {
			t.Errorf("%d backups although the clock is behind", n)
		}
		if s := said(); !strings.Contains(s, "clock is 9") || !strings.Contains(s, "no scheduled backups") || strings.Contains(s, "dated in the future") {
			t.Errorf("problems: %s", s)
		}
		time.Sleep(30 * time.Minute)
		if n := made(time.Hour); n < 50 {
			t.Errorf("%d backups in an hour, long after", n)
		}
		if s := said(); !strings.Contains(s, "dated by this clock") {
			t.Errorf("problems: %s", s)
		}
		if err := memory.Lose(future[0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		if s := said(); strings.Contains(s, "clock is") {
			t.Errorf("problems: %s", s)
		}
		if n := made(time.Hour); n < 50 {
			t.Errorf("%d backups in an hour, with the clock right", n)
		}
	})
}

// For how long a clock that is behind is waited for: an interval of full backups, and a day at most. It begins anew
// when the clock was right meanwhile.
func TestClockPatience(t *testing.T) {
	const day = 24 * time.Hour
	for full, patience := range map[time.Duration]time.Duration{0: day, time.Hour: time.Hour, 23 * time.Hour: 23 * time.Hour, day: day, 7 * day: day, 366 * day: day} {
		begun := time.Now()
		ahead := begun.Add(40 * day)
		waits := pipeline.WaitsForClock(full, ahead)
		for round := range 2 {
			for _, at := range []time.Duration{0, 1, patience / 2, patience - 1, patience, patience + 1, patience + day} {
				if got, want := waits(begun.Add(at)), at < patience; got != want {
					t.Errorf("full backups every %s, round %d, after %s: %t, want %t", full, round, at, got, want)
				}
			}
			if waits(ahead) {
				t.Errorf("full backups every %s: it waits although the clock is right", full)
			}
		}
	}
}

// A node that has lost its disk begins with the newest backup that is dated rightly, also if its logs have nothing before
// that any more, and not with what a wrong clock has dated later.
func TestBeginsBeforeTheFuture(t *testing.T) {
	for name, expired := range map[string]bool{"whole logs": false, "expired logs": true} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				filled(r)
				good := r.backup()
				r.fromTheFuture(24 * time.Hour)
				r.stop()
				if expired {
					before := kadm.Offsets{}
					for p := range int32(partitions) {
						before.AddOffset("session", p, r.end("session", p), -1)
					}
					r.deleteRecords(before)
				}
				r.disk = vfs.NewCrashableMem()
				r.start()
				r.has("key-01", "value-1")
				for _, row := range r.status().Shards {
					if !strings.Contains(row.Began, good.ID) {
						t.Errorf("shard %d began with %s, want %s", row.Partition, row.Began, good.ID)
					}
				}
			})
		})
	}
}

// Reports of drills that cannot be read, and those of a newer version, keep nothing from being
// done: they are passed over, and told.
func TestUnreadableDrills(t *testing.T) {
	long(t)
	const every = 20 * time.Minute // the bucket is looked at each two and a half
	for name, spoil := range map[string]func(text []byte) []byte{
		"damaged": func(text []byte) []byte { text[len(text)/3] ^= 1; return text },
		"cut off": func(text []byte) []byte { return text[:len(text)/2] },
		"a newer version": func([]byte) []byte {
			text := []byte(`{"format":99}`)
			return fmt.Appendf(text, "\nsha256:%x\n", sha256.Sum256(text))
		},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.cfg.Backup.Schedule.Drill, r.cfg.Backup.Schedule.Full = every, every/2
				filled(r)
				time.Sleep(every + every/2)
				drills := r.drills().Drills
				if len(drills) != 2 {
					t.Fatalf("%d drills", len(drills))
				}
				if err := r.bucket.(*objstore.Memory).Damage(format.DrillName(us, drills[0].ID), spoil); err != nil {
					t.Fatal(err)
				}
				if list := r.drills(); len(list.Drills) != 1 || len(list.Unread) != 1 || !strings.Contains(list.Unread[0], drills[0].ID) {
					t.Errorf("drills: %+v", list)
				}
				if newest, err := r.ListDrills(r.w.Context(), api.ListDrillsParams{}); err != nil || newest.Drills[0].ID != drills[1].ID {
					t.Errorf("newest drill: %+v, %v", newest, err)
				}
				if named, err := r.ListDrills(r.w.Context(), api.ListDrillsParams{Drill: drills[0].ID}); err == nil {
					t.Errorf("it was read: %+v", named)
				}
				backups := len(r.ids())
				time.Sleep(6 * time.Minute)
				if said := strings.Join(r.status().Problems, "\n"); !strings.Contains(said, drills[0].ID) || !strings.Contains(said, "cannot be read") {
					t.Errorf("problems: %s", said)
				}
				time.Sleep(2 * every)
				if n := len(r.ids()); n < backups+3 {
					t.Errorf("%d backups, there were %d", n, backups)
				}
				s := r.status()
				if b := s.Backup; b.Error != "" || b.Drill == nil || b.Drill.ID == drills[0].ID || b.Drill.Error != "" || b.Drill.Proved == nil || time.Since(b.Drill.Created) > every+10*time.Minute {
					t.Errorf("%+v; %+v", b, b.Drill)
				}
				if _, err := r.restore("x"); err != nil {
					t.Errorf("restore: %v", err)
				}
			})
		})
	}
}
