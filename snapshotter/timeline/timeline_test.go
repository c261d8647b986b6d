package timeline_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// anyWorld is a history of two shards: records with clocks that are right, behind or
// ahead, segments that are closed late and hold only a part, backups in between. It ends
// at a second.
func anyWorld(t *rapid.T) (w *world, end int) {
	w = newWorld(t)
	logs := allLogs()
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"write", "write", "write", "archive", "backup", "wait"}).Draw(t, "step") {
		case "write":
			off := rapid.SampledFrom([]int{0, 0, 0, 0, -30, 1, 30, 10_000}).Draw(t, "clock")
			w.write(rapid.SampledFrom(logs).Draw(t, "log"), after(end+off), rapid.SampledFrom([]int64{0, 0, 0, 2}).Draw(t, "skipped"))
		case "archive":
			w.archive(rapid.Int32Range(0, shards-1).Draw(t, "shard"), after(end), rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "most"))
		case "backup":
			w.backup(after(end).Add(time.Duration(len(w.backups)) * time.Millisecond))
		case "wait":
			end += rapid.IntRange(1, 10).Draw(t, "seconds")
		}
	}
	return w, end
}

func read(t rapid.TB, bucket objstore.Reader) *timeline.Timeline {
	t.Helper()
	tl, err := timeline.Read(context.Background(), bucket, nil, region, shards)
	if err != nil {
		t.Fatal(err)
	}
	return tl
}

// A time means the vector that a plain look at every record gives.
func TestTimeIsWhatEveryRecordSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, end := anyWorld(t)
		at := after(rapid.IntRange(-2, end+2).Draw(t, "at"))
		plan, err := read(t, w.bucket).Plan(t.Context(), timeline.Request{Target: timeline.Target{Time: at}})
		archived, want := time.Time{}, events.Vector{}
		for _, closed := range w.newest {
			if closed.After(archived) {
				archived = closed
			}
		}
		for _, l := range allLogs() {
			if next := w.naive(l, at); next > 0 {
				want[l] = next
			}
		}
		switch {
		case archived.Before(at) && !w.quietUntil(at, want):
			wantKind(t, err, events.KindNotFound)
		case len(want) == 0 && !w.backedUp(at):
			wantKind(t, err, events.KindNotFound)
		case err != nil:
			w.onlyInBackups(t, err)
		case plan.Vector.Compare(want) != events.Equal:
			t.Fatalf("%s is the vector\n%s, want\n%s", at, plan.Vector, want)
		}
		if err == nil {
			w.leads(t, plan)
		}
	})
}

// quietUntil says whether the first backup from after a time has nothing that is not in a
// vector: then nothing came until then, archived or not.
func (w *world) quietUntil(at time.Time, v events.Vector) bool {
	i := slices.IndexFunc(w.backups, func(m *format.Manifest) bool { return m.Created.After(at) })
	if i < 0 {
		return false
	}
	for l, next := range events.VectorOf(w.backups[i].States()) {
		if next > v[l] {
			return false
		}
	}
	return true
}

// backedUp says whether there is a backup from a time or before.
func (w *world) backedUp(at time.Time) bool {
	return slices.ContainsFunc(w.backups, func(m *format.Manifest) bool { return !m.Created.After(at) })
}

// leads makes sure that a plan's base and segments hold every record below its vector,
// and that what the plan says of them is so.
func (w *world) leads(t *rapid.T, plan *timeline.Plan) {
	have := map[events.Log][]int64{}
	from := events.Vector{}
	if len(plan.Chain) > 0 {
		from = events.VectorOf(plan.Chain.Newest().States())
	}
	for l, next := range from {
		if next > plan.Vector[l] {
			t.Fatalf("%s: base at %d, the target is %d", l, next, plan.Vector[l])
		}
		for _, r := range w.logs[l] {
			if r.Offset < next {
				have[l] = append(have[l], r.Offset)
			}
		}
	}
	segments := int64(0)
	for _, s := range plan.Shards {
		for n := s.First; n <= s.Last && s.First > 0; n++ {
			segments++
			opened, err := segment.Open(t.Context(), w.bucket, nil, region, s.Shard, n)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range logsOf(s.Shard) {
				for r, err := range opened.Records(l, from[l]) {
					if err != nil {
						t.Fatal(err)
					}
					if r.Offset < plan.Vector[l] {
						have[l] = append(have[l], r.Offset)
					}
				}
			}
		}
	}
	for _, l := range allLogs() {
		var want []int64
		for _, r := range w.logs[l] {
			if r.Offset < plan.Vector[l] {
				want = append(want, r.Offset)
			}
		}
		if !slices.Equal(have[l], want) {
			t.Fatalf("%s: base %s and segments have the offsets %v, want %v", l, plan.Base, have[l], want)
		}
	}
	if objects := segments + min(1, int64(len(plan.Base))); plan.Objects != objects {
		t.Fatalf("plan of %d objects, there are %d", plan.Objects, objects)
	}
}

