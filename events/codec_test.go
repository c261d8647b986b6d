package events_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

// headers makes headers of name and value in turn.
func headers(pairs ...string) []kgo.RecordHeader {
	var hs []kgo.RecordHeader
	for i := 0; i < len(pairs); i += 2 {
		hs = append(hs, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return hs
}

// required is the least that a CloudEvent has, followed by more.
func required(more ...string) []kgo.RecordHeader {
	return headers(append([]string{"ce_specversion", "1.0", "ce_id", "1", "ce_source", "/test", "ce_type", "t"}, more...)...)
}

// same compares what a decoded event must have in common with the one that was
// encoded: everything, the time as a point in time.
func same(a, b events.Event) bool {
	if !a.Time.Equal(b.Time) || (a.Value == nil) != (b.Value == nil) || !bytes.Equal(a.Value, b.Value) || a.Deps.String() != b.Deps.String() {
		return false
	}
	a.Time, b.Time, a.Value, b.Value, a.Deps, b.Deps = time.Time{}, time.Time{}, nil, nil, nil, nil
	return reflect.DeepEqual(a, b)
}

func TestDecodeIsInverseOfEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genEvent().Draw(t, "event")
		r, err := events.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if r.Topic != "" || r.Timestamp.IsZero() == e.IsBare() {
			t.Fatalf("record of topic %q at %s", r.Topic, r.Timestamp)
		}
		got, err := events.Decode(r)
		if err != nil || !same(got, e) {
			t.Fatalf("%+v\nis read as\n%+v, %v", e, got, err)
		}
		again, err := events.Encode(got)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v\nis written again as\n%+v, %v", r, again, err)
		}
	})
}

func TestBareRecords(t *testing.T) {
	at := time.UnixMilli(1750774237000)
	for name, c := range map[string]struct {
		record kgo.Record
		want   events.Event
	}{
		"put":                {kgo.Record{Value: []byte("v"), Timestamp: at}, events.Event{Op: events.OpPut, Value: []byte("v"), Clock: events.HLCAt(at)}},
		"null value":         {kgo.Record{Timestamp: at}, events.Event{Op: events.OpDelete, Clock: events.HLCAt(at)}},
		"empty value":        {kgo.Record{Value: []byte{}, Timestamp: at}, events.Event{Op: events.OpPut, Value: []byte{}, Clock: events.HLCAt(at)}},
		"no timestamp":       {kgo.Record{Timestamp: time.UnixMilli(-1)}, events.Event{Op: events.OpDelete}},
		"least timestamp":    {kgo.Record{Timestamp: time.UnixMilli(math.MinInt64)}, events.Event{Op: events.OpDelete}},
		"largest timestamp":  {kgo.Record{Timestamp: time.UnixMilli(math.MaxInt64)}, events.Event{Op: events.OpDelete, Clock: events.HLCFromMillis(math.MaxInt64)}},
		"content type":       {kgo.Record{Headers: headers("content-type", "a/b")}, events.Event{Op: events.OpDelete, ContentType: "a/b"}},
		"empty content type": {kgo.Record{Headers: headers("content-type", "")}, events.Event{Op: events.OpDelete}},
		"other headers":      {kgo.Record{Headers: headers("a", "b", "a", "b\n", "", "", "ce_", "x", "ce_other", "y", "CE_ID", "z")}, events.Event{Op: events.OpDelete}},
	} {
		c.record.Key, c.want.Key = []byte("k"), "k"
		got, err := events.Decode(&c.record)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: read as %+v, %v", name, got, err)
		}
		if !got.IsBare() {
			t.Errorf("%s: not bare", name)
		}
	}
}

