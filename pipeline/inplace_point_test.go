package pipeline_test

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// inPlaceIs opens a state that was restored in place and makes sure that it holds exactly
// what was below a vector, at once, and again when all of it is here and proved.
func (p *past) inPlaceIs(job pipeline.RestoreJob, v events.Vector) error {
	var shards []*projections.Shard
	for n := range int32(pastShards) {
		s, err := pipeline.OpenShard(job, n)
		if err != nil {
			return err
		}
		defer s.Close()
		if s.InPlace() == nil {
			return fmt.Errorf("shard %d is here already", n)
		}
		shards = append(shards, s)
	}
	for _, when := range []string{"in place", "when it is here"} {
		for _, stream := range pastStreams {
			got := map[string]string{}
			for e, err := range projections.Scan(shards, stream, "", "") {
				if err != nil {
					return err
				}
				got[e.Key] = string(e.Value)
			}
			if want := p.naive(stream, v); !maps.Equal(got, want) {
				return fmt.Errorf("%s, stream %s: %v, want %v at %s", when, stream, got, want, v)
			}
		}
		for _, s := range shards {
			for _, st := range s.Logs() {
				if want := p.records(st.Log, v[st.Log]); st.Chain != chainOver(want) {
					return fmt.Errorf("%s, %s: %+v, want %d records below offset %d", when, st.Log, st, len(want), v[st.Log])
				}
			}
			if err := s.Hydrate(context.Background()); err != nil {
				return err
			}
			if s.InPlace() != nil {
				return fmt.Errorf("shard %d is not here", s.Partition())
			}
		}
	}
	return nil
}

// Whatever a region has been through, and whatever point is asked for: a state that is
// served out of the bucket at once is what a plain fold of the records below the point
// gives, before it is here and afterwards.
func TestAnyPointIsServedInPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPast(t)
		defer p.close()
		end := anyPast(t, p)
		newest, err := pipeline.PlanRestore(t.Context(), p.job(vfs.NewMem(), timeline.Target{}))
		if err != nil {
			return // there is nothing
		}
		target, want := anyTarget(t, p, newest.Vector, end)
		job := p.job(vfs.NewMem(), target)
		done, err := pipeline.RestoreInPlace(t.Context(), job)
		switch events.KindOf(err) {
		case events.KindNotFound, events.KindRefused: // it is not archived, or no backup is at or before it
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if want != nil && done.Plan.Vector.Compare(want) != events.Equal {
			t.Fatalf("%s is the vector\n%s, want\n%s", target, done.Plan.Vector, want)
		}
		if err := p.inPlaceIs(job, done.Plan.Vector); err != nil {
			t.Fatalf("%s from backup %q: %v", target, done.Plan.Base, err)
		}
	})
}

// A replay on top of what lies in the bucket reads no more of it than the keys of the
// records need, compares what the region itself had made of them, and leaves the backup
// held until a node has it.
func TestPointInPlace(t *testing.T) {
	p := some(t)
	defer p.close()
	job := p.job(vfs.NewMem(), timeline.Target{Time: second(300)})
	fetched := int64(0)
	job.Fetched = func(bytes int64) { fetched += bytes }
	done, err := pipeline.RestoreInPlace(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if done.Replayed.Records == 0 || done.Replayed.Marks == 0 || done.Replayed.Chains == 0 || done.Bytes == 0 || fetched == 0 {
		t.Errorf("%+v, %d bytes fetched", done, fetched)
	}
	pins, err := catalog.Pins(t.Context(), p.bucket, us)
	if err != nil || len(pins) != 1 || pins[0].Backup != done.Plan.Base {
		t.Errorf("%+v, %v", pins, err)
	}
	if err := p.inPlaceIs(job, done.Plan.Vector); err != nil {
		t.Error(err)
	}
}

// What cannot be served in place is refused, and nothing is left behind.
func TestPointInPlaceRefused(t *testing.T) {
	long(t)
	p := some(t)
	defer p.close()
	for name, c := range map[string]struct {
		request timeline.Request
		harm    func() error
		kind    events.Kind
		says    string
	}{
		"streams":          {timeline.Request{Streams: []events.Stream{"session"}}, nil, events.KindRefused, "--streams"},
		"shards":           {timeline.Request{Shards: []int32{1}}, nil, events.KindRefused, "--shards"},
		"before a backup":  {timeline.Request{Target: timeline.Target{Vector: events.Vector{pastLogs(0)[0]: 3}}}, nil, events.KindRefused, "no backup is at or before it"},
		"a damaged record": {timeline.Request{}, func() error { return p.bucket.Damage(format.SegmentName(us, 1, 9), flipLast) }, events.KindInconsistent, format.SegmentName(us, 1, 9)},
	} {
		job := p.job(vfs.NewMem(), timeline.Target{})
		job.Request = c.request
		if c.harm != nil {
			if err := c.harm(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := pipeline.RestoreInPlace(t.Context(), job)
		wantKind(t, err, c.kind, c.says)
		if names, err := job.FS.List("/restored"); err == nil && len(names) > 0 {
			t.Errorf("%s: left over: %v", name, names)
		}
	}
}

func flipLast(b []byte) []byte { b[len(b)-1] ^= 1; return b }

// A backup as it is, with nothing to be folded on top, is looked at once when it is restored
// in place: at the beginning of each shard. Opening the shards needs nothing from the bucket.
func TestBackupInPlaceIsLookedAtOnce(t *testing.T) {
	p := some(t)
	defer p.close()
	newest, err := catalog.Newest(t.Context(), p.bucket, us)
	if err != nil {
		t.Fatal(err)
	}
	counted := &counting{Bucket: p.bucket}
	job := p.job(vfs.NewMem(), timeline.Target{Backup: newest.ID})
	job.Bucket = counted
	if _, err := pipeline.RestoreInPlace(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	restoring := counted.ranges.Swap(0)
	for n := range int32(pastShards) {
		s, err := pipeline.OpenShard(job, n)
		if err != nil {
			t.Fatal(err)
		}
		if epoch := newest.Shards[n].Epoch; s.Epoch() <= epoch {
			t.Errorf("shard %d is under epoch %s, and was under %s", n, s.Epoch(), epoch)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if opening := counted.ranges.Load(); restoring != pastShards || opening != 0 {
		t.Errorf("%d requests for parts of tables, and %d for opening the shards; want %d and none", restoring, opening, pastShards)
	}
	if err := p.inPlaceIs(job, events.VectorOf(newest.States())); err != nil {
		t.Error(err)
	}
}
