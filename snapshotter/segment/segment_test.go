package segment_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/objstoretest"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	region = events.Region("us-east-1")
	shard  = 3
)

var logs = []events.Log{
	{Origin: events.FirstOrigin("eu-central-1"), Stream: "session", Partition: shard},
	{Origin: events.FirstOrigin("us-east-1"), Stream: "session", Partition: shard},
	{Origin: events.FirstOrigin("us-west-1"), Stream: "config", Partition: shard},
}

// chain is some chain that sees all that a record has.
func chain(before events.Digest, r *kgo.Record) (after events.Digest) {
	h := fnv.New128a()
	_, _ = fmt.Fprintf(h, "%s %d %d %q %t %q %t", before, r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Key == nil, r.Value, r.Value == nil)
	for _, header := range r.Headers {
		_, _ = fmt.Fprintf(h, " %q %q %t", header.Key, header.Value, header.Value == nil)
	}
	h.Sum(after[:0])
	return after
}

func newSealer(t testing.TB) (*seal.Sealer, *seal.Opener) {
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

func config(sealer *seal.Sealer) segment.Config {
	return segment.Config{Region: region, Shard: shard, Software: "test", Sealer: sealer, Chain: chain}
}

func newBuilder(t interface{ Fatal(...any) }, sealer *seal.Sealer, newest *format.Segment) *segment.Builder {
	b := segment.NewBuilder(config(sealer), newest)
	for _, l := range logs {
		if _, known := b.Next(l); known {
			continue
		}
		if err := b.Begin(format.LogEnd{Log: l}); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func noMarks(events.Log, int64) (events.Mark, bool) { return events.Mark{}, false }

// drawRecord draws any record that Kafka has, behind an offset.
func drawRecord(t *rapid.T, from int64) *kgo.Record {
	data := rapid.OneOf(rapid.Just[[]byte](nil), rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 1, 40), rapid.Map(rapid.IntRange(0, 3000), func(n int) []byte { return bytes.Repeat([]byte("x"), n) }))
	r := &kgo.Record{
		Offset: from + rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 5), rapid.Just(int64(1)<<32)).Draw(t, "hole"),
		Key:    data.Draw(t, "key"), Value: data.Draw(t, "value"),
		Timestamp: time.UnixMilli(rapid.OneOf(rapid.Int64Range(-1, 1e13), rapid.Just(int64(1795700000000))).Draw(t, "time")),
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(data.Draw(t, "header")), Value: data.Draw(t, "header's value")})
	}
	return r
}

func same(a, b *kgo.Record) bool {
	return a.Offset == b.Offset && a.Timestamp.Equal(b.Timestamp) && reflect.DeepEqual(a.Key, b.Key) && reflect.DeepEqual(a.Value, b.Value) && reflect.DeepEqual(a.Headers, b.Headers)
}

// What goes into an archive comes out of it: every record of every log, once, as it
// was, whatever the segments' boundaries; and the chain tells that none is missing.
func TestArchive(t *testing.T) {
	sealer, opener := newSealer(t)
	rapid.Check(t, func(t *rapid.T) {
		bucket := objstore.NewMemory("archive")
		written := map[events.Log][]*kgo.Record{}
		var newest *format.Segment
		for range rapid.IntRange(1, 4).Draw(t, "segments") {
			sealed := sealer
			if rapid.Bool().Draw(t, "plain") {
				sealed = seal.None()
			}
			b := newBuilder(t, sealed, newest)
			for range rapid.IntRange(1, 30).Draw(t, "records") {
				l := rapid.SampledFrom(logs).Draw(t, "log")
				next, _ := b.Next(l)
				r := drawRecord(t, next)
				if err := b.Add(l, r); err != nil {
					t.Fatal(err)
				}
				written[l] = append(written[l], r)
				if err := b.Add(l, r); err != nil { // again: passed over
					t.Fatal(err)
				}
			}
			s, object, err := b.Close(time.Now(), 7, noMarks)
			if err != nil {
				t.Fatal(err)
			}
			if err := segment.Append(t.Context(), bucket, s, object); err != nil {
				t.Fatal(err)
			}
			if newest != nil {
				if err := s.Follows(newest); err != nil {
					t.Fatal(err)
				}
			}
			if newest, err = segment.Newest(t.Context(), bucket, region, shard); err != nil || !reflect.DeepEqual(newest, s) {
				t.Fatalf("the newest is %+v (%v), want %+v", newest, err, s)
			}
		}
		numbers, err := segment.Numbers(t.Context(), bucket, region, shard)
		if err != nil || int64(len(numbers)) != newest.Number {
			t.Fatalf("segments %d, %v", numbers, err)
		}
		from := rapid.Int64Range(0, 20).Draw(t, "from")
		for _, l := range logs {
			read(t, bucket, opener, l, numbers, written[l], newest)
			readFrom(t, bucket, opener, l, numbers, written[l], from)
		}
	})
}