func TestCloudEvents(t *testing.T) {
	at := time.UnixMilli(1750774237000)
	for name, c := range map[string]struct {
		headers []kgo.RecordHeader
		null    bool
		want    func(e *events.Event)
	}{
		"least":           {required(), false, func(e *events.Event) {}},
		"null value":      {required(), true, func(e *events.Event) { e.Op = events.OpDelete }},
		"clock":           {required("ce_hlc", "5.1"), false, func(e *events.Event) { e.Clock = 5<<16 | 1 }},
		"zero clock":      {required("ce_hlc", "0.0"), false, func(e *events.Event) { e.Clock = 0 }},
		"time in a zone":  {required("ce_time", "2026-01-01T02:00:00.5+02:00"), false, func(e *events.Event) { e.Time = time.Date(2026, 1, 1, 0, 0, 0, 5e8, time.UTC) }},
		"subject":         {required("ce_subject", "s"), false, func(e *events.Event) { e.Subject = "s" }},
		"empty subject":   {required("ce_subject", ""), false, func(e *events.Event) {}},
		"epoch":           {required("ce_epoch", "9"), false, func(e *events.Event) { e.Epoch = 9 }},
		"context":         {required("ce_deps", "eu@3"), false, func(e *events.Event) { e.Deps = put().Deps }},
		"empty context":   {required("ce_deps", ""), false, func(e *events.Event) {}},
		"content type":    {required("content-type", "a/b"), false, func(e *events.Event) { e.ContentType = "a/b" }},
		"unknown headers": {required("ce_traceparent", "x", "ce_traceparent", "y\n", "other", ""), false, func(e *events.Event) {}},
		"longest context": {required("ce_deps", manyOrigins(events.MaxContextOrigins)), false, func(e *events.Event) {
			for i := range events.MaxContextOrigins {
				e.Deps = append(e.Deps, events.Seen{Origin: events.FirstOrigin(events.Region(fmt.Sprintf("r%04d", i))), Next: 1})
			}
		}},
	} {
		want := events.Event{Key: "k", Op: events.OpPut, Clock: events.HLCAt(at), Value: []byte("v"), ID: "1", Source: "/test", Type: "t"}
		r := &kgo.Record{Key: []byte("k"), Value: want.Value, Headers: c.headers, Timestamp: at}
		if c.null {
			r.Value, want.Value = nil, nil
		}
		c.want(&want)
		if got, err := events.Decode(r); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read as %+v, %v", name, got, err)
		}
	}
}

func TestOperationOfATypeDependsOnTypeAndNull(t *testing.T) {
	for _, c := range []struct {
		typ   string
		value []byte
		want  events.Op
	}{
		{events.TypePut, []byte("v"), events.OpPut},
		{events.TypePut, []byte{}, events.OpPut},
		{events.TypePut, nil, events.OpDelete},
		{events.TypeDelete, []byte("why"), events.OpDelete},
		{events.TypeDelete, []byte{}, events.OpDelete},
		{events.TypeDelete, nil, events.OpDelete},
		{events.TypePatch, []byte("{}"), events.OpPatch},
		{events.TypePatch, nil, events.OpDelete},
		{events.TypeAppend, []byte{}, events.OpAppend},
		{events.TypeAppend, nil, events.OpDelete},
		{events.TypeResolve, []byte("v"), events.OpResolve},
		{events.TypeResolve, nil, events.OpDelete},
		{"somebody.elses.v1", []byte{}, events.OpPut},
		{"somebody.elses.v1", nil, events.OpDelete},
	} {
		hs := headers("ce_specversion", "1.0", "ce_id", "1", "ce_source", "/test", "ce_type", c.typ)
		e, err := events.Decode(&kgo.Record{Key: []byte("k"), Value: c.value, Headers: hs})
		if err != nil || e.Op != c.want || (e.Value == nil) != (c.value == nil) {
			t.Errorf("%s with value %q: a %s with value %#v, %v", c.typ, c.value, e.Op, e.Value, err)
		}
	}
}

