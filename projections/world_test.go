package projections_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
)

// tb is what a *testing.T and a *rapid.T have in common.
type tb interface {
	rapid.TB
	Context() context.Context
	Cleanup(func())
}

// world is the whole truth: every record of every log. What a shard must hold
// at a vector is worked out from it by the naive code below, which shares
// nothing with the shard but the decoding of records.
type world map[events.Log][]*kgo.Record

var (
	regions = []events.Origin{{Region: "us", Incarnation: 1}, {Region: "us-a", Incarnation: 1}, {Region: "us", Incarnation: 2}, {Region: "eu", Incarnation: 1}}
	streams = []events.Stream{"config", "session"}
	keys    = []string{"a", "a\x00", "a\x00\x01", "a\x00\xff", "b", "\x00", "\xff", "\xff\xff", "s-1"}
)

// logsOf are the logs of a partition: three origins, one of which came back as
// a second incarnation, with two streams each.
func logsOf(partition int32) (all []events.Log) {
	for _, o := range regions {
		for _, s := range streams {
			all = append(all, events.Log{Origin: o, Stream: s, Partition: partition})
		}
	}
	return all
}

func rules() map[events.Stream]merge.Rule {
	r := map[events.Stream]merge.Rule{}
	for _, s := range streams {
		r[s] = lww.Rule{}
	}
	return r
}

func (w world) write(l events.Log, r *kgo.Record) {
	r.Offset = int64(len(w[l]))
	w[l] = append(w[l], r)
}

// from cuts a run out of a log: at most n records from an offset on.
func (w world) from(l events.Log, offset int64, n int) projections.Run {
	end := min(offset+int64(n), int64(len(w[l])))
	return projections.Run{Log: l, Records: w[l][min(offset, end):end]}
}

// everything is one run of each log, from its beginning.
func (w world) everything() (runs []projections.Run) {
	for _, l := range slices.SortedFunc(maps.Keys(w), events.Log.Compare) {
		runs = append(runs, w.from(l, 0, len(w[l])))
	}
	return runs
}

func (w world) ends() events.Vector {
	v := events.Vector{}
	for l, records := range w {
		v[l] = int64(len(records))
	}
	return v
}

// slice is what a log amounts to for one key.
type slice struct {
	log    events.Log
	clock  events.HLC
	offset int64
	event  events.Event
}

// encode writes the slice as package lww documents it.
func (s slice) encode() []byte {
	flags, value := byte(0), s.event.Value
	if s.event.Op == events.OpDelete {
		flags, value = 1, nil
	}
	b := binary.BigEndian.AppendUint64([]byte{1, flags}, uint64(s.clock))
	b = binary.AppendUvarint(b, uint64(s.offset))
	for _, text := range []string{s.event.Type, s.event.ContentType} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return append(b, value...)
}

// folded is what a log amounts to up to an offset.
type folded struct {
	state   events.LogState
	buckets digest.Buckets
	slices  map[string]slice
	parked  []events.Position
}

func (f folded) mark() events.Mark {
	return events.Mark{Next: f.state.Next, Chain: f.state.Chain, Digest: f.state.Digest, Keys: f.state.Keys, Bytes: f.state.Bytes}
}

// decode reads a record as the event that it has to be taken for.
func decode(r *kgo.Record) (events.Event, error) {
	e, err := events.Decode(r)
	if err == nil {
		err = events.CheckClock(&e, r)
	}
	return e, err
}

func (w world) fold(l events.Log, next int64) folded {
	f := folded{state: events.LogState{Log: l, Next: next}, slices: map[string]slice{}}
	var chain digest.Sum
	var h digest.Hasher
	for _, r := range w[l][:next] {
		chain = h.Chain(chain, r)
		e, err := decode(r)
		if err != nil {
			f.parked = append(f.parked, l.At(r.Offset))
			continue
		}
		if e.IsCollection() {
			f.collect(l, e, r.Offset)
			continue
		}
		f.state.Events++
		s := slice{log: l, clock: e.Clock, offset: r.Offset, event: e}
		if old, ok := f.slices[e.Key]; ok {
			s.clock = max(s.clock, old.clock+1)
		}
		f.slices[e.Key] = s
	}
	var sum digest.Sum
	for key, s := range f.slices {
		if s.event.Op == events.OpPut {
			b := s.encode()
			hash, size := h.Slice(l.Stream, key, b), int64(len(key)+len(b))
			sum = sum.Add(hash)
			f.state.Keys++
			f.state.Bytes += size
			bucket := &f.buckets[digest.BucketOf(key)]
			*bucket = digest.Bucket{Sum: bucket.Sum.Add(hash), Keys: bucket.Keys + 1, Bytes: bucket.Bytes + size}
		}
	}
	f.state.Chain, f.state.Digest, f.state.Parked = chain.Digest(), sum.Digest(), int64(len(f.parked))
	return f
}

