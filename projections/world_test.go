package projections_test

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/appendonly"
	"github.com/evenkeel/evenkeel/projections/merge/fieldmap"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
	"github.com/evenkeel/evenkeel/projections/merge/multivalue"
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

	// ruleOf has a stream of every rule besides; nothing but its rule tells one from another.
	ruleOf = map[events.Stream]merge.Rule{
		"config": lww.Rule{}, "session": lww.Rule{},
		"counts": appendonly.Rule{}, "fields": fieldmap.Rule{}, "values": multivalue.Rule{},
	}
	keys = []string{"a", "a\x00", "a\x00\x01", "a\x00\xff", "b", "\x00", "\xff", "\xff\xff", "s-1"}
)

// logsOf are the logs of a partition: three origins, one of which came back as
// a second incarnation, with two streams each.
func logsOf(partition int32) (all []events.Log) { return logsIn(partition, streams) }

func logsIn(partition int32, streams []events.Stream) (all []events.Log) {
	for _, o := range regions {
		for _, s := range streams {
			all = append(all, events.Log{Origin: o, Stream: s, Partition: partition})
		}
	}
	return all
}

// genLogs gives the logs of one partition, of two streams under whatever rules.
func genLogs() *rapid.Generator[[]events.Log] {
	two := rapid.Permutation(slices.Sorted(maps.Keys(ruleOf)))
	return rapid.Map(two, func(streams []events.Stream) []events.Log { return logsIn(0, streams[:2]) })
}

func rules() map[events.Stream]merge.Rule { return maps.Clone(ruleOf) }

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

// slice is what a log of rule lww amounts to for one key.
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

// part is what a log amounts to for one key.
type part struct {
	clock   events.HLC // of the last event, as folded; of lww only
	data    []byte     // the slice
	live    bool
	written []mergetest.Written // what it is the fold of
}

