package segment_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// reads counts what is read of a bucket.
type reads struct {
	*objstore.Memory
	requests int
	bytes    int64
}

func (r *reads) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	r.requests, r.bytes = r.requests+1, r.bytes+length
	return r.Memory.GetRange(ctx, name, offset, length)
}

// listed is the only segment of a bucket.
func listed(t interface{ Fatal(...any) }, bucket objstore.Reader) (at segment.Listed) {
	for one, err := range segment.Behind(context.Background(), bucket, region, shard, 0) {
		if err != nil {
			t.Fatal(err)
		}
		at = one
	}
	return at
}

// A segment that is read where it lies has the records that it has when it is read
// whole, of every log and from every offset on.
func TestRecordsWhereTheyLie(t *testing.T) {
	sealer, opener := newSealer(t)
	rapid.Check(t, func(t *rapid.T) {
		sealed := rapid.SampledFrom([]*seal.Sealer{sealer, seal.None()}).Draw(t, "sealer")
		bucket := &reads{Memory: objstore.NewMemory("archive")}
		b := newBuilder(t, sealed, nil)
		for range rapid.IntRange(1, 60).Draw(t, "records") {
			l := rapid.SampledFrom(logs).Draw(t, "log")
			next, _ := b.Next(l)
			if err := b.Add(l, drawRecord(t, next)); err != nil {
				t.Fatal(err)
			}
		}
		appendTo(t, bucket, b)
		whole, err := segment.Open(t.Context(), bucket, opener, region, shard, 1)
		if err != nil {
			t.Fatal(err)
		}
		at, err := segment.OpenAt(t.Context(), bucket, opener, region, shard, listed(t, bucket))
		if err != nil {
			t.Fatal(err)
		}
		if bucket.requests != 1 {
			t.Fatalf("%d requests for a small segment", bucket.requests)
		}
		for _, p := range whole.Parts {
			from := rapid.Int64Range(0, p.To).Draw(t, "from")
			var want []*kgo.Record
			for r, err := range whole.Records(p.Log, from) {
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, r)
			}
			n := 0
			for r, err := range at.Records(t.Context(), p.Log, from) {
				if err != nil || n == len(want) || !same(r, want[n]) {
					t.Fatalf("%s, record %d: %+v, %v", p.Log, n, r, err)
				}
				n++
			}
			if n != len(want) {
				t.Fatalf("%s from %d: %d records, want %d", p.Log, from, n, len(want))
			}
		}
	})
}

func appendTo(t interface{ Fatal(...any) }, bucket objstore.Creator, b *segment.Builder) *format.Segment {
	s, object, err := b.Close(time.Now(), 1, noMarks)
	if err == nil {
		err = segment.Append(context.Background(), bucket, s, object)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// large is a segment of 4 MiB that cannot be compressed, of which one log has a tenth.
func large(t *testing.T, sealer *seal.Sealer) (*reads, *format.Segment) {
	bucket := &reads{Memory: objstore.NewMemory("archive")}
	b := newBuilder(t, sealer, nil)
	rng := rand.NewChaCha8([32]byte{1})
	for i := range int64(1_000) {
		value := make([]byte, 4<<10)
		_, _ = rng.Read(value)
		l := logs[0]
		if i%10 == 0 {
			l = logs[2]
		}
		next, _ := b.Next(l)
		if err := b.Add(l, &kgo.Record{Offset: next, Key: []byte(fmt.Sprint(i)), Value: value, Timestamp: time.UnixMilli(i)}); err != nil {
			t.Fatal(err)
		}
	}
	return bucket, appendTo(t, bucket, b)
}

// Of a large segment no more is read than the blocks of the log that is asked for.
func TestLittleIsReadOfALargeSegment(t *testing.T) {
	sealer, opener := newSealer(t)
	for name, sealed := range map[string]*seal.Sealer{"sealed": sealer, "plain": seal.None()} {
		t.Run(name, func(t *testing.T) {
			bucket, s := large(t, sealed)
			at, err := segment.OpenAt(t.Context(), bucket, opener, region, shard, listed(t, bucket))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, err := range at.Records(t.Context(), logs[2], 0) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			if n != 100 || bucket.bytes > s.StoredSize/4 || bucket.requests > 5 {
				t.Errorf("%d records, %d requests, %d of %d bytes", n, bucket.requests, bucket.bytes, s.StoredSize)
			}
			bucket.bytes = 0
			for r, err := range at.Records(t.Context(), logs[0], 890) {
				if err != nil || r.Offset < 890 {
					t.Fatal(r, err)
				}
			}
			if bucket.bytes > 2<<20 {
				t.Errorf("%d bytes for the last records of a log", bucket.bytes)
			}
		})
	}
}

// Damage to a block is found when the block is read, and names the object.
func TestDamageWhereItLies(t *testing.T) {
	sealer, opener := newSealer(t)
	for name, sealed := range map[string]*seal.Sealer{"sealed": sealer, "plain": seal.None()} {
		for _, at := range []int64{100_000, 2_000_000, 3_900_000} {
			t.Run(fmt.Sprint(name, at), func(t *testing.T) {
				bucket, _ := large(t, sealed)
				object := format.SegmentName(region, shard, 1)
				if err := bucket.Damage(object, func(b []byte) []byte { b[at] ^= 1; return b }); err != nil {
					t.Fatal(err)
				}
				s, err := segment.OpenAt(t.Context(), bucket, opener, region, shard, listed(t, bucket))
				for _, l := range logs {
					if err != nil {
						break
					}
					for _, failed := range s.Records(t.Context(), l, 0) {
						err = errors.Join(err, failed)
					}
				}
				if events.KindOf(err) != events.KindInconsistent {
					t.Errorf("%v", err)
				}
			})
		}
	}
}