// Any vector and any offsets of logs below what is archived lead there exactly; beyond,
// it is said what is missing.
func TestAnyVector(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := anyWorld(t)
		tl := read(t, w.bucket)
		newest, err := tl.Plan(t.Context(), timeline.Request{})
		if err != nil {
			wantKind(t, err, events.KindNotFound)
			return
		}
		w.leads(t, newest)
		v := events.Vector{}
		for _, l := range allLogs() {
			if next, known := newest.Vector[l]; known && rapid.Bool().Draw(t, "named") {
				v[l] = rapid.Int64Range(0, next+1).Draw(t, "offset")
			}
		}
		if len(v) == 0 {
			return
		}
		req := timeline.Request{Target: timeline.Target{Offsets: v}}
		want := newest.Vector.Clone()
		for l, next := range v {
			want[l] = next
		}
		if rapid.Bool().Draw(t, "vector") {
			req, want = timeline.Request{Target: timeline.Target{Vector: v}}, v
		}
		plan, err := tl.Plan(t.Context(), req)
		for l, next := range want {
			if next > newest.Vector[l] {
				var missing *timeline.MissingError
				if !errors.As(err, &missing) || missing.To != want[missing.Log] || missing.Lost || events.KindOf(err) != events.KindNotFound {
					t.Fatalf("%s is beyond what there is: %v", l.At(next), err)
				}
				return
			}
		}
		if err != nil {
			w.onlyInBackups(t, err)
			return
		}
		if plan.Vector.Compare(want) != events.Equal {
			t.Fatalf("vector %s, want %s", plan.Vector, want)
		}
		w.leads(t, plan)
	})
}

// onlyInBackups makes sure that an error is about what only a backup has, which is ahead
// of the target in another log.
func (w *world) onlyInBackups(t *rapid.T, err error) {
	var missing *timeline.MissingError
	if events.KindOf(err) != events.KindNotFound || !errors.As(err, &missing) || w.archivedTo(missing.Log) >= missing.To || missing.Lost {
		t.Fatal(err)
	}
}

// What was archived once and is not there any more is told from what never was.
func TestLost(t *testing.T) {
	for name, c := range map[string]struct {
		gone  []int64
		names bool // the object
	}{"in the midst": {[]int64{2}, true}, "from the beginning": {[]int64{1, 2}, false}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			l := logsOf(0)[0]
			for i := range 6 {
				w.write(l, after(i), 0)
				w.archive(0, after(i), 1)
				if i == 0 {
					w.backup(after(i))
				}
			}
			for _, n := range c.gone {
				if err := w.bucket.Delete(t.Context(), format.SegmentName(region, 0, n)); err != nil {
					t.Fatal(err)
				}
			}
			for _, target := range []timeline.Target{{Vector: events.Vector{l: 4}}, {Time: after(4)}} {
				_, err := read(t, w.bucket).Plan(t.Context(), timeline.Request{Target: target})
				var missing *timeline.MissingError
				if !errors.As(err, &missing) || !missing.Lost || missing.From != 1 || missing.To != 2 {
					t.Errorf("%s: %v", target, err)
				} else if strings.Contains(err.Error(), format.SegmentName(region, 0, 2)) != c.names {
					t.Errorf("%s: it names the wrong object: %v", target, err)
				}
			}
		})
	}
}

// archivedTo is how far a log is archived.
func (w *world) archivedTo(l events.Log) (next int64) {
	for _, r := range w.logs[l] {
		if !r.came.IsZero() {
			next = r.Offset + 1
		}
	}
	return next
}

// long is a shard with many segments, one record each a second, and a backup each 100.
func long(t *testing.T, segments int) *world {
	w := newWorld(t)
	for i := range segments {
		w.write(logsOf(0)[i%6], after(i), 0)
		w.archive(0, after(i), 1)
		if i%100 == 50 {
			w.backup(after(i))
		}
	}
	return w
}

