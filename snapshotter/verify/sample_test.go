package verify_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

// sampled are all objects of backups and of an archive, by name.
func sampled(t *testing.T, src restore.Source) map[string]verify.Object {
	t.Helper()
	c := checks(src)
	c.NewChain = func() func(events.Digest, *kgo.Record) events.Digest { return chain }
	list, err := verify.List(t.Context(), src.Bucket, region, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := list.Objects(src, c)
	objects := map[string]verify.Object{}
	for _, o := range all {
		objects[o.Name] = o
	}
	if len(objects) != len(all) {
		t.Errorf("%d objects have %d names", len(all), len(objects))
	}
	return objects
}

// archived adds an archive that is sealed for the keys of the backups.
func archived(t *testing.T, bucket *objstore.Memory, src restore.Source) {
	t.Helper()
	_, other, err := seal.Generate(false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.NewSealer([]string{src.Opener.Recipients()[0], other})
	if err != nil {
		t.Fatal(err)
	}
	archiveOf(t, bucket, sealer, 5)
}

// Each object of backups and archive is there once and is found whole, with and without a key; nothing else is.
func TestObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, src, _ := bucketOf(t, 2)
		archived(t, bucket, src)
		for name, opener := range map[string]*seal.Opener{"with a key": src.Opener, "without": nil} {
			src := restore.Source{Bucket: bucket, Opener: opener}
			objects := sampled(t, src)
			if len(objects) != 2*(1+4)+2*5 {
				t.Errorf("%s: %d objects", name, len(objects))
			}
			for _, o := range objects {
				if gone, err := o.Look(t.Context()); gone || err != nil {
					t.Errorf("%s: %s: gone %t, %v", name, o.Name, gone, err)
				}
				if o.Segment != strings.Contains(o.Name, "/segments/") || o.Bytes == 0 && !strings.HasSuffix(o.Name, ".manifest") {
					t.Errorf("%s: %+v", name, o)
				}
			}
		}
	})
}

// Whatever is harmed after the list was made is found damaged by its name, with and without a key; what was pruned is gone,
// and what a store tells wrongly once is neither.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, src, made := bucketOf(t, 2)
		archived(t, bucket, src)
		table := made[0].Shards[1].Tables[0].Name
		for name, c := range map[string]struct {
			object string
			harm   func(t *testing.T, b *objstore.Memory)
		}{
			"a flipped bit of a table":    {table, flip(table, -3)},
			"a table that is cut off":     {made[0].Shards[0].Tables[1].Name, cutOff(made[0].Shards[0].Tables[1].Name)},
			"a table that is missing":     {made[0].Shards[0].Tables[0].Name, remove(made[0].Shards[0].Tables[0].Name)},
			"a flipped bit of a manifest": {format.ManifestName(region, made[1].ID), flip(format.ManifestName(region, made[1].ID), 30)},
			"a flipped bit of a segment":  {format.SegmentName(region, 1, 2), flip(format.SegmentName(region, 1, 2), -5)},
			"a flipped bit of a header":   {format.SegmentName(region, 1, 3), flip(format.SegmentName(region, 1, 3), 40)},
		} {
			with, without := sampled(t, src)[c.object], sampled(t, restore.Source{Bucket: bucket})[c.object]
			c.harm(t, bucket)
			for _, o := range []verify.Object{with, without} {
				if gone, err := o.Look(t.Context()); gone || events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), c.object) {
					t.Errorf("%s: gone %t, %v", name, gone, err)
				}
			}
		}

		segment := sampled(t, src)[format.SegmentName(region, 0, 1)]
		manifest := sampled(t, src)[format.ManifestName(region, made[0].ID)]
		whole := sampled(t, src)[made[0].Shards[1].Tables[1].Name]
		faulty := faults.New(bucket)
		flaky := sampled(t, restore.Source{Bucket: faulty, Opener: src.Opener})[whole.Name]
		faulty.SetRules(faults.Rule{Ops: []string{objstore.OpGet}, Name: whole.Name, Effect: faults.FlipBit, Times: 1})
		if gone, err := flaky.Look(t.Context()); gone || err != nil {
			t.Errorf("damage in one reading: gone %t, %v", gone, err)
		}
		faulty.SetRules(faults.Rule{Ops: []string{objstore.OpGet}, Effect: faults.FailBefore})
		if gone, err := flaky.Look(t.Context()); gone || err == nil || events.KindOf(err) == events.KindInconsistent {
			t.Errorf("a bucket that is away: gone %t, %v", gone, err)
		}
		remove(segment.Name)(t, bucket)
		remove(manifest.Name)(t, bucket)
		remove(whole.Name)(t, bucket)
		for _, o := range []verify.Object{segment, manifest, whole} {
			if gone, err := o.Look(t.Context()); !gone || err != nil {
				t.Errorf("%s was pruned: gone %t, %v", o.Name, gone, err)
			}
		}
	})
}

func remove(name string) func(t *testing.T, b *objstore.Memory) {
	return func(t *testing.T, b *objstore.Memory) {
		if err := b.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}