func read(t *rapid.T, bucket objstore.Reader, opener *seal.Opener, l events.Log, numbers []int64, want []*kgo.Record, newest *format.Segment) {
	var sum events.Digest
	for _, n := range numbers {
		s, err := segment.Open(t.Context(), bucket, opener, region, shard, n)
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range s.Records(l, 0) {
			if err != nil || len(want) == 0 || !same(r, want[0]) {
				t.Fatalf("%s: read %+v (%v), %d to come", l, r, err, len(want))
			}
			want, sum = want[1:], chain(sum, r)
		}
		if end, ok := s.End(l); !ok || end.Chain != sum {
			t.Fatalf("%s after segment %d: chain %s, its header says %s", l, n, sum, end.Chain)
		}
	}
	if len(want) > 0 {
		t.Fatalf("%s: %d records are missing", l, len(want))
	}
}

func readFrom(t *rapid.T, bucket objstore.Reader, opener *seal.Opener, l events.Log, numbers []int64, all []*kgo.Record, from int64) {
	want := 0
	for _, r := range all {
		if r.Offset >= from {
			want++
		}
	}
	for _, n := range numbers {
		s, err := segment.Open(t.Context(), bucket, opener, region, shard, n)
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range s.Records(l, from) {
			if err != nil || r.Offset < from {
				t.Fatalf("from %d: %+v, %v", from, r, err)
			}
			want--
		}
	}
	if want != 0 {
		t.Fatalf("%s from %d: %d too few", l, from, want)
	}
}

// made is a bucket with one segment.
func made(t *testing.T, sealer *seal.Sealer) (*objstore.Memory, *format.Segment, []byte) {
	t.Helper()
	b := newBuilder(t, sealer, nil)
	for i := range int64(3000) {
		r := &kgo.Record{Offset: i, Timestamp: time.UnixMilli(1e12 + i), Key: fmt.Appendf(nil, "key %d", i%70), Value: bytes.Repeat([]byte("value "), 100)}
		if err := b.Add(logs[i%3], r); err != nil {
			t.Fatal(err)
		}
	}
	s, object, err := b.Close(time.Now(), 0, noMarks)
	if err != nil {
		t.Fatal(err)
	}
	bucket := objstore.NewMemory("archive")
	if err := segment.Append(t.Context(), bucket, s, object); err != nil {
		t.Fatal(err)
	}
	return bucket, s, object
}

// Blocks are what Kafka's own clients read.
func TestBlocksAreKafkas(t *testing.T) {
	_, s, object := made(t, seal.None())
	payload := object[int64(len(object))-s.Size:]
	total := 0
	for _, p := range s.Parts {
		if len(p.Blocks) < 1 {
			t.Fatalf("%s has no block", p.Log)
		}
		for _, block := range p.Blocks {
			in := kmsg.NewFetchResponseTopicPartition()
			in.RecordBatches = payload[block.At : block.At+block.Length]
			in.HighWatermark, in.LastStableOffset = p.To, p.To
			out, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: block.First, Topic: "topic", Partition: shard}, &in, kgo.DefaultDecompressor(), nil)
			if out.Err != nil || len(out.Records) != int(block.Records) {
				t.Fatalf("block %+v: %d records, %v", block, len(out.Records), out.Err)
			}
			for i, r := range out.Records {
				if want := block.First + 3*int64(i); r.Offset != want || r.Timestamp.UnixMilli() != 1e12+want || string(r.Key) != fmt.Sprintf("key %d", want%70) {
					t.Fatalf("record %d of %+v: %+v", i, block, r)
				}
			}
			total += len(out.Records)
		}
	}
	if total != 3000 {
		t.Errorf("%d records", total)
	}
}

// Of 32 archivers one gets each place, in memory and on a real S3 server; the same bytes
// may come again. Answers get lost, and the store asks for another try.
func TestOneWinsEachPlace(t *testing.T) {
	for name, bucket := range map[string]objstore.Bucket{"memory": objstore.NewMemory("archive"), "S3": objstoretest.S3(t)} {
		t.Run(name, func(t *testing.T) {
			var newest *format.Segment
			for range 3 {
				newest = raceForPlace(t, bucket, newest)
			}
		})
	}
}

