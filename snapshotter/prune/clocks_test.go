package prune_test

import (
	"context"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
)

// apart is a bucket in a world whose clock has leapt: its own has not.
type apart struct {
	*objstore.Memory
	at   time.Time // of the leap
	leap time.Duration
}

func (a apart) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range a.Memory.List(ctx, prefix) {
			if info.Modified.After(a.at) {
				info.Modified = info.Modified.Add(-a.leap)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// leaps has every clock leap but that of the bucket.
func leaps(bucket *objstore.Memory, by time.Duration) apart {
	a := apart{bucket, time.Now(), by}
	time.Sleep(by)
	return a
}

// dated makes a backup whose maker's clock says that it is some other time.
func (a *archive) dated(created time.Time) string {
	a.t.Helper()
	var cuts []snapshotter.Cut
	for p := range int32(2) {
		cuts = append(cuts, at{cut{partition: p, tables: 1}, a.at[p]})
	}
	created = created.UTC().Truncate(time.Millisecond)
	id := format.NewID(created, [4]byte{1})
	shards, err := snapshotter.Shards(a.t.Context(), a.bucket, id, cuts, backupConfig())
	if err == nil {
		_, err = snapshotter.Publish(a.t.Context(), a.bucket, id, created, shards, backupConfig())
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

// month makes a backup and a segment of each shard every day.
func (a *archive) month() {
	for range 30 {
		a.append(0, 1)
		a.append(1, 1)
		a.backup()
		time.Sleep(day)
	}
}

// The node that makes the backups prunes them too: where its clock leaps, both that of the
// newest backup and that of the pruner do. Nothing is deleted by it, and that is told.
func TestBothClocksLeap(t *testing.T) {
	for _, leap := range []time.Duration{time.Hour, 40 * day, 4000 * day} {
		synctest.Test(t, func(t *testing.T) {
			memory := objstore.NewMemory("b")
			a := newArchive(t, memory)
			a.month()
			bucket := leaps(memory, leap)
			a.backup()
			before := names(t, bucket, "")
			cfg := prune.Config{Region: region, Policy: prune.Policy{Full: 20 * day, Last: 3, Segment: day}}
			for what, try := range map[string]func() (*prune.Report, error){
				"plan": func() (*prune.Report, error) { return prune.Plan(t.Context(), bucket, cfg) },
				"run":  func() (*prune.Report, error) { return prune.Run(t.Context(), bucket, cfg) },
			} {
				if _, err := try(); events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "clock") {
					t.Errorf("%s after %s: %v", what, leap, err)
				}
			}
			if left := names(t, bucket, ""); !slices.Equal(left, before) {
				t.Errorf("after %s: %d of %d objects are left", leap, len(left), len(before))
			}
		})
	}
}

// Two clocks that are wrong, by different times, make nothing look older than it is by the
// bucket's; and once the pruner's is right, ages are those that they are, for as
// long as the newest backup is dated in the future.
func TestClocksLeapApart(t *testing.T) {
	for name, leap := range map[string]time.Duration{"both are wrong": 30 * day, "the pruner's is right": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := objstore.NewMemory("b")
				a := newArchive(t, memory)
				a.month()
				now := time.Now()
				future := a.dated(now.Add(40 * day))
				bucket := leaps(memory, leap)
				// Of thirty backups, the newest a day old, twenty are not older than twenty days.
				run(t, bucket, prune.Policy{Full: 20 * day, Last: 3, Segment: 5 * day})
				if ids := audit(t, memory); len(ids) != 21 || ids[20] != future {
					t.Errorf("%d backups are left: %q", len(ids), ids)
				}
				for p := range int32(2) {
					if n := numbers(t, memory, p); len(n) != 4 || n[3] != 30 {
						t.Errorf("segments of shard %d that are left: %d", p, n)
					}
				}
			})
		})
	}
}

// seconds is a bucket that tells times as S3 does.
type seconds struct{ *objstore.Memory }

