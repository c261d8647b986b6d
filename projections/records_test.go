package projections_test

import (
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

// genRecord gives what may be in a log: bare records and CloudEvents, puts and
// deletes, clocks that jump about, collections of tombstones, burials, and now and then what
// is no event.
func genRecord() *rapid.Generator[*kgo.Record] {
	return rapid.Custom(func(t *rapid.T) *kgo.Record {
		r := &kgo.Record{
			Key:       []byte(rapid.SampledFrom(keys).Draw(t, "key")),
			Timestamp: time.UnixMilli(rapid.Int64Range(-1, 5).Draw(t, "millis")),
		}
		switch rapid.IntRange(0, 12).Draw(t, "kind") {
		case 0, 1:
			return r // a null value
		case 2:
			r.Key = nil // no event
			return r
		case 3:
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_id", Value: []byte("1")}) // no event
			return r
		case 4:
			return genUpkeep().Draw(t, "upkeep")
		case 5, 6:
			typ := rapid.SampledFrom([]string{events.TypePut, events.TypeDelete, events.TypeCollect, events.TypeBury, "t"}).Draw(t, "type")
			clock := rapid.SampledFrom([]string{"0.0", "0.1", "3.0", "4.65535", "281474976710655.65530"}).Draw(t, "clock")
			r.Headers = ceHeaders(typ, clock)
		case 7, 8, 9:
			return genJSON(r).Draw(t, "JSON")
		}
		r.Value = rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "value")
		return r
	})
}

// genJSON makes of a record what rules that look into values and contexts can do more with:
// any operation, a value that some of them understand, and what its writer had seen.
func genJSON(r *kgo.Record) *rapid.Generator[*kgo.Record] {
	return rapid.Custom(func(t *rapid.T) *kgo.Record {
		typ := rapid.SampledFrom([]string{
			events.TypePatch, events.TypePatch, events.TypePatch, events.TypePut, events.TypeDelete, events.TypeResolve, events.TypeAppend,
		}).Draw(t, "type")
		r.Headers = ceHeaders(typ, rapid.SampledFrom([]string{"0.0", "2.0", "5.1"}).Draw(t, "clock"))
		for i, h := range r.Headers {
			if h.Key == "content-type" {
				r.Headers[i].Value = []byte("application/json")
			}
		}
		if deps := genContext().Draw(t, "context"); len(deps) > 0 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_deps", Value: []byte(deps.String())})
		}
		r.Value = []byte(rapid.SampledFrom([]string{
			`{"set":{"a":1,"b":[]}}`, `{"unset":["a"]}`, `{"increment":{"n":1}}`, `{"increment":{"n":-2,"m":5}}`,
			`{"add":{"s":["x","y"]}}`, `{"add":{"s":["x"]}}`, `{"remove":{"s":["x"]}}`, `{"set":{"n":2},"add":{"a":[1]}}`, `{}`, `{`,
		}).Draw(t, "value"))
		return r
	})
}

// genContext gives what a writer may say that it had seen, true or not.
func genContext() *rapid.Generator[events.Context] {
	return rapid.Custom(func(t *rapid.T) (c events.Context) {
		for _, o := range regions {
			if rapid.Bool().Draw(t, o.String()) {
				c = append(c, events.Seen{Origin: o, Next: rapid.Int64Range(0, 20).Draw(t, "next")})
			}
		}
		slices.SortFunc(c, func(a, b events.Seen) int { return a.Origin.Compare(b.Origin) })
		return c
	})
}

// genUpkeep gives collections and burials that name what there is, what there is not, and
// what was replaced since.
func genUpkeep() *rapid.Generator[*kgo.Record] {
	return rapid.Custom(func(t *rapid.T) *kgo.Record {
		var named []events.Tombstone
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 1, 3, rapid.ID).Draw(t, "named") {
			from := rapid.Int64Range(0, 40).Draw(t, "from")
			for offset := from; offset < from+20; offset++ {
				named = append(named, events.Tombstone{Key: key, Offset: offset})
			}
		}
		if rapid.Bool().Draw(t, "burial") {
			return burial(t, named...)
		}
		return collection(t, named...)
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