// raceForPlace has 32 archivers append behind a segment, and returns what stands there then.
func raceForPlace(t *testing.T, bucket objstore.Bucket, newest *format.Segment) *format.Segment {
	t.Helper()
	type winner struct {
		segment *format.Segment
		object  []byte
	}
	var g errgroup.Group
	won := make(chan winner, 32)
	for i := range 32 {
		g.Go(func() error {
			b := newBuilder(t, seal.None(), newest)
			next, _ := b.Next(logs[0])
			if err := b.Add(logs[0], &kgo.Record{Offset: next, Timestamp: time.UnixMilli(0), Value: fmt.Append(nil, i)}); err != nil {
				return err
			}
			s, object, err := b.Close(time.UnixMilli(1), 0, noMarks)
			if err != nil {
				return err
			}
			faulty := faults.NewSeed(bucket, uint64(i), faults.Rule{Effect: faults.FailAfter, Probability: 0.4}, faults.Rule{Effect: faults.Conflict, Probability: 0.4})
			for err = segment.Append(t.Context(), faulty, s, object); objstore.IsTemporary(err); {
				err = segment.Append(t.Context(), faulty, s, object)
			}
			switch {
			case errors.Is(err, segment.ErrTaken):
				return nil
			case err != nil:
				return err
			}
			won <- winner{s, object}
			return segment.Append(t.Context(), bucket, s, object)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(won) != 1 {
		t.Fatalf("%d won", len(won))
	}
	w := <-won
	stored, err := objstore.ReadAll(t.Context(), bucket, format.SegmentName(region, shard, w.segment.Number), 1<<20)
	if err != nil || !bytes.Equal(stored, w.object) {
		t.Errorf("another's bytes are stored (%v)", err)
	}
	return w.segment
}

// What is changed, cut off, swapped or not to be opened is refused, and named.
func TestOpenRefuses(t *testing.T) {
	sealer, opener := newSealer(t)
	_, stranger := newSealer(t)
	_, _, object := made(t, sealer)
	name := format.SegmentName(region, shard, 1)
	open := func(object []byte, o *seal.Opener) error {
		bucket := objstore.NewMemory("archive")
		if err := bucket.Create(t.Context(), name, object); err != nil {
			t.Fatal(err)
		}
		_, err := segment.Open(t.Context(), bucket, o, region, shard, 1)
		if err != nil && !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("the error does not name the object: %v", err)
		}
		return err
	}
	if err := open(object, opener); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]*seal.Opener{"no key": nil, "another key": stranger} {
		if err := open(object, o); events.KindOf(err) != events.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	for at := 0; at < len(object); at += 1 + len(object)/300 {
		bad := bytes.Clone(object)
		bad[at] ^= 1 << (at % 8)
		if err := open(bad, opener); events.KindOf(err) != events.KindInconsistent && events.KindOf(err) != events.KindRefused {
			t.Fatalf("byte %d of %d changed: %v", at, len(object), err)
		}
		if err := open(object[:at], opener); at > 0 && events.KindOf(err) != events.KindInconsistent {
			t.Fatalf("cut to %d of %d bytes: %v", at, len(object), err)
		}
	}
	if err := open(append(bytes.Clone(object), 0), opener); events.KindOf(err) != events.KindInconsistent {
		t.Errorf("something behind it: %v", err)
	}
	b := newBuilder(t, sealer, &format.Segment{Number: 1})
	if err := b.Add(logs[0], &kgo.Record{Timestamp: time.UnixMilli(0)}); err != nil {
		t.Fatal(err)
	}
	_, second, err := b.Close(time.Now(), 0, noMarks)
	if err != nil {
		t.Fatal(err)
	}
	if err := open(second, opener); events.KindOf(err) != events.KindInconsistent {
		t.Errorf("another segment's object: %v", err)
	}
	if _, err := segment.Open(t.Context(), objstore.NewMemory("empty"), opener, region, shard, 1); events.KindOf(err) != events.KindNotFound {
		t.Errorf("missing: %v", err)
	}
}

// A header that is longer than what is read at first is read all the same.
func TestLongHeader(t *testing.T) {
	b := segment.NewBuilder(config(seal.None()), nil)
	for i := range 2000 {
		l := logs[0]
		l.Stream = events.Stream(fmt.Sprintf("stream-%04d", i))
		if err := b.Begin(format.LogEnd{Log: l, Next: int64(i)}); err != nil {
			t.Fatal(err)
		}
		if err := b.Add(l, &kgo.Record{Offset: int64(i), Timestamp: time.UnixMilli(int64(i))}); err != nil {
			t.Fatal(err)
		}
	}
	s, object, err := b.Close(time.Now(), 0, noMarks)
	if err != nil {
		t.Fatal(err)
	}
	bucket := objstore.NewMemory("archive")
	if err := segment.Append(t.Context(), bucket, s, object); err != nil {
		t.Fatal(err)
	}
	if got, err := segment.Header(t.Context(), bucket, region, shard, 1); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%d parts, %v", len(got.Parts), err)
	}
}

// A gap is told, begins a segment of its own, and the archive goes on behind it.
func TestGap(t *testing.T) {
	b := newBuilder(t, seal.None(), nil)
	record := &kgo.Record{Offset: 0, Timestamp: time.UnixMilli(0)}
	if err := b.Add(logs[0], record); err != nil {
		t.Fatal(err)
	}
	far := format.LogEnd{Log: logs[0], Next: 100, Chain: events.Digest{9}}
	if err := b.Skip(far, "why"); err == nil {
		t.Error("a gap within a segment")
	}
	first, _, err := b.Close(time.Now(), 0, noMarks)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Skip(format.LogEnd{Log: logs[0], Next: 1}, "why"); err == nil {
		t.Error("a gap with nothing in it")
	}
	if err := b.Skip(far, "why"); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(logs[0], &kgo.Record{Offset: 100, Timestamp: time.UnixMilli(0)}); err != nil {
		t.Fatal(err)
	}
	second, _, err := b.Close(time.Now(), 0, noMarks)
	if err != nil {
		t.Fatal(err)
	}
	p := second.Part(logs[0])
	if p == nil || p.Gap == nil || p.Gap.From != 1 || p.From != 100 || p.To != 101 || p.Before != far.Chain || p.Records != 1 {
		t.Errorf("%+v", p)
	}
	if err := second.Follows(first); err != nil {
		t.Error(err)
	}
}

// A mark is taken if it is that of the same records.
func TestMarks(t *testing.T) {
	record := &kgo.Record{Offset: 0, Timestamp: time.UnixMilli(0)}
	good := events.Mark{Next: 1, Chain: chain(events.Digest{}, record), Digest: events.Digest{1}, Keys: 1, Bytes: 10}
	elsewhere, other := good, good
	elsewhere.Next, other.Chain = 2, events.Digest{1}
	for name, test := range map[string]struct {
		mark  events.Mark
		known bool
		want  *events.Mark
	}{"known": {good, true, &good}, "unknown": {good, false, nil}, "another place": {elsewhere, true, nil}, "other records": {other, true, nil}} {
		b := newBuilder(t, seal.None(), nil)
		if err := b.Add(logs[0], record); err != nil {
			t.Fatal(err)
		}
		s, _, err := b.Close(time.Now(), 0, func(l events.Log, next int64) (events.Mark, bool) {
			if l != logs[0] || next != 1 {
				t.Errorf("asked for %s at %d", l, next)
			}
			return test.mark, test.known
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Parts[0].Mark; !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func BenchmarkBuilder(b *testing.B) {
	value := make([]byte, 256)
	for i := range value {
		value[i] = hex.EncodeToString([]byte{byte(i * i)})[0]
	}
	b.SetBytes(int64(len(value)))
	builder := segment.NewBuilder(config(seal.None()), nil)
	if err := builder.Begin(format.LogEnd{Log: logs[0]}); err != nil {
		b.Fatal(err)
	}
	at := time.Now()
	for i := range b.N {
		if err := builder.Add(logs[0], &kgo.Record{Offset: int64(i), Timestamp: at, Key: fmt.Appendf(nil, "key-%d", i%1000), Value: value}); err != nil {
			b.Fatal(err)
		}
		if builder.Bytes() > 8<<20 {
			if _, _, err := builder.Close(at, 0, noMarks); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// Times never go back along an archive, whatever the clocks of its archivers say.
func TestTimesNeverGoBack(t *testing.T) {
	sealer, _ := newSealer(t)
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	var newest *format.Segment
	for i, c := range []struct{ clock, want time.Duration }{{0, 0}, {-time.Hour, 0}, {time.Second, time.Second}, {0, time.Second}} {
		b := newBuilder(t, sealer, newest)
		if err := b.Add(logs[0], &kgo.Record{Offset: int64(i)}); err != nil {
			t.Fatal(err)
		}
		s, _, err := b.Close(now.Add(c.clock), 1, noMarks)
		if err != nil || !s.Created.Equal(now.Add(c.want)) {
			t.Errorf("segment %d was closed at %s, %v", i+1, s.Created, err)
		}
		if newest != nil {
			if err := s.Follows(newest); err != nil {
				t.Error(err)
			}
		}
		newest = s
	}
}
