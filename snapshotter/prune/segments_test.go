package prune_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// archive appends to the archives of two shards; at is the next offset of each of
// their logs.
type archive struct {
	t        *testing.T
	bucket   objstore.Bucket
	builders map[int32]*segment.Builder
	at       map[int32]int64
}

func newArchive(t *testing.T, bucket objstore.Bucket) *archive {
	a := &archive{t: t, bucket: bucket, builders: map[int32]*segment.Builder{}, at: map[int32]int64{}}
	for p := range int32(2) {
		a.builders[p] = segment.NewBuilder(segment.Config{
			Region: region, Shard: p, Software: "test", Sealer: seal.None(),
			Chain: func(before events.Digest, r *kgo.Record) events.Digest { before[0] = byte(r.Offset) + 1; return before },
		}, nil)
		if err := a.builders[p].Begin(format.LogEnd{Log: cut{partition: p}.log()}); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// append adds a segment with so many records to a shard.
func (a *archive) append(p int32, records int) {
	a.t.Helper()
	for range records {
		r := &kgo.Record{Offset: a.at[p], Timestamp: time.Now(), Value: []byte("v")}
		if err := a.builders[p].Add(cut{partition: p}.log(), r); err != nil {
			a.t.Fatal(err)
		}
		a.at[p]++
	}
	s, object, err := a.builders[p].Close(time.Now(), 1, func(events.Log, int64) (events.Mark, bool) { return events.Mark{}, false })
	if err == nil {
		err = segment.Append(a.t.Context(), a.bucket, s, object)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// backup makes a full backup of where the logs are.
func (a *archive) backup() string {
	a.t.Helper()
	var cuts []snapshotter.Cut
	for p := range int32(2) {
		cuts = append(cuts, at{cut{partition: p, tables: 1}, a.at[p]})
	}
	m, err := snapshotter.Full(a.t.Context(), a.bucket, cuts, backupConfig())
	if err != nil {
		a.t.Fatal(err)
	}
	return m.ID
}

// day lets a day pass in which both shards grow, with a backup at its end.
func (a *archive) day() string {
	a.t.Helper()
	time.Sleep(day)
	for p := range int32(2) {
		a.append(p, 2)
	}
	return a.backup()
}

// at is a cut at an offset.
type at struct {
	cut
	next int64
}

func (c at) States() []events.LogState { return []events.LogState{{Log: c.log(), Next: c.next}} }

func numbers(t *testing.T, bucket objstore.Reader, p int32) []int64 {
	t.Helper()
	n, err := segment.Numbers(t.Context(), bucket, region, p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pruned prunes, and makes sure that a dry run had said the same.
func pruned(t *testing.T, bucket objstore.Bucket, policy prune.Policy) *prune.Report {
	t.Helper()
	cfg := prune.Config{Region: region, Policy: policy, Software: "test"}
	plan, err := prune.Plan(t.Context(), bucket, cfg)
	if err != nil {
		t.Fatal(err)
	}
	report, err := prune.Run(t.Context(), bucket, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", short(plan)) != fmt.Sprintf("%+v", short(report)) {
		t.Errorf("planned %+v, did %+v", short(plan), short(report))
	}
	return report
}

func short(r *prune.Report) (all []string) {
	for _, s := range r.Segments {
		all = append(all, fmt.Sprint(s.Shard, s.Delete, s.Bytes, s.Keep, s.From, s.Why))
	}
	return all
}

// What no point in time needs goes, the oldest first; the rest stays, and the newest
// in any case.
func TestSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		a := newArchive(t, bucket)
		policy := prune.Policy{Full: 30 * day, Last: 1, Segment: day}
		for range 3 {
			a.append(0, 2)
		}
		if r := pruned(t, bucket, policy); len(r.Segments) > 0 || len(r.Deleted) > 0 {
			t.Errorf("without a backup: %+v", r)
		}
		first := a.backup()
		for range 3 {
			a.append(0, 1)
			a.append(1, 1)
		}
		// Points since the only backup are restored from it: what is before it goes.
		r := pruned(t, bucket, policy)
		if got := numbers(t, bucket, 0); !slices.Equal(got, []int64{4, 5, 6}) {
			t.Errorf("shard 0 has %d; %+v", got, r.Segments)
		}
		if got := numbers(t, bucket, 1); !slices.Equal(got, []int64{1, 2, 3}) {
			t.Errorf("shard 1 has %d", got)
		}
		if !strings.Contains(r.Segments[0].Why, first) || r.Segments[0].Delete != 3 || r.Segments[0].From != 4 {
			t.Errorf("%+v", r.Segments)
		}
		time.Sleep(day)
		second := a.backup()
		a.append(0, 5)
		time.Sleep(day - time.Hour)
		a.backup() // a day after the second, nearly: points in between may be wanted
		a.append(0, 5)
		pruned(t, bucket, policy)
		if got := numbers(t, bucket, 0); !slices.Equal(got, []int64{4, 5, 6, 7, 8}) {
			t.Errorf("shard 0 has %d", got)
		}
		time.Sleep(2 * time.Hour)
		a.backup()
		unpin, err := catalog.Pin(t.Context(), bucket, manifestOf(t, bucket, first), "a restore")
		if err != nil {
			t.Fatal(err)
		}
		if r := pruned(t, bucket, policy); len(numbers(t, bucket, 0)) != 5 || !strings.Contains(r.Segments[0].Why, "a restore") {
			t.Errorf("in spite of a pin: %d; %+v", numbers(t, bucket, 0), r.Segments)
		}
		unpin()
		r = pruned(t, bucket, policy)
		if got := numbers(t, bucket, 0); !slices.Equal(got, []int64{7, 8}) || !strings.Contains(r.Segments[0].Why, second) {
			t.Errorf("shard 0 has %d; %+v", got, r.Segments)
		}
		// Nothing has come to shard 1: its newest stays, though nobody needs it.
		if got := numbers(t, bucket, 1); !slices.Equal(got, []int64{3}) {
			t.Errorf("shard 1 has %d", got)
		}
		a.append(1, 1)
		policy.Segment = 0
		pruned(t, bucket, policy)
		if got := numbers(t, bucket, 0); !slices.Equal(got, []int64{8}) {
			t.Errorf("shard 0 has %d", got)
		}
	})
}

func manifestOf(t *testing.T, bucket objstore.Bucket, id string) *format.Manifest {
	t.Helper()
	m, err := catalog.Load(t.Context(), bucket, region, id)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Each delete fails, once before and once after it is done: what is left never has a
// hole, and the next prune finishes.
func TestSegmentsCrashMatrix(t *testing.T) {
	for _, effect := range []faults.Effect{faults.FailBefore, faults.FailAfter} {
		for nth := 1; nth <= 6; nth++ {
			t.Run(fmt.Sprint(effect, nth), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					memory := objstore.NewMemory("b")
					bucket := faults.New(memory)
					a := newArchive(t, bucket)
					for range 4 {
						a.append(0, 2)
						a.append(1, 2)
					}
					a.backup()
					a.append(0, 2)
					a.append(1, 2)
					bucket.SetRules(faults.Rule{Ops: []string{objstore.OpDelete}, Nth: nth, Effect: effect})
					cfg := prune.Config{Region: region, Policy: prune.Policy{Last: 1, Segment: day}, Software: "test"}
					if _, err := prune.Run(t.Context(), bucket, cfg); err == nil {
						t.Error("it says that all went well")
					}
					for p := range int32(2) {
						left := numbers(t, memory, p)
						for i, n := range left {
							if n != left[0]+int64(i) || left[len(left)-1] != 5 {
								t.Errorf("shard %d has %d", p, left)
							}
						}
					}
					if _, err := prune.Run(t.Context(), bucket, cfg); err != nil {
						t.Error(err)
					}
					for p := range int32(2) {
						if got := numbers(t, memory, p); !slices.Equal(got, []int64{5}) {
							t.Errorf("shard %d has %d", p, got)
						}
					}
				})
			})
		}
	}
}

// A header that cannot be read keeps what is in its shard, and not in others.
func TestUnreadableSegment(t *testing.T) {
	bucket := objstore.NewMemory("b")
	a := newArchive(t, bucket)
	for range 3 {
		a.append(0, 2)
		a.append(1, 2)
	}
	a.backup()
	a.append(0, 1)
	a.append(1, 1)
	for n := int64(1); n <= 4; n++ {
		if err := bucket.Damage(format.SegmentName(region, 0, n), func(b []byte) []byte { b[10]++; return b }); err != nil {
			t.Fatal(err)
		}
	}
	r := pruned(t, bucket, prune.Policy{Last: 1, Segment: day})
	if got := numbers(t, bucket, 0); len(got) != 4 || !strings.Contains(r.Segments[0].Why, "shard-0000") {
		t.Errorf("%d; %+v", got, r.Segments)
	}
	if got := numbers(t, bucket, 1); !slices.Equal(got, []int64{4}) {
		t.Errorf("%d", got)
	}
}

// An archiver stalls, its segment is created by another one and deleted, and it
// creates it anew: nobody who goes by the newest segments sees it, and it goes.
func TestStalledArchiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A memory that has forgotten: what was deleted is left out of its making.
		bucket := objstore.NewMemory("b")
		a := newArchive(t, bucket)
		for range 4 {
			a.append(0, 2)
		}
		stray := objectOf(t, bucket, 2)
		a.backup()
		a.append(0, 2)
		policy := prune.Policy{Last: 1, Segment: day}
		pruned(t, bucket, policy)
		forgot := objstore.NewMemory("b")
		for info, err := range bucket.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			body, err := objstore.ReadAll(t.Context(), bucket, info.Name, 1<<30)
			if err == nil {
				err = forgot.Create(t.Context(), info.Name, body)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := forgot.Create(t.Context(), format.SegmentName(region, 0, 2), stray); err != nil {
			t.Fatal(err)
		}
		s, err := segment.Newest(t.Context(), forgot, region, 0)
		if err != nil || s.Number != 5 {
			t.Errorf("the newest is %+v, %v", s, err)
		}
		pruned(t, forgot, policy)
		if got := numbers(t, forgot, 0); !slices.Equal(got, []int64{5}) {
			t.Errorf("shard 0 has %d", got)
		}
	})
}

