package events_test

import (
	"math"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/schemas"
)

// Generators of valid values. Names come now from a handful that are each
// other's neighbours, so that two draws meet, now from all that there are.

func genRegion() *rapid.Generator[events.Region] {
	near := rapid.SampledFrom([]string{"a", "a-1", "a1", "b", "eu-central-1", "us", "us-east-1"})
	all := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`)
	return rapid.Map(rapid.OneOf(near, all), func(s string) events.Region { return events.Region(s) })
}

func genStream() *rapid.Generator[events.Stream] {
	near := rapid.SampledFrom([]string{"a", "a-b", "a_b", "config", "session"})
	all := rapid.StringMatching(`[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?`)
	return rapid.Map(rapid.OneOf(near, all), func(s string) events.Stream { return events.Stream(s) })
}

func genOrigin() *rapid.Generator[events.Origin] {
	return rapid.Custom(func(t *rapid.T) events.Origin {
		n := rapid.OneOf(rapid.Uint32Range(1, 12), rapid.Uint32Range(1, math.MaxUint32))
		return events.Origin{Region: genRegion().Draw(t, "region"), Incarnation: n.Draw(t, "incarnation")}
	})
}

func genLog() *rapid.Generator[events.Log] {
	return rapid.Custom(func(t *rapid.T) events.Log {
		p := rapid.OneOf(rapid.Int32Range(0, 11), rapid.Int32Range(0, events.MaxPartition-1))
		return events.Log{Origin: genOrigin().Draw(t, "origin"), Stream: genStream().Draw(t, "stream"), Partition: p.Draw(t, "partition")}
	})
}

func genOffset() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64Range(0, 9), rapid.Int64Range(0, math.MaxInt64))
}

func genPosition() *rapid.Generator[events.Position] {
	return rapid.Custom(func(t *rapid.T) events.Position {
		return genLog().Draw(t, "log").At(genOffset().Draw(t, "offset"))
	})
}

func genHLC() *rapid.Generator[events.HLC] {
	return rapid.Map(rapid.Uint64(), func(n uint64) events.HLC { return events.HLC(n) })
}

func genDigest() *rapid.Generator[events.Digest] {
	return rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) events.Digest { return events.Digest(b) })
}

// genVector gives vectors over few logs of four regions, so that two of them
// have logs in common; some have logs at offset 0, which is the same as none.
func genVector() *rapid.Generator[events.Vector] {
	log := rapid.Custom(func(t *rapid.T) events.Log {
		return events.Log{
			Origin:    events.Origin{Region: rapid.SampledFrom([]events.Region{"eu", "us", "us-a", "ap"}).Draw(t, "region"), Incarnation: rapid.Uint32Range(1, 2).Draw(t, "incarnation")},
			Stream:    rapid.SampledFrom([]events.Stream{"config", "session"}).Draw(t, "stream"),
			Partition: rapid.Int32Range(0, 1).Draw(t, "partition"),
		}
	})
	return rapid.Map(rapid.MapOf(log, rapid.OneOf(rapid.Int64Range(0, 4), genOffset())),
		func(m map[events.Log]int64) events.Vector { return m })
}

func genContext() *rapid.Generator[events.Context] {
	return rapid.Custom(func(t *rapid.T) events.Context {
		origins := rapid.SliceOfNDistinct(genOrigin(), 0, 6, rapid.ID).Draw(t, "origins")
		slices.SortFunc(origins, events.Origin.Compare)
		var c events.Context
		for _, o := range origins {
			c = append(c, events.Seen{Origin: o, Next: max(1, genOffset().Draw(t, "next"))})
		}
		return c
	})
}

// genText gives attributes: any text, even broken UTF-8, without control
// characters.
func genText(least, most int) *rapid.Generator[string] {
	anything := rapid.Map(rapid.SliceOfN(rapid.Byte(), least, most), func(b []byte) string {
		for i, c := range b {
			if c < 0x20 || c == 0x7f {
				b[i] = '~'
			}
		}
		return string(b)
	})
	return rapid.OneOf(rapid.StringMatching(`[a-z/.+ü-]{1,12}`), anything)
}

// genTime gives every time that RFC 3339 can write, in any zone.
func genTime() *rapid.Generator[time.Time] {
	first := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	last := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	return rapid.Custom(func(t *rapid.T) time.Time {
		zone := time.FixedZone("somewhere", rapid.IntRange(-12*3600, 14*3600).Draw(t, "zone"))
		return time.Unix(rapid.Int64Range(first, last).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")).In(zone)
	})
}

// genEvent gives valid events, bare ones among them, and none whose payload
// breaks the contract of its type.
func genEvent() *rapid.Generator[events.Event] {
	return rapid.Custom(func(t *rapid.T) events.Event {
		e := events.Event{
			Key:         string(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")),
			Value:       rapid.OneOf(rapid.Just[[]byte](nil), rapid.SliceOf(rapid.Byte())).Draw(t, "value"),
			ContentType: rapid.OneOf(rapid.SampledFrom([]string{"", "application/json"}), genText(0, 30)).Draw(t, "content type"),
		}
		if strings.HasPrefix(strings.ToLower(e.ContentType), "application/cloudevents") {
			t.Skip("structured mode")
		}
		e.Clock = events.HLCFromMillis(rapid.Int64Range(0, events.MaxHLC.Millis()).Draw(t, "millis"))
		if rapid.Bool().Draw(t, "bare") {
			e.Op = opFor(e)
			return e
		}
		e.ID, e.Source = genText(1, 20).Draw(t, "id"), genText(1, 20).Draw(t, "source")
		e.Type = rapid.OneOf(rapid.SampledFrom([]string{events.TypePut, events.TypeDelete, events.TypePatch, events.TypeAppend, events.TypeResolve}), genText(1, 20)).Draw(t, "type")
		e.Subject = rapid.OneOf(rapid.Just(""), genText(0, 20)).Draw(t, "subject")
		e.Time = rapid.OneOf(rapid.Just(time.Time{}), genTime()).Draw(t, "time")
		e.Clock = genHLC().Draw(t, "clock")
		e.Deps = genContext().Draw(t, "deps")
		e.Epoch = events.Epoch(rapid.Uint64().Draw(t, "epoch"))
		if goldens := goldenEvents(); rapid.Bool().Draw(t, "of a known type") {
			g := rapid.SampledFrom(goldens).Draw(t, "golden")
			e.Type, e.ContentType, e.Value = g.Type, g.ContentType, g.Value
			if rapid.Bool().Draw(t, "null") {
				e.Value = nil
			}
		}
		e.Op = opFor(e)
		return e
	})
}

// opFor is the operation that an event of this type and value has.
func opFor(e events.Event) events.Op {
	t, known := schemas.Lookup(e.Type)
	switch {
	case e.Value == nil, e.Type == events.TypeDelete, known && t.Op == schemas.OpDelete:
		return events.OpDelete
	case e.Type == events.TypePatch:
		return events.OpPatch
	case e.Type == events.TypeAppend:
		return events.OpAppend
	case e.Type == events.TypeResolve:
		return events.OpResolve
	}
	return events.OpPut
}
