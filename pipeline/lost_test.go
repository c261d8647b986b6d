package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/refill"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// resumes lets a link go on with a topic that was made anew.
func (r *region) resumes(origin events.Region, topic, from string) {
	r.w.Helper()
	r.await(topic+" of "+origin.String()+" resumed", func() error {
		d, err := r.ShowLink(r.w.Context(), api.ShowLinkParams{Origin: origin.String(), Topic: topic})
		if err != nil {
			return err
		}
		for _, p := range d.Partitions {
			if p.State != replicator.SourceRecreated {
				return fmt.Errorf("partition %d is %s: %s", p.Partition, p.State, p.Reason)
			}
		}
		_, err = r.ResumeLink(r.w.Context(), api.ResumeLinkParams{Origin: origin.String(), Topic: topic, Partition: replicator.All, From: from})
		return err
	})
}

// agree waits until regions stand at one vector with one digest, behind what was written.
func agree(regions ...*region) {
	first := regions[0]
	first.w.Helper()
	first.await("all regions hold the same", func() error {
		want := first.status()
		for _, r := range regions {
			lag, err := r.Lag(r.w.Context())
			if err != nil {
				return err
			}
			got := r.status()
			if lag.Behind() != "0" || got.Vector().Compare(want.Vector()) != events.Equal {
				return fmt.Errorf("%s is behind: %s, problems %q", r.cfg.Region, lag.Behind(), got.Problems)
			}
			if *got.Digest != *want.Digest {
				first.w.Fatalf("%s and %s stand at one vector with digests %s and %s", first.cfg.Region, r.cfg.Region, want.Digest, got.Digest)
			}
		}
		return nil
	})
}

// A region of three loses its disk and its Kafka. Its log comes back out of its bucket, and its mirrors
// over its links; the fold, which is further than these, waits for them. The others' links
// go on with the same log, and can still translate, and so verify, all that they have
// mirrored.
func TestRegionIsLost(t *testing.T) {
	long(t)
	for name, instant := range map[string]bool{"fetched": false, "in place": true} {
		t.Run(name, func(t *testing.T) { regionIsLost(t, instant) })
	}
}

// wholeArchive waits until all that a region has folded is archived.
func (r *region) wholeArchive() {
	r.w.Helper()
	for l, next := range r.status().Vector() {
		r.archived(l, next)
	}
}

func regionIsLost(t *testing.T, instant bool) {
	simulate(t, func(w *world) {
		all, a, b, c := w.regions, w.regions[0], w.regions[1], w.regions[2]
		for _, r := range all {
			archives(r)
			r.start()
		}
		for range 3 { // the region's shards have been claimed more than once
			a.stop()
			a.start()
		}
		for i := range 30 {
			for _, r := range all {
				r.put(fmt.Sprintf("key-%d", i%11), fmt.Sprintf("%s %d", r.cfg.Region, i))
			}
			if i == 15 && instant {
				agree(all...)
				a.wholeArchive()
				a.backup()
			}
		}
		agree(all...)
		a.wholeArchive()
		a.lose()
		if _, err := refill.Run(w.Context(), a.refillJob()); err != nil {
			t.Fatal(err)
		}
		if instant {
			if _, err := pipeline.RestoreInPlace(w.Context(), a.job()); err != nil {
				t.Fatal(err)
			}
		} else if _, err := pipeline.Restore(w.Context(), a.job()); err != nil {
			t.Fatal(err)
		}
		if err := a.tryStart(); err != nil {
			t.Fatal(err)
		}
		a.await("ready", func() error { return a.Ready(w.Context()) })
		for _, r := range []*region{b, c} {
			r.resumes(a.cfg.Region, "session", "same")
			r.resumes(a.cfg.Region, "config", "same")
			r.resumes(a.cfg.Region, divergence.Topic, "earliest")
		}
		for i := range 10 {
			for _, r := range all {
				r.put(fmt.Sprintf("key-%d", i), fmt.Sprintf("%s again %d", r.cfg.Region, i))
			}
		}
		agree(all...)
		time.Sleep(time.Minute)
		for _, r := range all {
			if problems := r.status().Problems; len(problems) > 0 {
				t.Errorf("%s: problems %q", r.cfg.Region, problems)
			}
			r.consistent()
			for _, other := range all {
				if other == r {
					continue
				}
				for p := range int32(partitions) {
					v, err := r.VerifyLink(w.Context(), api.VerifyLinkParams{Origin: other.cfg.Region.String(), Topic: "session", Partition: p})
					if err != nil || v.Difference != nil || v.Expired > 0 || v.Next != v.End || v.End == 0 {
						t.Errorf("%s: mirror of %s, partition %d: %+v, %v", r.cfg.Region, other.cfg.Region, p, v, err)
					}
				}
			}
		}
	}, us, eu, west)
}