func TestBrokenRecords(t *testing.T) {
	const structured = "content-type: structured content mode is not understood; use binary mode"
	without := func(name string) []kgo.RecordHeader {
		var hs []kgo.RecordHeader
		for _, h := range required() {
			if h.Key != name {
				hs = append(hs, h)
			}
		}
		return hs
	}
	with := func(name, value string) []kgo.RecordHeader {
		return append(without(name), headers(name, value)...)
	}
	tooLong := strings.Repeat("a", events.MaxAttributeBytes+1)
	for _, c := range []struct {
		name    string
		headers []kgo.RecordHeader
		want    string
	}{
		{"no version", without("ce_specversion"), "ce_specversion: missing; a CloudEvent needs it"},
		{"no id", without("ce_id"), "ce_id: missing; a CloudEvent needs it"},
		{"no source", without("ce_source"), "ce_source: missing; a CloudEvent needs it"},
		{"no type", without("ce_type"), "ce_type: missing; a CloudEvent needs it"},
		{"nothing but a clock", headers("ce_hlc", "1.0"), "ce_specversion: missing; a CloudEvent needs it"},
		{"nothing but a context", headers("ce_deps", ""), "ce_specversion: missing; a CloudEvent needs it"},
		{"old version", with("ce_specversion", "0.3"), `ce_specversion: "0.3": only 1.0 is understood`},
		{"empty version", with("ce_specversion", ""), `ce_specversion: "": only 1.0 is understood`},
		{"empty id", with("ce_id", ""), "ce_id: empty"},
		{"empty source", with("ce_source", ""), "ce_source: empty"},
		{"empty type", with("ce_type", ""), "ce_type: empty"},
		{"id too long", with("ce_id", tooLong), "ce_id: 1025 bytes: want at most 1024"},
		{"source too long", with("ce_source", tooLong), "ce_source: 1025 bytes: want at most 1024"},
		{"type too long", with("ce_type", tooLong), "ce_type: 1025 bytes: want at most 1024"},
		{"subject too long", required("ce_subject", tooLong), "ce_subject: 1025 bytes: want at most 1024"},
		{"content type too long", required("content-type", tooLong), "content-type: 1025 bytes: want at most 1024"},
		{"control character", with("ce_id", "a\x00"), "ce_id: control character at byte 1"},
		{"delete character", required("ce_subject", "ü\x7f"), "ce_subject: control character at byte 2"},
		{"two versions", required("ce_specversion", "1.0"), "ce_specversion: given twice"},
		{"two ids", required("ce_id", "1"), "ce_id: given twice"},
		{"two sources", required("ce_source", "/test"), "ce_source: given twice"},
		{"two types", required("ce_type", "t"), "ce_type: given twice"},
		{"two times", required("ce_time", "2026-01-01T00:00:00Z", "ce_time", "2026-01-01T00:00:00Z"), "ce_time: given twice"},
		{"two subjects", required("ce_subject", "s", "ce_subject", ""), "ce_subject: given twice"},
		{"two clocks", required("ce_hlc", "1.0", "ce_hlc", "1.0"), "ce_hlc: given twice"},
		{"two contexts", required("ce_deps", "", "ce_deps", ""), "ce_deps: given twice"},
		{"two epochs", required("ce_epoch", "1", "ce_epoch", "1"), "ce_epoch: given twice"},
		{"two content types", headers("content-type", "a/b", "content-type", ""), "content-type: given twice"},
		{"no time", required("ce_time", "yesterday"), "ce_time: no RFC 3339 time"},
		{"empty time", required("ce_time", ""), "ce_time: no RFC 3339 time"},
		{"time past the years", required("ce_time", "9999-12-31T23:59:59-01:00"), "ce_time: time in the year 10000: want 0 to 9999"},
		{"time before the years", required("ce_time", "0000-01-01T00:00:00+01:00"), "ce_time: time in the year -1: want 0 to 9999"},
		{"no clock", required("ce_hlc", "1"), `ce_hlc: clock "1": want MILLISECONDS.COUNTER, e.g. 1750774237000.0`},
		{"no context", required("ce_deps", "eu"), `ce_deps: context "eu": want ORIGIN@OFFSET,…`},
		{"context out of order", required("ce_deps", "us@1,eu@1"), "ce_deps: context: eu after us: want ascending origins, each once"},
		{"context too long", required("ce_deps", manyOrigins(events.MaxContextOrigins+1)), "ce_deps: context: more than 256 origins"},
		{"no epoch", required("ce_epoch", "-1"), `ce_epoch: epoch "-1": want a whole number`},
		{"structured mode", headers("content-type", "application/cloudevents+json"), structured},
		{"structured mode with a charset", headers("content-type", "application/cloudevents+json; charset=utf-8"), structured},
		{"structured mode in capitals", headers("content-type", "Application/CloudEvents+JSON"), structured},
		{"batched mode", headers("content-type", "application/cloudevents-batch+json"), structured},
		{"both modes", required("content-type", "application/cloudevents+json"), structured},
		{"too many headers", make([]kgo.RecordHeader, events.MaxHeaders+1), "record: 129 headers: want at most 128"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := events.Decode(&kgo.Record{Key: []byte("k"), Value: []byte("v"), Headers: c.headers})
			if err == nil || err.Error() != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
			if !reflect.DeepEqual(e, events.Event{}) {
				t.Errorf("both an error and the event %+v", e)
			}
			var de *events.DecodeError
			if field, reason, _ := strings.Cut(c.want, ": "); !errors.As(err, &de) || de.Field != field || de.Reason != reason {
				t.Errorf("error %#v", err)
			}
		})
	}
}

