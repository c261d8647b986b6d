package pipeline_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// aPass is after which time there was another pass.
const aPass = 66 * time.Minute

// samples is a region that samples so many objects an hour, each of less than 64 KiB.
func samples(r *region, hourly int64) *objstore.Memory {
	r.cfg.Backup.SampleBytesPerDay = 24 * hourly * (64 << 10)
	return r.bucket.(*objstore.Memory)
}

func (r *region) sample() *api.SampleStatus {
	r.w.Helper()
	s := r.status().Backup
	if s == nil || s.Sample == nil || s.Sample.Never == nil {
		r.w.Fatalf("nothing is sampled: %+v", s)
	}
	return s.Sample
}

func (r *region) someTable() string {
	r.w.Helper()
	for t := range r.newest().Tables() {
		return t.Name
	}
	r.w.Fatal("no table")
	return ""
}

func flipIn(t *testing.T, bucket *objstore.Memory, name string) {
	t.Helper()
	if err := bucket.Damage(name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
		t.Fatal(err)
	}
}

// Damage that nothing reads is found, named and told, also over a restart, and until it is mended.
func TestSamplesFindDamage(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Schedule.Segment = 10 * time.Second
		bucket := samples(r, 1000)
		filled(r)
		r.backup()
		time.Sleep(aPass)
		if s := r.sample(); *s.Never != 0 || *s.Objects < 5 || len(s.Damaged) > 0 || s.Error != "" || s.Oldest == nil || time.Since(*s.Newest) > 2*time.Hour {
			t.Errorf("%+v", s)
		}
		if s := r.status(); len(s.Problems) > 0 {
			t.Errorf("problems: %q", s.Problems)
		}
		table := r.someTable()
		flipIn(t, bucket, table)
		time.Sleep(aPass)
		told := func(when string) {
			t.Helper()
			s := r.status()
			if d := s.Backup.Sample.Damaged; len(d) != 1 || d[0].Object != table || !strings.Contains(d[0].Error, "SHA-256") && !strings.Contains(d[0].Error, "damaged") {
				t.Errorf("%s: %+v", when, d)
			}
			if !strings.Contains(strings.Join(s.Problems, "\n"), table) || r.gauge("evenkeel_backup_sampled_damaged", "") != 1 {
				t.Errorf("%s: problems %q", when, s.Problems)
			}
		}
		told("after it was damaged")
		if n := r.gauge("evenkeel_backup_sampled_objects_total", "damaged"); n < 1 || !strings.Contains(r.log.String(), "object="+table) {
			t.Errorf("%f damaged objects are counted", n)
		}
		r.away(time.Minute)
		time.Sleep(6 * time.Minute)
		told("after a restart")
		flipIn(t, bucket, table)
		time.Sleep(aPass)
		if s := r.status(); len(s.Backup.Sample.Damaged) > 0 || len(s.Problems) > 0 {
			t.Errorf("after it was mended: %+v, %q", s.Backup.Sample, s.Problems)
		}

		if err := bucket.Delete(r.w.Context(), table); err != nil {
			t.Fatal(err)
		}
		time.Sleep(aPass)
		if d := r.sample().Damaged; len(d) != 1 || d[0].Object != table || !strings.Contains(d[0].Error, "missing") {
			t.Errorf("a table is missing: %+v", d)
		}
	})
}

// A budget is kept, what was never looked at comes first, and a node that is started again goes on where it was.
func TestSamplesKeepTheirBudget(t *testing.T) {
	one(t, func(r *region) {
		samples(r, 4)
		filled(r)
		for range 5 {
			r.backup()
			time.Sleep(time.Second)
		}
		looked := func() int { return int(r.gauge("evenkeel_backup_sampled_objects_total", "ok")) }
		time.Sleep(130 * time.Minute) // three passes
		s := r.sample()
		all, first := *s.Objects, looked()
		if all < 20 || first < 8 || first > 12 || *s.Never != all-first {
			t.Errorf("in three passes %d objects were looked at, of %d; %d never", first, all, *s.Never)
		}
		for range 5 { // killed again and again
			r.away(6 * time.Minute)
		}
		time.Sleep(6 * time.Minute)
		if n, never := looked(), *r.sample().Never; n > 4 || never < all-first-4 || never > all-first {
			t.Errorf("%d more were looked at within an hour; %d never", n, never)
		}
		for range 2 {
			time.Sleep(aPass)
			before, never := looked(), *r.sample().Never
			time.Sleep(aPass)
			if n := looked() - before; n < 4 || n > 8 || *r.sample().Never != max(0, never-n) {
				t.Errorf("in an hour %d objects were looked at; %d never, before %d", n, *r.sample().Never, never)
			}
		}
		for range (*r.sample().Never + 3) / 4 {
			time.Sleep(aPass)
		}
		if s := r.sample(); *s.Never != 0 || *s.Objects != all || time.Since(*s.Oldest) > 24*time.Hour {
			t.Errorf("later: %+v", s)
		}
		r.away(48 * time.Hour)
		time.Sleep(6 * time.Minute)
		if n := looked(); n < 4 || n > 12 {
			t.Errorf("right after two days away %d objects were looked at", n)
		}
	})
}