// folded is what a log amounts to up to an offset.
type folded struct {
	state   events.LogState
	buckets digest.Buckets
	keys    map[string]part
	parked  []events.Position
	done    projections.Applied // by some last records
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

func (w world) fold(l events.Log, next int64) folded { return w.foldSince(l, next, next) }

// foldSince also says what is done by the records from an offset on.
func (w world) foldSince(l events.Log, next, since int64) folded {
	f := folded{state: events.LogState{Log: l, Next: next}, keys: map[string]part{}}
	var chain digest.Sum
	var h digest.Hasher
	for _, r := range w[l][:next] {
		chain = h.Chain(chain, r)
		done := f.take(l, r)
		f.state.Events += int64(done.Events)
		if r.Offset >= since {
			f.done = f.done.Add(done)
		}
	}
	var sum digest.Sum
	for key, p := range f.keys {
		if p.live {
			hash, size := h.Slice(l.Stream, key, p.data), int64(len(key)+len(p.data))
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

// take folds one record.
func (f *folded) take(l events.Log, r *kgo.Record) (done projections.Applied) {
	e, err := decode(r)
	switch {
	case err != nil:
	case e.IsUpkeep():
		done, err = f.upkeep(l.At(r.Offset), e)
	default:
		err = f.write(mergetest.Written{At: l.At(r.Offset), Event: e})
	}
	if err != nil {
		f.parked = append(f.parked, l.At(r.Offset))
		return projections.Applied{Parked: 1}
	}
	done.Events, done.MaxClock = 1, e.Clock
	return done
}

// write folds an event of a key: of lww by hand, of the others by what their rules say, of
// one event after the other. An error says that it has no meaning.
func (f *folded) write(w mergetest.Written) error {
	p, rule := f.keys[w.Event.Key], ruleOf[w.At.Stream]
	if rule == (lww.Rule{}) {
		if op := w.Event.Op; op == events.OpPatch || op == events.OpAppend {
			return errors.New("no meaning")
		}
		s := slice{log: w.At.Log, clock: w.Event.Clock, offset: w.At.Offset, event: w.Event}
		if p.data != nil {
			s.clock = max(s.clock, p.clock+1)
		}
		p.clock, p.data, p.live = s.clock, s.encode(), w.Event.Op != events.OpDelete
	} else {
		now, err := rule.Fold(nil, p.data, &w.Event, w.At)
		var noMeaning *merge.NoMeaningError
		switch {
		case errors.As(err, &noMeaning):
			return err
		case err != nil:
			panic(err) // what it has folded by itself it can go on with
		}
		p.data, p.live = now, rule.Live(now)
	}
	p.written = append(p.written, w)
	f.keys[w.Event.Key] = p
	return nil
}

// upkeep takes tombstones away, or makes some of what holds something: where the last event is the one that
// is named.
func (f *folded) upkeep(at events.Position, e events.Event) (done projections.Applied, err error) {
	all, err := e.Upkeep()
	if err != nil {
		return done, err
	}
	for _, t := range all {
		p, ok := f.keys[t.Key]
		if !ok || p.live != e.IsBurial() || p.written[len(p.written)-1].At.Offset != t.Offset {
			continue
		}
		if !e.IsBurial() {
			delete(f.keys, t.Key)
			done.Collected++
		} else if p.bury(t.Key, at) {
			f.keys[t.Key] = p
			done.Buried++
		}
	}
	return done, nil
}

// bury is by hand under lww.
func (p *part) bury(key string, at events.Position) bool {
	burial := mergetest.Burial(key, at)
	if rule := ruleOf[at.Stream]; rule == (lww.Rule{}) {
		s := slice{log: at.Log, clock: p.clock, offset: at.Offset, event: events.Event{Op: events.OpDelete, Type: events.TypeBury}}
		p.data = s.encode()
	} else {
		now, err := rule.Bury(nil, p.data, at)
		if err != nil {
			return false
		}
		p.data = now
	}
	p.live, p.written = false, append(p.written, burial)
	return true
}

// entries are the views of a stream's keys at a vector, in order, by what its rule means.
func (w world) entries(stream events.Stream, at events.Vector) (all []projections.Entry) {
	written := map[string][]mergetest.Written{}
	for l, next := range at {
		if l.Stream == stream {
			for key, p := range w.fold(l, next).keys {
				written[key] = append(written[key], p.written...)
			}
		}
	}
	model := mergetest.Models[ruleOf[stream].Name()]
	for _, key := range slices.Sorted(maps.Keys(written)) {
		history := written[key]
		slices.SortFunc(history, func(a, b mergetest.Written) int { return a.At.Compare(b.At) })
		if view := model(history); view.Exists {
			all = append(all, projections.Entry{Stream: stream, Key: key, View: view})
		}
	}
	return all
}

// streams are those of the logs, and the usual ones.
func (w world) streams() []events.Stream {
	all := map[events.Stream]bool{}
	for _, s := range streams {
		all[s] = true
	}
	for l := range w {
		all[l.Stream] = true
	}
	return slices.Sorted(maps.Keys(all))
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
	for _, stream := range w.streams() {
		want := w.entries(stream, at)
		if got := scanAll(t, []*projections.Shard{s}, stream, "", ""); !reflect.DeepEqual(got, want) {
			t.Fatalf("stream %s:\n%+v, want\n%+v", stream, got, want)
		}
		checkPoints(t, s, stream)
		for _, key := range keys {
			e := getOne(t, []*projections.Shard{s}, stream, key)
			i := slices.IndexFunc(want, func(e projections.Entry) bool { return e.Key == key })
			if e.Exists != (i >= 0) || i >= 0 && !reflect.DeepEqual(e, want[i]) {
				t.Fatalf("stream %s, key %q: %+v", stream, key, e)
			}
		}
	}
}

// checkPoints compares the slices of single keys, tombstones too, with those that a walk over
// all of them finds: they are read in different ways.
func checkPoints(t tb, s *projections.Shard, stream events.Stream) {
	t.Helper()
	shards, walked := []*projections.Shard{s}, map[string]projections.Entity{}
	for e, err := range projections.Entities(shards, stream, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		walked[e.Key] = e
	}
	for _, key := range slices.Concat(keys, slices.Collect(maps.Keys(walked)), []string{"", "absent"}) {
		want, there := walked[key]
		if !there {
			want = projections.Entity{Stream: stream, Key: key}
		}
		if got, err := projections.EntityOf(shards, stream, key); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("stream %s, key %q: %+v, %v; walking finds %+v", stream, key, got, err, want)
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