func objectOf(t *testing.T, bucket objstore.Reader, number int64) []byte {
	t.Helper()
	body, err := objstore.ReadAll(context.WithoutCancel(t.Context()), bucket, format.SegmentName(region, 0, number), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// The backup that the oldest of the promised points in time are restored from stays, with the segments
// behind it, however short backups themselves are kept. When a later one is old enough, it goes.
func TestThePromisedPointsKeepTheirBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		a := newArchive(t, bucket)
		var fulls []string
		backup := func() { fulls = append(fulls, a.day()) }
		for range 8 {
			backup()
		}
		policy, went := prune.Policy{Last: 1, Segment: 3*day + time.Hour}, 0
		for len(fulls) < 20 {
			r := pruned(t, bucket, policy)
			ids, err := catalog.IDs(t.Context(), bucket, region)
			if err != nil {
				t.Fatal(err)
			}
			base := slices.Index(fulls, ids[0])
			if base > len(fulls)-5 { // the fourth before the newest is old enough
				t.Fatalf("the newest is full %d, and the oldest full %d", len(fulls)-1, base)
			}
			if left := numbers(t, bucket, 0); left[0] != int64(base)+2 {
				t.Errorf("full %d is left, and segments from %d on: %+v", base, left[0], r.Segments)
			}
			if went = max(went, base); len(ids) > 5 && len(fulls) > 8 || base < len(fulls)-5 {
				t.Errorf("%d backups are left: %+v", len(ids), r.Backups)
			}
			backup()
		}
		if went < 14 {
			t.Errorf("the oldest full is at last the one of day %d", went)
		}
	})
}

