package pipeline_test

import (
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/disk"
)

// A restore of a backup that was made while the region had diverged is refused, though all that the region itself had is
// as it was; an operator can have it all the same. What was compared is in the report, and if nothing could be, that is.
func TestRestoreOfAWrongState(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		log, good := diverged(a, b, c)
		bad := c.backup().ID
		_, err := c.Restore(c.w.Context(), api.RestoreParams{Name: "bad", Backup: bad})
		wantKind(t, err, events.KindInconsistent, log.String(), "layer fold", "--accept-diverged")
		_, err = c.restore("newest")
		wantKind(t, err, events.KindInconsistent, log.String())
		if left := c.below("restores"); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
		taken, err := c.Restore(c.w.Context(), api.RestoreParams{Name: "bad", Backup: bad, AcceptDiverged: true})
		if err != nil || taken.Attested == nil || len(taken.Attested.Differs) != 1 || taken.Attested.Differs[0].Log != log || !strings.Contains(taken.Text(), "DIFFERS: "+log.String()) {
			t.Errorf("%+v, %v", taken, err)
		}
		whole, err := c.Restore(c.w.Context(), api.RestoreParams{Name: "good", Backup: good})
		if err != nil {
			t.Fatal(err)
		}
		if g := whole.Attested; g == nil || len(g.Agrees) != 2 || len(g.Differs) > 0 || len(g.Equal) == 0 || !strings.Contains(whole.Text(), "agrees with 2 of 2 regions") {
			t.Fatalf("%+v: %s", g, whole.Text())
		}
		for _, m := range whole.Attested.Equal {
			for _, st := range whole.States {
				if st.Log == m.Log && st.Next == m.Mark.Next && st.Digest != m.Mark.Digest {
					t.Errorf("%+v is told to be equal to %+v", m, st)
				}
			}
		}
		noted := &api.Restored{}
		if there, err := disk.ReadNote(c.disk, whole.Dir+"/"+pipeline.RestoreReport, noted); err != nil || !there || len(noted.Attested.Equal) != len(whole.Attested.Equal) {
			t.Errorf("the report: %+v, %v", noted.Attested, err)
		}
		c.stop()
		c.restoresElsewhere(bad, good, log)
	})
}

// restoresElsewhere is TestRestoreOfAWrongState without the node, and then without Kafka.
func (r *region) restoresElsewhere(bad, good string, log events.Log) {
	t := r.w.T
	opts, err := r.cfg.KafkaOpts(r.cfg.Region, r.opts...)
	if err != nil {
		t.Fatal(err)
	}
	job := r.job()
	job.Compare, job.KafkaOpts, job.Keep = true, opts, true
	job.Dir, job.Request.Backup = "instant", bad
	_, err = pipeline.RestoreInPlace(r.w.Context(), job)
	wantKind(t, err, events.KindInconsistent, log.String(), "--accept-diverged")
	job.AcceptDiverged = true
	if done, err := pipeline.RestoreInPlace(r.w.Context(), job); err != nil || len(done.Attested.Differs) != 1 || done.Attested.Differs[0].Log != log {
		t.Errorf("%+v, %v", done, err)
	}
	r.down()
	job.Dir, job.Request.Backup, job.AcceptDiverged = "without", good, false
	restored, err := pipeline.Restore(r.w.Context(), job)
	if err != nil || restored.Attested != nil || restored.Unattested == "" || !strings.Contains(restored.Text(), "is unknown: ") {
		t.Errorf("%+v, %v", restored, err)
	}
}

// Where there is no other region nothing is said to be attested.
func TestRestoreUnattested(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		r.backup()
		restored, err := r.restore("x")
		if err != nil || restored.Attested != nil || !strings.Contains(restored.AttestedText(), "no other region") {
			t.Fatalf("%+v, %v", restored, err)
		}
		if text := restored.Text(); strings.Contains(text, "compared     0") || !strings.Contains(text, "attested it is unknown: no other region") {
			t.Errorf("%s", text)
		}
	})
}