func (f *folded) collect(l events.Log, e events.Event, offset int64) {
	tombstones, err := e.Collection()
	if err != nil {
		f.parked = append(f.parked, l.At(offset))
		return
	}
	f.state.Events++
	for _, t := range tombstones {
		if s, ok := f.slices[t.Key]; ok && s.event.Op == events.OpDelete && s.offset == t.Offset {
			delete(f.slices, t.Key)
		}
	}
}

// entries are the views of a stream's keys at a vector, in order.
func (w world) entries(stream events.Stream, at events.Vector) (all []projections.Entry) {
	best := map[string]slice{}
	for l, next := range at {
		if l.Stream != stream {
			continue
		}
		for key, s := range w.fold(l, next).slices {
			old, ok := best[key]
			if !ok || cmp.Or(cmp.Compare(s.clock, old.clock), s.log.Compare(old.log)) > 0 {
				best[key] = s
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(best)) {
		s := best[key]
		if s.event.Op == events.OpDelete {
			continue
		}
		all = append(all, projections.Entry{Stream: stream, Key: key, View: merge.View{
			Exists: true, Value: s.event.Value, ContentType: s.event.ContentType, Type: s.event.Type,
			Clock: s.clock, Position: s.log.At(s.offset),
		}})
	}
	return all
}

// states are the states of the logs at a vector, in order.
func (w world) states(at events.Vector) (all []events.LogState) {
	for l, next := range at {
		if next > 0 {
			all = append(all, w.fold(l, next).state)
		}
	}
	slices.SortFunc(all, func(a, b events.LogState) int { return a.Log.Compare(b.Log) })
	return all
}

// checkShard compares everything that a shard shows with what it must hold at a
// vector.
func checkShard(t tb, s *projections.Shard, w world, at events.Vector) {
	t.Helper()
	want := w.states(at)
	if got := s.Logs(); !slices.Equal(got, want) {
		t.Fatalf("logs:\n%+v, want\n%+v", got, want)
	}
	for l, next := range at {
		if got := s.Next(l); got != next {
			t.Fatalf("%s: next is %d, want %d", l, got, next)
		}
		want := w.fold(l, next)
		if buckets, upTo := s.Buckets(l); buckets != want.buckets || upTo != next {
			t.Fatalf("%s: digest buckets at %d differ in %v", l, upTo, buckets.Differing(&want.buckets))
		}
		if mark, err := s.At(l, next); err != nil || mark != want.mark() {
			t.Fatalf("%s: mark %+v, %v; want %+v", l, mark, err, want.mark())
		}
	}
	if got := s.Digest(); got != digest.Total(want) {
		t.Fatalf("digest %s, want %s", got, digest.Total(want))
	}
	if found, err := s.Verify(); err != nil || !slices.Equal(found, want) {
		t.Fatalf("verify: %v, %+v", err, found)
	}
	checkViews(t, s, w, at)
	checkParked(t, s, w, at)
}

func checkViews(t tb, s *projections.Shard, w world, at events.Vector) {
	t.Helper()
	for _, stream := range streams {
		want := w.entries(stream, at)
		if got := scanAll(t, []*projections.Shard{s}, stream, "", ""); !reflect.DeepEqual(got, want) {
			t.Fatalf("stream %s:\n%+v, want\n%+v", stream, got, want)
		}
		for _, key := range keys {
			e := getOne(t, []*projections.Shard{s}, stream, key)
			i := slices.IndexFunc(want, func(e projections.Entry) bool { return e.Key == key })
			if e.Exists != (i >= 0) || i >= 0 && !reflect.DeepEqual(e, want[i]) {
				t.Fatalf("stream %s, key %q: %+v", stream, key, e)
			}
		}
	}
}

func checkParked(t tb, s *projections.Shard, w world, at events.Vector) {
	t.Helper()
	want := map[events.Position]bool{}
	for l, next := range at {
		for _, p := range w.fold(l, next).parked {
			want[p] = true
		}
	}
	got, err := s.Parked(1 << 20)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d parked, want %d, %v", len(got), len(want), err)
	}
	last := events.Position{}
	for _, p := range got {
		if !want[p.Position] || p.Position == last {
			t.Fatalf("%s is parked", p.Position)
		}
		if p.Position.Log == last.Log && p.Position.Offset < last.Offset {
			t.Fatalf("%s comes after %s", p.Position, last)
		}
		last = p.Position
	}
}

func scanAll(t tb, shards []*projections.Shard, stream events.Stream, prefix, after string) (all []projections.Entry) {
	t.Helper()
	for e, err := range projections.Scan(shards, stream, prefix, after) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func getOne(t tb, shards []*projections.Shard, stream events.Stream, key string) projections.Entry {
	t.Helper()
	e, err := projections.Get(shards, stream, key)
	if err != nil {
		t.Fatal(err)
	}
	if e.Stream != stream || e.Key != key {
		t.Fatalf("asked for %q of %s, got %q of %s", key, stream, e.Key, e.Stream)
	}
	return e
}

// genRecord gives what may be in a log: bare records and CloudEvents, puts and
// deletes, clocks that jump about, collections of tombstones, and now and then what
// is no event.
func genRecord() *rapid.Generator[*kgo.Record] {
	return rapid.Custom(func(t *rapid.T) *kgo.Record {
		r := &kgo.Record{
			Key:       []byte(rapid.SampledFrom(keys).Draw(t, "key")),
			Timestamp: time.UnixMilli(rapid.Int64Range(-1, 5).Draw(t, "millis")),
		}
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1:
			return r // a null value
		case 2:
			r.Key = nil // no event
			return r
		case 3:
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_id", Value: []byte("1")}) // no event
			return r
		case 4:
			return genCollection().Draw(t, "collection")
		case 5, 6:
			typ := rapid.SampledFrom([]string{events.TypePut, events.TypeDelete, events.TypeCollect, "t"}).Draw(t, "type")
			clock := rapid.SampledFrom([]string{"0.0", "0.1", "3.0", "4.65535", "281474976710655.65530"}).Draw(t, "clock")
			r.Headers = ceHeaders(typ, clock)
		}
		r.Value = rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "value")
		return r
	})
}

