package pipeline_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// anyPast is a random history: values, deletes and records that are no events in the logs
// of three regions, folded and archived in any pieces, with backups in between.
func anyPast(t *rapid.T, p *past) (end int) {
	logs := allPastLogs()
	for range rapid.IntRange(1, 50).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"write", "write", "write", "fold", "archive", "archive", "backup", "wait"}).Draw(t, "step") {
		case "write":
			for range rapid.IntRange(1, 4).Draw(t, "records") {
				l := rapid.SampledFrom(logs).Draw(t, "log")
				r := &kgo.Record{Timestamp: second(end + rapid.SampledFrom([]int{0, 0, 0, -20, 5, 50}).Draw(t, "clock"))}
				key := fmt.Sprint(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key"), l.Partition)
				switch rapid.IntRange(0, 7).Draw(t, "what") {
				case 0: // no key: it is parked
					r.Value = []byte("x")
				case 1: // a delete
					r.Key = []byte(key)
				default:
					r.Key, r.Value = []byte(key), []byte(fmt.Sprint("value-", rapid.IntRange(0, 99).Draw(t, "value")))
				}
				p.write(l, r, rapid.SampledFrom([]int64{0, 0, 0, 1}).Draw(t, "skipped"))
			}
		case "fold":
			p.fold(rapid.Int32Range(0, pastShards-1).Draw(t, "shard"))
		case "archive":
			p.archive(rapid.Int32Range(0, pastShards-1).Draw(t, "shard"), second(end), rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "most"))
		case "backup":
			end++ // ids sort by time
			p.backup(second(end))
		case "wait":
			end += rapid.IntRange(1, 10).Draw(t, "seconds")
		}
	}
	return end
}

// Whatever a region has been through, and whatever point is asked for: what is restored
// is exactly what a plain fold of the records below it gives, and the report is true.
func TestAnyPointIsRestored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPast(t)
		defer p.close()
		end := anyPast(t, p)
		fs := vfs.NewMem()
		newest, err := pipeline.PlanRestore(t.Context(), p.job(fs, timeline.Target{}))
		if err != nil {
			if events.KindOf(err) != events.KindNotFound {
				t.Fatal(err)
			}
			return
		}
		target, want := anyTarget(t, p, newest.Vector, end)
		job := p.job(fs, target)
		restored, err := pipeline.Restore(t.Context(), job)
		if events.KindOf(err) == events.KindNotFound { // what only backups have cannot be had anywhere else
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if want != nil && restored.Vector.Compare(want) != events.Equal {
			t.Fatalf("%s is the vector\n%s, want\n%s", target, restored.Vector, want)
		}
		if err := p.is(fs, job.Dir, restored.Vector); err != nil {
			t.Fatalf("%s from backup %q: %v", target, restored.Backup, err)
		}
		p.reported(t, fs, job.Dir, restored)
	})
}

// anyTarget is a point at or below what there is, and the vector that it is; nil: any.
func anyTarget(t *rapid.T, p *past, newest events.Vector, end int) (target timeline.Target, want events.Vector) {
	switch rapid.SampledFrom([]string{"newest", "vector", "offsets", "time"}).Draw(t, "target") {
	case "newest":
		return target, newest
	case "time":
		target.Time = second(rapid.IntRange(0, end).Draw(t, "at"))
		return target, p.cameAll(t, target.Time, newest)
	}
	v := events.Vector{}
	for _, pos := range newest.Positions() {
		if rapid.Bool().Draw(t, "named") {
			v[pos.Log] = rapid.Int64Range(1, pos.Offset).Draw(t, "offset")
		}
	}
	if len(v) == 0 {
		return target, newest
	}
	if rapid.Bool().Draw(t, "only") {
		return timeline.Target{Vector: v}, v
	}
	want = newest.Clone()
	for l, next := range v {
		want[l] = next
	}
	return timeline.Target{Offsets: v}, want
}

// cameAll is where a time cuts all logs; nil if backups hold what is not archived.
func (p *past) cameAll(t *rapid.T, at time.Time, newest events.Vector) events.Vector {
	v := events.Vector{}
	for l := range newest {
		next, err := p.came(l, at)
		if err != nil {
			t.Fatal(err)
		}
		if all, err := p.came(l, second(1_000_000)); err != nil || all < newest[l] {
			return nil
		}
		if next > 0 {
			v[l] = next
		}
	}
	return v
}