// A backup of a shard that has not caught up holds less than those before it: these stay until a newer
// one holds all that they do, for what is archived behind them does not follow on it.
func TestWhatHoldsMoreStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		a := newArchive(t, bucket)
		grow := func() {
			a.append(0, 4)
			a.append(1, 4)
		}
		grow()
		a.backup()
		time.Sleep(2 * day)
		grow()
		whole := a.backup()
		policy := prune.Policy{Last: 1}
		pruned(t, bucket, policy)
		time.Sleep(2 * day)
		a.append(1, 2)
		a.append(1, 2)
		caughtUp := a.at[0]
		a.at[0] = 3
		behind := a.backup()
		a.at[0] = caughtUp
		left := func() string {
			t.Helper()
			pruned(t, bucket, policy)
			ids, err := catalog.IDs(t.Context(), bucket, region)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(ids)
		}
		if ids := left(); ids != fmt.Sprint([]string{whole, behind}) {
			t.Errorf("there are %s; %s holds more than %s", ids, whole, behind)
		}
		if left := numbers(t, bucket, 1); left[0] > 3 {
			t.Errorf("segments are left from %d on, and on %s those from 3 on follow", left[0], whole)
		}
		time.Sleep(2 * day)
		grow()
		newest := a.backup()
		if ids := left(); ids != fmt.Sprint([]string{newest}) {
			t.Errorf("there are %s; %s holds all", ids, newest)
		}
	})
}

