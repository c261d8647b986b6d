package pipeline_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

func (p *past) backups() pipeline.Backups { return pipeline.Backups{Config: p.cfg, Bucket: p.bucket} }

// scanAt lists a stream as it was, some keys at a time.
func (p *past) scanAt(stream events.Stream, at api.PastTarget, limit int) (values map[string]string, vector events.Vector, err error) {
	values = map[string]string{}
	params := api.ScanAtParams{Stream: stream, PastTarget: at, Limit: limit}
	for {
		page, err := p.backups().ScanAt(context.Background(), params)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range page.Entries {
			values[string(e.Key)] = string(e.Value)
			params.After = e.Key
		}
		if vector == nil {
			vector = page.Context
		}
		if page.Context.Compare(vector) != events.Equal {
			return nil, nil, fmt.Errorf("a page is of %s, the first was of %s", page.Context, vector)
		}
		if !page.More {
			return values, vector, nil
		}
	}
}

// ofStream is a vector's part of a stream.
func ofStream(v events.Vector, stream events.Stream) events.Vector {
	part := events.Vector{}
	for l, next := range v {
		if l.Stream == stream {
			part[l] = next
		}
	}
	return part
}

// Whatever a region has been through, and whatever point is asked for: every key is what
// a plain fold of the records below the point gives, and nothing else is there.
func TestAnyPointIsRead(t *testing.T) {
	long(t)
	rapid.Check(t, func(t *rapid.T) {
		p := newPast(t)
		defer p.close()
		end := anyPast(t, p)
		newest, err := pipeline.PlanRestore(t.Context(), p.job(vfs.NewMem(), timeline.Target{}))
		if err != nil {
			return // there is nothing
		}
		target, want := anyTarget(t, p, newest.Vector, end)
		stream := rapid.SampledFrom(pastStreams).Draw(t, "stream")
		at := api.PastTarget{Vector: ofStream(want, stream)}
		if !target.Time.IsZero() {
			at = api.PastTarget{Time: &target.Time}
		} else if len(at.Vector) == 0 {
			return
		}
		values, vector, err := p.scanAt(stream, at, rapid.SampledFrom([]int{1, 3, 0}).Draw(t, "page"))
		if events.KindOf(err) == events.KindNotFound { // what only backups have cannot be had anywhere else
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if want != nil && vector.Compare(ofStream(want, stream)) != events.Equal {
			t.Fatalf("%s is the vector\n%s, want\n%s", target, vector, ofStream(want, stream))
		}
		naive := p.naive(stream, vector)
		if !maps.Equal(values, naive) {
			t.Fatalf("%s, at %s: %v, want %v", target, vector, values, naive)
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			for shard := range pastShards {
				key := fmt.Sprint(name, shard)
				e, err := p.backups().GetAt(t.Context(), api.GetAtParams{Stream: stream, Key: []byte(key), PastTarget: at})
				want, there := naive[key]
				switch {
				case !there && events.KindOf(err) != events.KindNotFound:
					t.Fatalf("%s at %s: %+v, %v", key, vector, e, err)
				case there && (err != nil || string(e.Value) != want || e.Context.Compare(vector) != events.Equal):
					t.Fatalf("%s at %s: %+v, %v; want %s", key, vector, e, err, want)
				}
			}
		}
	})
}

// A reading says of which vector it is and what it was made from, and what is folded of
// the segments are the records of the key.
func TestPointSaysWhatItIsMadeFrom(t *testing.T) {
	p := some(t)
	defer p.close()
	at := second(200)
	e, err := p.backups().GetAt(t.Context(), api.GetAtParams{Stream: "session", Key: []byte("key-3"), PastTarget: api.PastTarget{Time: &at}})
	if err != nil {
		t.Fatal(err)
	}
	found := int64(0)
	for l, next := range e.Context {
		for _, r := range p.records(l, next) {
			if r.Offset >= 10 && string(r.Key) == "key-3" {
				found++
			}
		}
	}
	if e.Backup == "" || e.Created.IsZero() || e.Backups != 1 || e.Segments == 0 || e.Records == 0 || e.Found != found || found == 0 || e.Requests == 0 || e.Bytes == 0 || e.Target == "" {
		t.Errorf("%+v, want %d found", e.PastPoint, found)
	}
	if e.Value == nil || p.naive("session", e.Context)["key-3"] != string(e.Value) {
		t.Errorf("%s", e.Value)
	}
	// The context of one partition is a point as well: that of this partition.
	part := events.Vector{}
	for l, next := range e.Context {
		if l.Partition == e.Position.Partition {
			part[l] = next
		}
	}
	again, err := p.backups().GetAt(t.Context(), api.GetAtParams{Stream: "session", Key: []byte("key-3"), PastTarget: api.PastTarget{Vector: part}})
	if err != nil || again.Position != e.Position || string(again.Value) != string(e.Value) || again.Segments >= e.Segments {
		t.Errorf("%+v, %v", again, err)
	}
	if names := slices.Collect(func(yield func(string) bool) {
		for info, err := range p.bucket.List(t.Context(), "") {
			if err == nil && strings.Contains(info.Name, "/pins/") && !yield(info.Name) {
				return
			}
		}
	}); len(names) > 0 {
		t.Errorf("pins are left: %v", names)
	}
}

// What is missing from the archive is told, and no older value instead.
func TestGapIsNoOlderValue(t *testing.T) {
	for what, spoil := range map[string]struct {
		do   func(p *past) error
		kind events.Kind
		says []string
	}{
		"a segment is gone": {func(p *past) error { return p.bucket.Delete(context.Background(), format.SegmentName(us, 0, 6)) },
			events.KindInconsistent, []string{format.SegmentName(us, 0, 6)}},
		"all of them are": {func(p *past) error {
			for shard := range int32(pastShards) {
				for n := range int64(20) {
					if err := p.bucket.Delete(context.Background(), format.SegmentName(us, shard, n+1)); err != nil {
						return err
					}
				}
			}
			return nil
		}, events.KindNotFound, []string{"nothing is archived", "backup"}},
	} {
		t.Run(what, func(t *testing.T) {
			p := some(t)
			defer p.close()
			if err := spoil.do(p); err != nil {
				t.Fatal(err)
			}
			at := second(400)
			_, err := p.backups().GetAt(t.Context(), api.GetAtParams{Stream: "session", Key: []byte("key-3"), PastTarget: api.PastTarget{Time: &at}})
			wantKind(t, err, spoil.kind, spoil.says...)
		})
	}
}

// Every damage to a segment that a reading needs is refused, and the object named.
func TestDamagedSegmentsAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := some(t)
		defer p.close()
		at := second(10_000)
		get := func() error {
			_, err := p.backups().GetAt(t.Context(), api.GetAtParams{Stream: "session", Key: []byte("key-3"), PastTarget: api.PastTarget{Vector: p.ends("session")}})
			return err
		}
		if err := get(); err != nil {
			t.Fatal(err, at)
		}
		for what, damage := range map[string]func(b []byte) []byte{
			"first byte flipped": func(b []byte) []byte { b[0] ^= 1; return b },
			"in the header":      func(b []byte) []byte { b[100] ^= 4; return b },
			"last byte flipped":  func(b []byte) []byte { b[len(b)-1] ^= 128; return b },
			"truncated":          func(b []byte) []byte { return b[:len(b)-1] },
			"empty":              func([]byte) []byte { return nil },
			"extended":           func(b []byte) []byte { return append(b, 0) },
		} {
			for _, n := range []int64{2, 7, 11} {
				name := format.SegmentName(us, 0, n)
				var whole []byte
				if err := p.bucket.Damage(name, func(b []byte) []byte { whole = slices.Clone(b); return damage(b) }); err != nil {
					t.Fatal(err)
				}
				if err := get(); events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), name) {
					t.Errorf("%s, segment %d: %v", what, n, err)
				}
				if err := p.bucket.Damage(name, func([]byte) []byte { return whole }); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// ends is where all logs of a stream end.
func (p *past) ends(stream events.Stream) events.Vector {
	v := events.Vector{}
	for l, records := range p.logs {
		if l.Stream == stream && len(records) > 0 {
			v[l] = records[len(records)-1].Offset + 1
		}
	}
	return v
}

// A region at rest archives nothing. That nothing came is known from a backup that was
// made later.
func TestPointInAQuietTime(t *testing.T) {
	p := some(t)
	defer p.close()
	at := second(2_000)
	get := func() (*api.EntryAt, error) {
		return p.backups().GetAt(t.Context(), api.GetAtParams{Stream: "session", Key: []byte("key-3"), PastTarget: api.PastTarget{Time: &at}})
	}
	_, err := get()
	wantKind(t, err, events.KindNotFound, "nothing is archived at or after")
	p.backup(second(3_000))
	e, err := get()
	if err != nil || string(e.Value) != p.naive("session", p.ends("session"))["key-3"] || len(e.Lacks) != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	p.put(pastLogs(0)[1], "key-3", "later", second(3_001))
	p.fold(0)
	p.backup(second(3_002))
	if e, err = get(); err != nil || string(e.Value) == "later" {
		t.Errorf("with another behind it: %+v, %v", e, err)
	}
	at = second(3_001)
	_, err = get()
	wantKind(t, err, events.KindNotFound, "nothing is archived at or after")
}

// A collection takes a tombstone out of the past as it does out of a region's state:
// what is written behind it begins anew.
func TestCollectedInThePast(t *testing.T) {
	p := newPast(t)
	defer p.close()
	l := pastLogs(0)[1]
	p.put(l, "k", "one", second(100))
	p.write(l, &kgo.Record{Key: []byte("k"), Timestamp: second(101)}, 0)
	p.write(l, &kgo.Record{Key: []byte("other"), Timestamp: second(102)}, 0)
	p.fold(0)
	p.backup(second(103))
	e, err := events.NewCollection([]events.Tombstone{{Key: "k", Offset: 1}, {Key: "other", Offset: 2}})
	if err != nil {
		t.Fatal(err)
	}
	e.ID, e.Source, e.Clock = "c", "/test", events.HLCAt(second(104))
	r, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	r.Timestamp = second(104)
	p.write(l, r, 0)
	p.put(l, "k", "earlier by its clock", second(50)) // counts as it says only if the tombstone is gone
	p.fold(0)
	p.archive(0, second(105), 1000)
	at := events.Vector{l: 5}
	got, err := p.backups().GetAt(t.Context(), api.GetAtParams{Stream: l.Stream, Key: []byte("k"), PastTarget: api.PastTarget{Vector: at}})
	if err != nil || string(got.Value) != "earlier by its clock" || got.Clock != events.HLCAt(second(50)) || got.Found != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	delete(at, l)
	at[l] = 4
	_, err = p.backups().GetAt(t.Context(), api.GetAtParams{Stream: l.Stream, Key: []byte("k"), PastTarget: api.PastTarget{Vector: at}})
	wantKind(t, err, events.KindNotFound, "had no key")
}

// A burial takes away in the past what it took away of a region's state, if what it names was the last event then.
func TestBuriedInThePast(t *testing.T) {
	p := newPast(t)
	defer p.close()
	l := pastLogs(0)[1]
	p.put(l, "k", "one", second(100))
	p.put(l, "again", "two", second(101))
	p.put(l, "again", "three", second(102))
	p.fold(0)
	p.backup(second(103))
	e, err := events.NewBurial([]events.Tombstone{{Key: "k", Offset: 0}, {Key: "again", Offset: 1}})
	if err != nil {
		t.Fatal(err)
	}
	e.ID, e.Source, e.Clock = "b", "/test", events.HLCAt(second(104))
	r, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	r.Timestamp = second(104)
	p.write(l, r, 0)
	p.fold(0)
	p.archive(0, second(105), 1000)
	get := func(key string, at int64) (*api.EntryAt, error) {
		return p.backups().GetAt(t.Context(), api.GetAtParams{Stream: l.Stream, Key: []byte(key), PastTarget: api.PastTarget{Vector: events.Vector{l: at}}})
	}
	if got, err := get("k", 3); err != nil || string(got.Value) != "one" {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = get("k", 4)
	wantKind(t, err, events.KindNotFound, "had no key")
	if got, err := get("again", 4); err != nil || string(got.Value) != "three" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestScanAtRefuses(t *testing.T) {
	p := some(t)
	defer p.close()
	at := second(200)
	for name, c := range map[string]struct {
		p    api.ScanAtParams
		kind events.Kind
		says string
	}{
		"no stream":        {api.ScanAtParams{Stream: "nobody"}, events.KindNotFound, "nobody"},
		"limit":            {api.ScanAtParams{Stream: "session", Limit: -1}, events.KindInvalid, "limit"},
		"two targets":      {api.ScanAtParams{Stream: "session", PastTarget: api.PastTarget{Time: &at, Backup: "x"}}, events.KindInvalid, "not several"},
		"another's vector": {api.ScanAtParams{Stream: "session", PastTarget: api.PastTarget{Vector: events.Vector{pastLogs(0)[0]: 1}}}, events.KindInvalid, "no log of stream session"},
		"the future":       {api.ScanAtParams{Stream: "session", PastTarget: api.PastTarget{Time: new(time.Now().Add(time.Hour))}}, events.KindInvalid, "not over"},
	} {
		_, err := p.backups().ScanAt(t.Context(), c.p)
		if events.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