// reported makes sure that a report says what is at rest, and notices if it does not.
func (p *past) reported(t *rapid.T, fs vfs.FS, dir string, restored *api.Restored) {
	proof, err := pipeline.ProveRestored(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(proof)
	want, _ := json.Marshal(restored)
	if string(got) != string(want) {
		t.Fatalf("report\n%s\nwant\n%s", got, want)
	}
	replayed := int64(0)
	for l := range restored.Vector {
		replayed += int64(len(p.records(l, restored.Vector[l])) - len(p.records(l, restored.From[l])))
	}
	if restored.Replayed.Records != replayed || replayed > 0 && restored.Replayed.Chains == 0 {
		t.Fatalf("%+v, want %d records", restored.Replayed, replayed)
	}
	if len(restored.States) == 0 {
		return
	}
	restored.States[0].Digest[3]++
	text, _ := json.Marshal(restored)
	f, err := fs.Create(dir+"/"+pipeline.RestoreReport, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(text)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := pipeline.ProveRestored(fs, dir); events.KindOf(err) != events.KindInconsistent {
		t.Fatalf("with another digest: %v", err)
	}
}

// some is a fixed past: a backup after 10 records of each log, and 30 more in segments of
// 3 records of each log.
func some(t testing.TB) *past {
	p := newPast(t)
	n := 0
	write := func(records int) {
		for range records {
			for _, l := range allPastLogs() {
				p.put(l, fmt.Sprint("key-", n%11), fmt.Sprint("value-", n), second(n))
				n++
			}
		}
	}
	both := func(do func(shard int32)) {
		for shard := range int32(pastShards) {
			do(shard)
		}
	}
	write(10)
	both(p.fold)
	both(func(shard int32) { p.archive(shard, second(n), 1000) })
	p.backup(second(n))
	for range 10 {
		write(3)
		both(p.fold)
		both(func(shard int32) { p.archive(shard, second(n), 1000) })
	}
	return p
}

// Every damage to every segment that a restore needs is refused, and the object named.
func TestDamagedSegmentsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := some(t)
		defer p.close()
		whole := map[string][]byte{}
		for shard := range int32(pastShards) {
			for n := int64(1); n <= 11; n++ {
				name := format.SegmentName(us, shard, n)
				if err := p.bucket.Damage(name, func(b []byte) []byte { whole[name] = slices.Clone(b); return b }); err != nil {
					t.Fatal(err)
				}
			}
		}
		other := format.SegmentName(us, 1, 5)
		for what, damage := range map[string]func(b []byte) []byte{
			"first byte flipped": func(b []byte) []byte { b[0] ^= 1; return b },
			"in the header":      func(b []byte) []byte { b[100] ^= 4; return b },
			"last byte flipped":  func(b []byte) []byte { b[len(b)-1] ^= 128; return b },
			"truncated":          func(b []byte) []byte { return b[:len(b)-1] },
			"cut in half":        func(b []byte) []byte { return b[:len(b)/2] },
			"empty":              func([]byte) []byte { return nil },
			"extended":           func(b []byte) []byte { return append(b, 0) },
			"swapped":            func([]byte) []byte { return slices.Clone(whole[other]) },
		} {
			for _, n := range []int64{2, 7, 11} {
				name := format.SegmentName(us, 0, n)
				if err := p.bucket.Damage(name, func(b []byte) []byte { return damage(slices.Clone(b)) }); err != nil {
					t.Fatal(err)
				}
				fs := vfs.NewMem()
				restored, err := pipeline.Restore(t.Context(), p.job(fs, timeline.Target{}))
				if events.KindOf(err) != events.KindInconsistent || restored != nil || !strings.Contains(err.Error(), name) {
					t.Errorf("%s, segment %d: %v, %v", what, n, restored, err)
				}
				if names, err := fs.List("/restored"); err == nil && len(names) > 0 {
					t.Errorf("%s, segment %d: left over: %v", what, n, names)
				}
				if err := p.bucket.Damage(name, func([]byte) []byte { return slices.Clone(whole[name]) }); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := pipeline.Restore(t.Context(), p.job(vfs.NewMem(), timeline.Target{})); err != nil {
			t.Error(err)
		}
	})
}

// A region that had made something else of its records than a restore makes now is told,
// with log, offset, object and both sides.
func TestOtherDigestsAreRefused(t *testing.T) {
	p := newPast(t)
	defer p.close()
	l := pastLogs(0)[0]
	for i := range 5 {
		p.put(l, "key", fmt.Sprint(i), second(i))
	}
	p.fold(0)
	// The archive is of other records than the region has folded, but for the chain.
	b := p.builders[0]
	if err := b.Begin(format.LogEnd{Log: l}); err != nil {
		t.Fatal(err)
	}
	for _, r := range p.logs[l] {
		if err := b.Add(l, r); err != nil {
			t.Fatal(err)
		}
	}
	p.closeWith(0, second(9), func(l events.Log, next int64) (events.Mark, bool) {
		m, err := p.shards[0].At(l, next)
		m.Digest[5] ^= 1
		return m, err == nil
	})
	_, err := pipeline.Restore(t.Context(), p.job(vfs.NewMem(), timeline.Target{}))
	var differs *restore.MarkError
	if events.KindOf(err) != events.KindInconsistent || !errors.As(err, &differs) || differs.Log != l || differs.Want.Next != 5 {
		t.Fatal(err)
	}
	for _, part := range []string{l.String(), "offset 5", format.SegmentName(us, 0, 1), differs.Want.Digest.String(), differs.Found.Digest.String(), differs.Want.Chain.String()} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %s", err, part)
		}
	}
}