func TestLimitsOfRecords(t *testing.T) {
	key, value := make([]byte, events.MaxKeyBytes+1), make([]byte, events.MaxValueBytes+1)
	for name, c := range map[string]struct {
		record kgo.Record
		want   string
	}{
		"largest":         {kgo.Record{Key: key[1:], Value: value[1:], Headers: make([]kgo.RecordHeader, events.MaxHeaders)}, ""},
		"no key":          {kgo.Record{Value: []byte("v")}, "key: 0 bytes: want 1 to 32768"},
		"empty key":       {kgo.Record{Key: []byte{}, Value: []byte("v")}, "key: 0 bytes: want 1 to 32768"},
		"key too long":    {kgo.Record{Key: key}, "key: 32769 bytes: want 1 to 32768"},
		"value too large": {kgo.Record{Key: key[:1], Value: value}, "value: 16777217 bytes: want at most 16777216"},
	} {
		if _, err := events.Decode(&c.record); errorText(err) != c.want {
			t.Errorf("%s: error %q, want %q", name, errorText(err), c.want)
		}
	}
}

// Whatever is wrong with a record, its error never shows its value or its key.
func TestErrorsNeverQuoteThePayload(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2"
	rapid.Check(t, func(t *rapid.T) {
		r := &kgo.Record{Key: []byte(secret), Value: []byte(secret)}
		names := rapid.SampledFrom([]string{"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_hlc", "ce_deps", "ce_epoch", "content-type"})
		values := rapid.SampledFrom([]string{"", "1.0", "1", "x", "application/json", "application/protobuf", "\x00"})
		for range rapid.IntRange(0, 6).Draw(t, "headers") {
			value := values.Draw(t, "value")
			name := names.Draw(t, "name")
			if name == "ce_type" {
				value = rapid.SampledFrom(goldenEvents()).Draw(t, "type").Type
			}
			r.Headers = append(r.Headers, headers(name, value)...)
		}
		if rapid.Bool().Draw(t, "too large") {
			r.Key = bytes.Repeat(r.Key, events.MaxKeyBytes)
		}
		if _, err := events.Decode(r); err != nil && strings.Contains(err.Error(), "hunter") {
			t.Fatalf("error %q", err)
		}
		e := events.Event{Key: secret, Value: []byte(secret), Op: rapid.SampledFrom([]events.Op{0, events.OpPut, events.OpDelete}).Draw(t, "op"), ID: "1"}
		if _, err := events.Encode(e); err == nil || strings.Contains(err.Error(), "hunter") {
			t.Fatalf("error %v", err)
		}
	})
}