// In a long archive few segments are looked at.
func TestFewSegmentsAreRead(t *testing.T) {
	const segments = 3_000
	w := long(t, segments)
	counting := faults.New(w.bucket, faults.Rule{Ops: []string{objstore.OpGetRange, objstore.OpGet}, Name: "*.segment", Effect: faults.Wait})
	for _, at := range []int{10, 555, 1_649, segments - 1} {
		before := len(counting.Log())
		plan, err := read(t, counting).Plan(t.Context(), timeline.Request{Target: timeline.Target{Time: after(at)}})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(counting.Log()) - before; n > 100+int(plan.Objects) {
			t.Errorf("%d segments were read for a plan of %d objects", n, plan.Objects)
		}
		if plan.Objects > 102 {
			t.Errorf("%d objects", plan.Objects)
		}
	}
}

// What is not there is named, with what is possible instead.
func TestWhatIsNotCovered(t *testing.T) {
	l := logsOf(0)[2]
	write := func(w *world, from, to int) {
		for i := from; i < to; i++ {
			w.write(l, after(i), 0)
		}
	}
	for name, c := range map[string]struct {
		make   func(w *world)
		target timeline.Target
		kind   events.Kind
		parts  []string
	}{
		"nothing": {func(*world) {}, timeline.Target{}, events.KindNotFound, []string{"us-east-1", "backup create"}},
		"after the end": {func(w *world) { write(w, 0, 10); w.archive(0, after(20), 100) }, timeline.Target{Time: after(21)},
			events.KindNotFound, []string{"2020-11-26T12:00:21Z", "--to-newest", "2020-11-26T12:00:20Z"}},
		"before everything": {func(w *world) { write(w, 0, 10); w.archive(0, after(20), 100) }, timeline.Target{Time: after(-1)},
			events.KindNotFound, []string{"2020-11-26T11:59:59Z", "nothing came"}},
		"an offset too far": {func(w *world) { write(w, 0, 10); w.archive(0, after(20), 100) }, timeline.Target{Offsets: events.Vector{l: 12}},
			events.KindNotFound, []string{l.String(), "offsets 10 to 11", "ends at offset 10"}},
		"a log that is not": {func(w *world) { write(w, 0, 10); w.archive(0, after(20), 100) }, timeline.Target{Offsets: events.Vector{logsOf(1)[0]: 1}},
			events.KindNotFound, []string{logsOf(1)[0].String()}},
		"before the archive": {func(w *world) { write(w, 0, 10); w.begin(l, 5); w.archive(0, after(20), 100) }, timeline.Target{Offsets: events.Vector{l: 7}},
			events.KindNotFound, []string{l.String(), "offsets 0 to 4", "begins behind"}},
		"a time before the archive": {func(w *world) { write(w, 0, 10); w.begin(l, 5); w.archive(0, after(20), 100) }, timeline.Target{Time: after(3)},
			events.KindNotFound, []string{l.String(), "offsets 0 to 4", "the archive of shard 0 begins at 2020-11-26T12:00:20Z"}},
		"over a gap": {func(w *world) {
			write(w, 0, 5)
			w.archive(0, after(5), 100)
			write(w, 5, 10)
			w.skip(l, 8)
			w.archive(0, after(20), 100)
		},
			timeline.Target{}, events.KindNotFound, []string{l.String(), "offsets 5 to 7", "expired"}},
		"a time in a gap": {func(w *world) {
			write(w, 0, 5)
			w.archive(0, after(5), 100)
			write(w, 5, 10)
			w.skip(l, 8)
			w.archive(0, after(20), 100)
		},
			timeline.Target{Time: after(6)}, events.KindNotFound, []string{l.String(), "offsets 5 to 7"}},
		"a backup that is not": {func(w *world) { write(w, 0, 5) }, timeline.Target{Backup: "20200101T000000.000Z-00000000"},
			events.KindNotFound, []string{"20200101T000000.000Z-00000000"}},
		"two targets": {func(*world) {}, timeline.Target{Backup: "x", Time: after(1)}, events.KindInvalid, []string{"one target"}},
		"the future":  {func(*world) {}, timeline.Target{Time: time.Now().Add(time.Hour)}, events.KindInvalid, []string{"not over yet"}},
		"ago, ahead":  {func(*world) {}, timeline.Target{Ago: -time.Hour}, events.KindInvalid, []string{"not over yet"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.make(w)
			_, err := read(t, w.bucket).Plan(t.Context(), timeline.Request{Target: c.target})
			wantKind(t, err, c.kind)
			for _, part := range c.parts {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

// begin has the archive of a log begin at an offset.
func (w *world) begin(l events.Log, next int64) {
	w.t.Helper()
	if err := w.builders[l.Partition].Begin(format.LogEnd{Log: l, Next: next, Chain: w.logs[l][next-1].chain}); err != nil {
		w.t.Fatal(err)
	}
}

// skip has the archive of a log go on at an offset.
func (w *world) skip(l events.Log, next int64) {
	w.t.Helper()
	if err := w.builders[l.Partition].Skip(format.LogEnd{Log: l, Next: next, Chain: w.logs[l][next-1].chain}, "they had expired"); err != nil {
		w.t.Fatal(err)
	}
}

// Where the archive goes on at a backup, times and offsets behind it are covered.
func TestBackupsBridgeGaps(t *testing.T) {
	w := newWorld(t)
	l := logsOf(0)[2]
	for i := range 8 {
		w.write(l, after(i), 0)
	}
	m := w.backup(after(9))
	w.begin(l, 8)
	w.archive(0, after(9), 100)
	for i := 10; i < 20; i++ {
		w.write(l, after(i), 0)
	}
	w.archive(0, after(20), 100)
	tl := read(t, w.bucket)
	for at, next := range map[int]int64{9: 8, 10: 9, 15: 14, 20: 18} {
		plan, err := tl.Plan(t.Context(), timeline.Request{Target: timeline.Target{Time: after(at)}})
		if err != nil || plan.Vector[l] != next || plan.Base != m.ID {
			t.Errorf("second %d: %+v, %v; want offset %d", at, plan, err, next)
		}
	}
}

// A segment that is missing or damaged is named.
func TestDamageIsNamed(t *testing.T) {
	w := long(t, 40)
	name := format.SegmentName(region, 0, 20)
	damages := map[string]func() error{
		"flipped": func() error { return w.bucket.Damage(name, func(b []byte) []byte { b[10] ^= 1; return b }) },
		"swapped": func() error {
			var other []byte
			err := w.bucket.Damage(format.SegmentName(region, 0, 21), func(b []byte) []byte { other = b; return b })
			return errors.Join(err, w.bucket.Damage(name, func([]byte) []byte { return other }))
		},
		"truncated": func() error { return w.bucket.Damage(name, func(b []byte) []byte { return b[:10] }) },
		"empty":     func() error { return w.bucket.Damage(name, func([]byte) []byte { return nil }) },
		"deleted":   func() error { return w.bucket.Delete(t.Context(), name) },
	}
	for _, damage := range []string{"flipped", "swapped", "truncated", "empty", "deleted"} {
		if err := damages[damage](); err != nil {
			t.Fatal(err)
		}
		_, err := read(t, w.bucket).Plan(t.Context(), timeline.Request{Target: timeline.Target{Time: after(30)}})
		if events.KindOf(err) != events.KindInconsistent || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("%s: %v", damage, err)
		}
	}
}

// Sealed segments are opened only if a time falls into the midst of one.
func TestPlansNeedKeysSeldom(t *testing.T) {
	w := newWorld(t)
	w.builders[0] = segment.NewBuilder(segment.Config{Region: region, Shard: 0, Software: "test", Sealer: sealer(t), Chain: chain}, nil)
	for i := range 10 {
		w.write(logsOf(0)[0], after(i), 0)
	}
	w.archive(0, after(10), 100)
	tl := read(t, w.bucket)
	if _, err := tl.Plan(t.Context(), timeline.Request{}); err != nil {
		t.Error(err)
	}
	_, err := tl.Plan(t.Context(), timeline.Request{Target: timeline.Target{Time: after(5)}})
	wantKind(t, err, events.KindNotFound)
	if !strings.Contains(err.Error(), "--identity") {
		t.Error(err)
	}
}

func sealer(t *testing.T) *seal.Sealer {
	t.Helper()
	var recipients []string
	for range 2 {
		_, recipient, err := seal.Generate(false, epoch)
		if err != nil {
			t.Fatal(err)
		}
		recipients = append(recipients, recipient)
	}
	s, err := seal.NewSealer(recipients)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// How fast a restore will be is no reason not to plan it: a report of the newest drill that is damaged, or
// of a newer version, is as good as none.
func TestPlansDespiteDrills(t *testing.T) {
	for name, text := range map[string]string{"damaged": "{}", "a newer version": `{"format":99}`} {
		w := newWorld(t)
		m := w.backup(after(1))
		if name != "damaged" {
			text = fmt.Sprintf("%s\nsha256:%x\n", text, sha256.Sum256([]byte(text)))
		}
		if err := w.bucket.Create(t.Context(), format.DrillName(region, m.ID), []byte(text)); err != nil {
			t.Fatal(err)
		}
		if plan, err := read(t, w.bucket).Plan(t.Context(), timeline.Request{}); err != nil || plan.Base != m.ID || plan.Rates != timeline.DefaultRates() {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
	}
}

// A delta whose parent was given up is listed and does not exist; nor does what was pruned after
// it was listed. Plans pass over both.
func TestPlansPassOverWhatDoesNotExist(t *testing.T) {
	w := newWorld(t)
	l := logsOf(0)[0]
	for i := range 6 {
		w.write(l, after(10*i), 0)
		w.archive(0, after(10*i+1), 100)
		w.backup(after(10*i + 2))
	}
	made := w.backups
	delta := *made[5]
	delta.ID, delta.Created, delta.Kind, delta.Parents = format.NewID(after(60), [4]byte{}), after(60), format.Delta, []string{made[1].ID}
	if err := catalog.Publish(t.Context(), w.bucket, &delta); err != nil {
		t.Fatal(err)
	}
	given := format.Plan{
		Format: 1, Region: region, Number: 1, Below: made[1].ID, Created: after(61), Software: "test", Owner: "test",
		Keep: []string{made[0].ID}, Delete: []string{made[1].ID},
	}
	text, err := given.Encode()
	if err == nil {
		err = w.bucket.Create(t.Context(), format.PlanName(region, 1), text)
	}
	if err != nil {
		t.Fatal(err)
	}
	plan := func(tl *timeline.Timeline, target timeline.Target, next int64, base *format.Manifest) {
		t.Helper()
		p, err := tl.Plan(t.Context(), timeline.Request{Target: target})
		if err != nil || p.Vector[l] != next || p.Base != base.ID {
			t.Errorf("%s: %+v, %v; want offset %d from backup %s", target, p, err, next, base.ID)
		}
	}
	plan(read(t, w.bucket), timeline.Target{}, 6, made[5])
	plan(read(t, w.bucket), timeline.Target{Time: after(45)}, 5, made[4])
	tl := read(t, w.bucket)
	for _, m := range made[3:5] {
		if err := w.bucket.Delete(t.Context(), format.ManifestName(region, m.ID)); err != nil {
			t.Fatal(err)
		}
	}
	plan(tl, timeline.Target{Time: after(45)}, 5, made[2])
	_, err = read(t, w.bucket).Plan(t.Context(), timeline.Request{Target: timeline.Target{Time: after(55)}})
	wantKind(t, err, events.KindNotFound) // nothing tells of the time since the archive's end
	later := w.backup(after(70))
	plan(read(t, w.bucket), timeline.Target{Time: after(55)}, 6, later)
}

// What a prune has left behind that was broken off is no part of the archive: it begins behind
// the hole, also for who wants records and no state.
func TestArchivedBeginsBehindTheHole(t *testing.T) {
	w := newWorld(t)
	for i := range 8 {
		for _, l := range allLogs() {
			w.write(l, after(10*i), 0)
		}
		for p := range int32(shards) {
			w.archive(p, after(10*i+5), 10)
		}
	}
	var bytes [shards]int64
	for p := range int32(shards) {
		all, _, err := segment.List(t.Context(), w.bucket, region, p)
		if err != nil || len(all) != 8 {
			t.Fatalf("%d segments, %v", len(all), err)
		}
		for _, number := range []int64{2, 3} {
			if err := w.bucket.Delete(t.Context(), format.SegmentName(region, p, number)); err != nil {
				t.Fatal(err)
			}
		}
		for _, at := range all[3:] {
			bytes[p] += at.Size
		}
	}
	tl, err := timeline.Read(t.Context(), w.bucket, nil, region, shards)
	if err != nil {
		t.Fatal(err)
	}
	vector, spans, err := tl.Archived(t.Context(), timeline.Request{}, func(events.Log) bool { return true })
	if err != nil || len(vector) != len(allLogs()) || len(spans) != shards {
		t.Fatalf("%s, %+v, %v", vector, spans, err)
	}
	for p, span := range spans {
		if span.First != 4 || span.Last != 8 || span.Bytes != bytes[p] {
			t.Errorf("%+v, want segments 4 to 8 of %d bytes", span, bytes[p])
		}
	}
}