// again is a cut of a region that came back as a new incarnation.
type again struct {
	cut
	former, next int64
}

func (c again) States() []events.LogState {
	l := c.log()
	states := []events.LogState{{Log: l, Next: c.former}}
	if l.Origin.Incarnation++; c.next > 0 {
		states = append(states, events.LogState{Log: l, Next: c.next})
	}
	return states
}

// A region came back as it was at a time before its newest backup: nothing that is made from then on has more of
// its former log, and that keeps no backup.
func TestAFormerIncarnationKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		backup := func(former, next int64) string {
			t.Helper()
			time.Sleep(2 * day)
			cuts := []snapshotter.Cut{again{cut{partition: 0, tables: 1}, former, next}, again{cut{partition: 1, tables: 1}, former, next}}
			m, err := snapshotter.Full(t.Context(), bucket, cuts, backupConfig())
			if err != nil {
				t.Fatal(err)
			}
			return m.ID
		}
		backup(5, 0)
		before := backup(10, 0)
		policy := prune.Policy{Last: 1, Segment: 3 * day}
		restored := backup(7, 1)
		pruned(t, bucket, policy)
		if ids, err := catalog.IDs(t.Context(), bucket, region); err != nil || fmt.Sprint(ids[len(ids)-2:]) != fmt.Sprint([]string{before, restored}) {
			t.Errorf("there are %v, %v: points before the restore are restored from %s", ids, err, before)
		}
		backup(7, 2)
		newest := backup(7, 3)
		pruned(t, bucket, policy)
		last := backup(7, 4)
		pruned(t, bucket, policy)
		if ids, err := catalog.IDs(t.Context(), bucket, region); err != nil || len(ids) > 3 || ids[len(ids)-1] != last || ids[0] > newest {
			t.Errorf("there are %v, %v, of %s and %s", ids, err, newest, last)
		}
	})
}

// A backup of a shard that is far behind is among those that points in time are restored from: the older ones that these follow
// on stay meanwhile.
func TestThePromisedPointsOutliveABackupOfLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		a := newArchive(t, bucket)
		var fulls []string
		backup := func() { fulls = append(fulls, a.day()) }
		for range 10 {
			backup()
		}
		there := a.at[0]
		a.at[0] = 1
		time.Sleep(time.Hour)
		a.backup()
		a.at[0] = there
		backup()
		backup()
		pruned(t, bucket, prune.Policy{Last: 1, Segment: 8 * day})
		ids, err := catalog.IDs(t.Context(), bucket, region)
		if err != nil || !slices.Contains(ids, fulls[3]) {
			t.Errorf("of %v there are %v, %v: points of 8 days ago are restored from the fourth", fulls, ids, err)
		}
	})
}

// A backup of a shard that has begun anew and holds less than where the archive begins is none from which a point can be restored,
// however old: the one before it stays as long as any is promised.
func TestWhatTheArchiveDoesNotFollowOnIsNoBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		a := newArchive(t, bucket)
		policy := prune.Policy{Last: 1, Segment: 2*day + 20*time.Hour}
		var fulls []string
		backup := func() { fulls = append(fulls, a.day()) }
		for range 10 {
			backup()
		}
		pruned(t, bucket, policy)
		if first := numbers(t, bucket, 0)[0]; first < 3 {
			t.Fatalf("the archive begins with segment %d", first)
		}
		there := a.at[0]
		a.at[0] = 1
		time.Sleep(time.Hour)
		little := a.backup()
		a.at[0] = there
		for range 3 {
			backup() // in the end the backup of little is older than all points that are promised
		}
		pruned(t, bucket, policy)
		if ids, err := catalog.IDs(t.Context(), bucket, region); err != nil || !slices.Contains(ids, fulls[9]) {
			t.Errorf("of %v and %s there are %v, %v: points before the eleventh are restored from the tenth", fulls, little, ids, err)
		}
		for range 2 {
			backup()
		}
		pruned(t, bucket, policy)
		if ids, err := catalog.IDs(t.Context(), bucket, region); err != nil || slices.Contains(ids, fulls[9]) || slices.Contains(ids, little) {
			t.Errorf("of %v and %s there are %v, %v: those that no point is restored from go", fulls, little, ids, err)
		}
	})
}