// Without an identity hashes are looked at.
func TestSamplesWithoutIdentity(t *testing.T) {
	one(t, func(r *region) {
		bucket := samples(r, 1000)
		r.cfg.Backup.IdentityEnv, r.cfg.Backup.Identity = "", ""
		filled(r)
		r.backup()
		table := r.someTable()
		time.Sleep(aPass)
		if s := r.sample(); *s.Never != 0 || len(s.Damaged) > 0 || s.Error != "" {
			t.Errorf("%+v", s)
		}
		flipIn(t, bucket, table)
		time.Sleep(aPass)
		if d := r.sample().Damaged; len(d) != 1 || d[0].Object != table {
			t.Errorf("%+v", d)
		}
	})
}

// A bucket that is away is no damage; a note that cannot be read is begun anew; without a budget nothing is looked at.
func TestSamplesThatCannotBe(t *testing.T) {
	one(t, func(r *region) {
		faulty := faults.New(r.bucket)
		samples(r, 1000)
		r.bucket = faulty
		filled(r)
		r.backup()
		time.Sleep(aPass)
		faulty.SetRules(faults.Rule{Ops: []string{objstore.OpGet}, Name: "*/tables/*", Effect: faults.FailBefore})
		time.Sleep(aPass)
		if s := r.sample(); len(s.Damaged) > 0 || s.Error == "" || !strings.Contains(strings.Join(r.status().Problems, "\n"), "cannot be looked at") {
			t.Errorf("%+v", s)
		}
		faulty.SetRules()
		time.Sleep(aPass)
		if s := r.sample(); s.Error != "" || len(r.status().Problems) > 0 {
			t.Errorf("%+v, %q", s, r.status().Problems)
		}

		r.stop()
		note, err := r.disk.Create(filepath.Join(dataDir, "sample.json"), "unspecified")
		if err == nil {
			_, err = fmt.Fprint(note, "{")
		}
		if err != nil || note.Close() != nil {
			t.Fatal(err)
		}
		r.start()
		time.Sleep(aPass)
		if s := r.sample(); *s.Never != 0 || s.Error != "" {
			t.Errorf("%+v", s)
		}

		r.stop()
		r.cfg.Backup.SampleBytesPerDay = 0
		r.start()
		time.Sleep(aPass)
		if s := r.status().Backup.Sample; s != nil || r.gauge("evenkeel_backup_sampled_bytes_total", "") != 0 || !math.IsNaN(r.gauge("evenkeel_backup_sampled_age_seconds", "")) {
			t.Errorf("%+v", s)
		}
	})
}

// What is missing is told within five hours, by its name, though nothing reads it and it is nobody's turn; not by one listing that
// lacks it, and not if a prune has deleted it.
func TestSamplesFindWhatIsMissing(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		b := r.cfg.Backup
		b.Schedule.Segment, b.Keep.Segment, b.Keep.Full = 10*time.Second, 48*time.Hour, 48*time.Hour
		bucket := samples(r, 4)
		filled(r)
		var ids []string
		for i := range 3 {
			at := r.put("k", fmt.Sprint(i))
			r.archived(at.Log, at.Offset+1)
			ids = append(ids, r.backup().ID)
			time.Sleep(time.Second)
		}
		at := r.put("k", "later")
		r.archived(at.Log, at.Offset+1)
		newest, err := segment.Newest(r.w.Context(), bucket, us, at.Partition)
		if err != nil {
			t.Fatal(err)
		}
		lost := format.SegmentName(us, at.Partition, newest.Number)
		at = r.put("k", "last")
		r.archived(at.Log, at.Offset+1)
		const within = 5 * time.Hour
		time.Sleep(aPass)
		if s := r.sample(); len(s.Damaged) > 0 || s.Listed == nil || time.Since(*s.Listed) > within {
			t.Fatalf("nothing is missing: %+v", s)
		}
		told := func(when string, want ...string) {
			t.Helper()
			var got []string
			for _, d := range r.sample().Damaged {
				got = append(got, d.Object)
			}
			problems := strings.Join(r.status().Problems, "\n")
			if !slices.Equal(got, want) || r.gauge("evenkeel_backup_sampled_damaged", "") != float64(len(want)) || len(want) > 0 && !strings.Contains(problems, want[0]) {
				t.Errorf("%s: told %q, want %q; %s", when, got, want, problems)
			}
		}
		manifest := format.ManifestName(us, ids[2])
		bodies := map[string][]byte{}
		for _, object := range []string{manifest, lost} {
			body, err := objstore.ReadAll(r.w.Context(), bucket, object, 1<<20)
			if err == nil {
				err = bucket.Lose(object)
			}
			if err != nil {
				t.Fatal(err)
			}
			bodies[object] = body
		}
		time.Sleep(within)
		told("a manifest and a segment are gone", manifest, lost)
		r.away(time.Minute)
		time.Sleep(6 * time.Minute)
		told("after a restart", manifest, lost)
		for object, body := range bodies {
			if err := bucket.Create(r.w.Context(), object, body); err != nil {
				t.Fatal(err)
			}
		}
		r.away(within)
		time.Sleep(6 * time.Minute)
		told("all is there again")
		if problems := r.status().Problems; len(problems) > 0 {
			t.Errorf("%q", problems)
		}
	})
}
