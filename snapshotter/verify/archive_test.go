package verify_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

func chain(before events.Digest, r *kgo.Record) events.Digest {
	before[0] += byte(len(r.Value)) + 1
	before[1] ^= r.Value[0]
	before[2] = byte(r.Offset) + 1
	return before
}

// archiveOf makes an archive of two shards with so many segments each; the third has
// a gap.
func archiveOf(t *testing.T, bucket objstore.Bucket, sealer *seal.Sealer, segments int) {
	t.Helper()
	for p := range int32(2) {
		l := events.Log{Origin: events.FirstOrigin(region), Stream: "session", Partition: p}
		b := segment.NewBuilder(segment.Config{Region: region, Shard: p, Software: "test", Sealer: sealer, Chain: chain}, nil)
		err := b.Begin(format.LogEnd{Log: l})
		for n := range segments {
			if n == 2 && err == nil {
				next, _ := b.Next(l)
				err = b.Skip(format.LogEnd{Log: l, Next: next + 5}, "lost")
			}
			for i := range 3 {
				next, _ := b.Next(l)
				if err == nil {
					err = b.Add(l, &kgo.Record{Offset: next, Timestamp: time.Now(), Value: fmt.Appendf(nil, "%d of %d", i, n)})
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			s, object, closeErr := b.Close(time.Now(), 1, func(events.Log, int64) (events.Mark, bool) { return events.Mark{}, false })
			if err = closeErr; err == nil {
				err = segment.Append(t.Context(), bucket, s, object)
			}
			time.Sleep(time.Minute)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func sealed(t *testing.T) (*seal.Sealer, *seal.Opener) {
	t.Helper()
	identity, operating, err := seal.Generate(false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, recovery, err := seal.Generate(false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.NewSealer([]string{operating, recovery})
	if err != nil {
		t.Fatal(err)
	}
	opener, err := seal.NewOpener("test", identity)
	if err != nil {
		t.Fatal(err)
	}
	return sealer, opener
}

func verified(t *testing.T, bucket objstore.Bucket, opener *seal.Opener, level string) *verify.Report {
	t.Helper()
	return verifiedWith(t, bucket, opener, level, chain)
}

func verifiedWith(t *testing.T, bucket objstore.Bucket, opener *seal.Opener, level string, chain func(events.Digest, *kgo.Record) events.Digest) *verify.Report {
	t.Helper()
	src := restore.Source{Bucket: bucket, Opener: opener}
	c := checks(src)
	c.NewChain = func() func(events.Digest, *kgo.Record) events.Digest { return chain }
	report, err := verify.Run(t.Context(), src, region, nil, level, c, verify.Progress{})
	if err != nil {
		t.Fatalf("%s: %v", level, err)
	}
	return report
}

// An archive that is whole is found whole at every level, with its gap.
func TestArchive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		sealer, opener := sealed(t)
		archiveOf(t, bucket, sealer, 5)
		for _, level := range verify.Levels {
			report := verified(t, bucket, opener, level)
			if err := report.Err(); err != nil || len(report.Archive) != 2 {
				t.Fatalf("%s: %+v, %v", level, report, err)
			}
			for p, a := range report.Archive {
				if a.Shard != int32(p) || a.From != 1 || a.To != 5 || a.Segments != 5 || a.Bytes == 0 || a.Newest.Sub(a.Oldest) != 4*time.Minute {
					t.Errorf("%s: %+v", level, a)
				}
				if len(a.Gaps) != 1 || a.Gaps[0].From != 6 || a.Gaps[0].To != 11 || a.Gaps[0].Reason != "lost" {
					t.Errorf("%s: gaps %+v", level, a.Gaps)
				}
			}
		}
		// Records that are not those of the chain. (Behind the gap it is not known.)
		report := verifiedWith(t, bucket, opener, "decode", func(events.Digest, *kgo.Record) events.Digest { return events.Digest{1} })
		if found := report.Damaged(); len(found) != 4 || found[0] != format.SegmentName(region, 0, 1) {
			t.Errorf("with other chains: %q", found)
		}
	})
}

// Whatever is damaged is found at the level that can see it, and named.
func TestDamagedArchive(t *testing.T) {
	name := func(n int64) string { return format.SegmentName(region, 1, n) }
	for what, test := range map[string]struct {
		damage func(t *testing.T, b *objstore.Memory)
		level  string // the first that finds it
		object string
	}{
		"a flipped bit of a header":  {flip(name(3), 40), "manifests", name(3)},
		"a flipped bit of a payload": {flip(name(3), -5), "hashes", name(3)},
		"cut off":                    {cutOff(name(2)), "hashes", name(2)},
		"swapped": {func(t *testing.T, b *objstore.Memory) {
			other, err := objstore.ReadAll(t.Context(), b, name(4), 1<<20)
			if err == nil {
				err = b.Damage(name(3), func([]byte) []byte { return other })
			}
			if err != nil {
				t.Fatal(err)
			}
		}, "manifests", name(3)},
		"deleted": {func(t *testing.T, b *objstore.Memory) {
			if err := b.Delete(t.Context(), name(3)); err != nil {
				t.Fatal(err)
			}
		}, "manifests", name(3)},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := objstore.NewMemory("b")
				sealer, opener := sealed(t)
				archiveOf(t, bucket, sealer, 5)
				test.damage(t, bucket)
				for i, level := range verify.Levels[:3] {
					report := verified(t, bucket, opener, level)
					want := i >= slices.Index(verify.Levels, test.level)
					if found := report.Damaged(); want != slices.Contains(found, test.object) || !want && len(found) > 0 {
						t.Errorf("%s: damaged %q", level, found)
					}
				}
			})
		})
	}
}

func flip(name string, at int) func(t *testing.T, b *objstore.Memory) {
	return func(t *testing.T, b *objstore.Memory) {
		err := b.Damage(name, func(body []byte) []byte {
			if at < 0 {
				at += len(body)
			}
			body[at] ^= 1
			return body
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func cutOff(name string) func(t *testing.T, b *objstore.Memory) {
	return func(t *testing.T, b *objstore.Memory) {
		if err := b.Damage(name, func(body []byte) []byte { return body[:len(body)-7] }); err != nil {
			t.Fatal(err)
		}
	}
}