// genCollection gives collections that name what is a tombstone, what is none, and
// tombstones that were replaced since.
func genCollection() *rapid.Generator[*kgo.Record] {
	return rapid.Custom(func(t *rapid.T) *kgo.Record {
		var tombstones []events.Tombstone
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 3, rapid.ID).Draw(t, "collected") {
			from := rapid.Int64Range(0, 40).Draw(t, "from")
			for offset := from; offset < from+20; offset++ {
				tombstones = append(tombstones, events.Tombstone{Key: key, Offset: offset})
			}
		}
		e, err := events.NewCollection(tombstones)
		if err != nil {
			t.Fatal(err)
		}
		return &kgo.Record{Key: []byte(e.Key), Value: e.Value, Headers: ceHeaders(e.Type, "1.0")}
	})
}

func ceHeaders(typ, clock string) []kgo.RecordHeader {
	var hs []kgo.RecordHeader
	for _, h := range strings.Split("ce_specversion=1.0 ce_id=1 ce_source=/t content-type=a/b ce_type="+typ+" ce_hlc="+clock, " ") {
		name, value, _ := strings.Cut(h, "=")
		hs = append(hs, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	return hs
}

// bare makes a record without headers; a nil value deletes.
func bare(key string, value []byte, millis int64) *kgo.Record {
	return &kgo.Record{Key: []byte(key), Value: value, Timestamp: time.UnixMilli(millis)}
}

// smallWorld is a fixed world of one partition: keys of several slices,
// tombstones, and parked records in two logs.
func smallWorld(partition int32) world {
	w := world{}
	for i, l := range logsOf(partition) {
		for j := range 12 {
			key := keys[(i+j)%len(keys)]
			w.write(l, bare(key, []byte(strings.Repeat("v", i+j)), int64((i*j)%7)))
		}
		w.write(l, bare(keys[i%len(keys)], nil, 9))
		if i%3 == 0 {
			w.write(l, &kgo.Record{Value: []byte("no key")})
		}
	}
	return w
}

const dir = "state"

func config(fs vfs.FS) projections.Config {
	return projections.Config{Dir: dir, FS: fs, Rules: rules(), Lineage: projections.Lineage{ID: "first"}}
}

func open(t tb, cfg projections.Config) *projections.Shard {
	t.Helper()
	s, err := projections.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openNew opens a shard in a file system of its own; the test closes it.
func openNew(t tb) *projections.Shard {
	t.Helper()
	s := open(t, config(vfs.NewMem()))
	t.Cleanup(func() { closeShard(t, s) })
	return s
}

// closeShard also proves that nothing of Pebble was left open.
func closeShard(t tb, s *projections.Shard) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func apply(t tb, s *projections.Shard, runs ...projections.Run) projections.Applied {
	t.Helper()
	done, err := s.Apply(runs)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func wantKind(t tb, err error, kind events.Kind) {
	t.Helper()
	if events.KindOf(err) != kind {
		t.Errorf("error %v is of kind %q, want %q", err, events.KindOf(err), kind)
	}
}

func wantAs[E error](t tb, err error) (e E) {
	t.Helper()
	if !errors.As(err, &e) {
		t.Errorf("error %v, want a %T", err, e)
	}
	return e
}