func (s seconds) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range s.Memory.List(ctx, prefix) {
			info.Modified = info.Modified.Truncate(time.Second)
			if !yield(info, err) {
				return
			}
		}
	}
}

// A bucket that leaves out the parts of seconds is no clock that is behind: what is to go
// behind the newest backup goes.
func TestBucketTellsWholeSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := seconds{objstore.NewMemory("b")}
		a := newArchive(t, bucket.Memory)
		time.Sleep(900 * time.Millisecond)
		a.month()
		a.append(0, 1)
		a.append(0, 1)
		a.backup()
		run(t, bucket, prune.Policy{Last: 1})
		if n := numbers(t, bucket.Memory, 0); len(n) != 1 || n[0] != 32 {
			t.Errorf("segments that are left: %d", n)
		}
	})
}

// By the clock of a pruner that alone is ahead no pin ends and no lock: what they keep stays
// until there is a backup by which it is seen that they have.
func TestOnlyThePrunerLeaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := objstore.NewMemory("b")
		ids := daily(t, memory, 5)
		if _, err := catalog.Pin(t.Context(), memory, full(ids[0]), "restore"); err != nil {
			t.Fatal(err)
		}
		lock(t, memory, format.ManifestName(region, ids[1]), until(7*day))
		bucket := leaps(memory, 30*day)
		report := run(t, bucket, prune.Policy{Last: 1})
		if got := audit(t, memory); !slices.Equal(got, []string{ids[0], ids[1], ids[4]}) {
			t.Errorf("left: %q; %+v", got, report)
		}
		if pins := names(t, memory, format.PinPrefix(region)); len(pins) != 1 {
			t.Errorf("pins: %q", pins)
		}
		newest := made(t, memory)
		run(t, memory, prune.Policy{Last: 1})
		if got := audit(t, memory); !slices.Equal(got, []string{newest}) {
			t.Errorf("once they have ended: %q", got)
		}
	})
}

// misdated is a bucket whose clock was behind when it got the objects of a backup.
type misdated struct {
	*objstore.Memory
	id string
	by time.Duration
}

func (m *misdated) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range m.Memory.List(ctx, prefix) {
			if m.id != "" && strings.Contains(info.Name, m.id) {
				info.Modified = info.Modified.Add(-m.by)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// A clock that was behind for a while has dated a backup before what is in it. No segment is
// given up for it that a point in time needs.
func TestBackupDatedInThePast(t *testing.T) {
	for name, c := range map[string]struct {
		back    time.Duration // the clock was behind by
		pruned  time.Duration // since the last daily backup
		buckets bool          // clock was behind too
	}{
		"by more than a day":                   {30 * time.Hour, 12 * time.Hour, false},
		"by more than a day, the bucket's too": {30 * time.Hour, 12 * time.Hour, true},
		"by some hours":                        {6 * time.Hour, 27 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := &misdated{Memory: objstore.NewMemory("b"), by: c.back}
				a := newArchive(t, bucket.Memory)
				segments := map[time.Time]int64{} // that there were when a backup was made
				backup := func() {
					segments[time.Now()] = int64(len(numbers(t, bucket, 0)))
					a.backup()
				}
				hours := func(n time.Duration) {
					for range n / time.Hour {
						time.Sleep(time.Hour)
						a.append(0, 1)
					}
				}
				for range 3 {
					backup()
					hours(day)
				}
				backup()
				hours(8 * time.Hour)
				if id := a.dated(time.Now().Add(-c.back)); c.buckets {
					bucket.id = id
				}
				hours(c.pruned - 8*time.Hour)
				backup()
				report := run(t, bucket, prune.Policy{Full: 30 * day, Last: 1, Segment: day})
				want := int64(0) // what came behind the last backup that is a day old
				for at, n := range segments {
					if time.Since(at) >= day {
						want = max(want, n+1)
					}
				}
				if n := numbers(t, bucket, 0); n[0] != want {
					t.Errorf("the archive begins with segment %d, want %d: %+v", n[0], want, report.Segments)
				}
			})
		})
	}
}