// What the configuration has no place for is refused before anything is fetched.
func TestPointRefused(t *testing.T) {
	p := some(t)
	defer p.close()
	delete(p.cfg.Streams, "config")
	_, err := pipeline.Restore(t.Context(), p.job(vfs.NewMem(), timeline.Target{}))
	wantKind(t, err, events.KindRefused, "stream config")
	p.cfg.Streams["config"] = p.cfg.Streams["session"]
	job := p.job(vfs.NewMem(), timeline.Target{})
	job.Request.Shards = []int32{2}
	_, err = pipeline.Restore(t.Context(), job)
	wantKind(t, err, events.KindInvalid, "no shard 2", "2")
}

// Some shards and some streams are restored as if there were no others.
func TestSubsets(t *testing.T) {
	p := some(t)
	defer p.close()
	fs := vfs.NewMem()
	job := p.job(fs, timeline.Target{Time: second(200)})
	job.Request.Shards, job.Request.Streams = []int32{1}, []events.Stream{"session"}
	restored, err := pipeline.Restore(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if len(restored.States) != len(pastRegions) {
		t.Errorf("there are %v", restored.States)
	}
	for _, st := range restored.States {
		records := p.records(st.Log, restored.Vector[st.Log])
		if st.Log.Stream != "session" || st.Log.Partition != 1 || st.Chain != chainOver(records) || st.Events != int64(len(records)) || len(records) < 11 {
			t.Errorf("%+v", st)
		}
	}
	names, err := fs.List(job.Dir)
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"restore-report.json", "restore-report.txt", "shard-0001"}) {
		t.Errorf("there is %v, %v", names, err)
	}
	if _, err := pipeline.ProveRestored(fs, job.Dir); err != nil {
		t.Error(err)
	}
}

// The text beside the state says what was done.
func TestReportForPeople(t *testing.T) {
	p := some(t)
	defer p.close()
	fs := vfs.NewMem()
	job := p.job(fs, timeline.Target{Time: second(200)})
	restored, err := pipeline.Restore(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fs.Open(job.Dir + "/restore-report.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	for _, part := range []string{"time 2020-11-26T12:03:20Z", restored.Vector.String(), restored.Backup, restored.Digest.String(), restored.Lineage} {
		if err != nil || !strings.Contains(string(text), part) {
			t.Errorf("%s\ndoes not say %s, %v", text, part, err)
		}
	}
}

// The newest backup was made before one of its shards had caught up, and holds of the other what is not
// archived yet: no segments lead from it to all there is, nor from the one before. The newest point is then what is
// archived, and the plan says what is left out.
func TestNewestPointBehindABackupOfTooLittle(t *testing.T) {
	p := newPast(t)
	defer p.close()
	n := 0
	write := func(archived bool) {
		for _, l := range allPastLogs() {
			p.put(l, fmt.Sprint("key-", n%11), fmt.Sprint("value-", n), second(n))
			n++
		}
		for shard := range int32(pastShards) {
			if p.fold(shard); archived {
				p.archive(shard, second(n), 1000)
			}
		}
	}
	write(true)
	write(true)
	whole := p.backup(second(n))
	for shard := range int32(pastShards) { // as a prune does
		if err := p.bucket.Delete(t.Context(), format.SegmentName(us, shard, 1)); err != nil {
			t.Fatal(err)
		}
	}
	write(true)
	archived := events.Vector{}
	for _, l := range allPastLogs() {
		archived[l] = 3
	}
	write(false)
	other := newPast(t)
	defer other.close()
	p.shards[1], other.shards[1] = other.shards[1], p.shards[1]
	behind := p.backup(second(n))

	fs := vfs.NewMem()
	job := p.job(fs, timeline.Target{})
	plan, err := pipeline.PlanRestore(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Base != whole.ID || plan.Vector.Compare(archived) != events.Equal {
		t.Errorf("from %s to %s, want from %s to %s (there is %s too)", plan.Base, plan.Vector, whole.ID, archived, behind.ID)
	}
	if lacks := strings.Join(plan.Lacks, "\n"); !strings.Contains(lacks, pastLogs(0)[0].String()+": offsets 3 to 3") || strings.Contains(lacks, pastLogs(1)[0].String()) {
		t.Errorf("lacks: %s", lacks)
	}
	restored, err := pipeline.Restore(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.is(fs, job.Dir, restored.Vector); err != nil {
		t.Error(err)
	}
}
