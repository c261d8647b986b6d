package events_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

// put is a valid event to start from.
func put() events.Event {
	return events.Event{
		Key: "k", Op: events.OpPut, Clock: 5<<16 | 1, Value: []byte("v"), ContentType: "text/plain",
		Deps:  events.Context{{Origin: events.FirstOrigin("eu"), Next: 3}},
		Epoch: 2, ID: "1", Source: "/test", Type: events.TypePut, Subject: "s", Time: time.Unix(7, 8).UTC(),
	}
}

// barePut is a valid event of a bare record.
func barePut() events.Event {
	return events.Event{Key: "k", Op: events.OpPut, Clock: 5 << 16, Value: []byte("v")}
}

func TestValidate(t *testing.T) {
	big := make([]byte, events.MaxValueBytes+1)
	attribute := strings.Repeat("a", events.MaxAttributeBytes)
	for _, c := range []struct {
		name string
		from func() events.Event
		do   func(e *events.Event)
		want string // the error; empty if there is none
	}{
		{"a put", put, func(e *events.Event) {}, ""},
		{"a bare put", barePut, func(e *events.Event) {}, ""},
		{"no key", put, func(e *events.Event) { e.Key = "" }, "event: key of 0 bytes: want 1 to 32768"},
		{"longest key", put, func(e *events.Event) { e.Key = strings.Repeat("k", events.MaxKeyBytes) }, ""},
		{"key too long", put, func(e *events.Event) { e.Key = strings.Repeat("k", events.MaxKeyBytes+1) }, "event: key of 32769 bytes: want 1 to 32768"},
		{"any bytes in the key", put, func(e *events.Event) { e.Key = "\x00\xff\n" }, ""},
		{"largest value", put, func(e *events.Event) { e.Value = big[:events.MaxValueBytes] }, ""},
		{"value too large", put, func(e *events.Event) { e.Value = big }, "event: value of 16777217 bytes: want 0 to 16777216"},
		{"empty value", put, func(e *events.Event) { e.Value = []byte{} }, ""},
		{"put of nothing", put, func(e *events.Event) { e.Value = nil }, "event: a put needs a value, if only an empty one"},
		{"no operation", put, func(e *events.Event) { e.Op = 0 }, "event: none is no operation"},
		{"unknown operation", put, func(e *events.Event) { e.Op = 7 }, "event: Op(7) is no operation"},
		{"no id", put, func(e *events.Event) { e.ID = "" }, "event: CloudEvents id, source and type are given together or not at all"},
		{"no source", put, func(e *events.Event) { e.Source = "" }, "event: CloudEvents id, source and type are given together or not at all"},
		{"no type", put, func(e *events.Event) { e.Type = "" }, "event: CloudEvents id, source and type are given together or not at all"},
		{"longest id", put, func(e *events.Event) { e.ID = attribute }, ""},
		{"id too long", put, func(e *events.Event) { e.ID = attribute + "a" }, "event: id of 1025 bytes: want at most 1024"},
		{"source too long", put, func(e *events.Event) { e.Source = attribute + "a" }, "event: source of 1025 bytes: want at most 1024"},
		{"type too long", put, func(e *events.Event) { e.Type = attribute + "a" }, "event: type of 1025 bytes: want at most 1024"},
		{"subject too long", put, func(e *events.Event) { e.Subject = attribute + "a" }, "event: subject of 1025 bytes: want at most 1024"},
		{"content type too long", put, func(e *events.Event) { e.ContentType = attribute + "a" }, "event: content type of 1025 bytes: want at most 1024"},
		{"line break in the id", put, func(e *events.Event) { e.ID = "a\nb" }, "event: id has a control character at byte 1"},
		{"delete character in the subject", put, func(e *events.Event) { e.Subject = "ab\x7f" }, "event: subject has a control character at byte 2"},
		{"contexts out of order", put, func(e *events.Event) { e.Deps = append(e.Deps, e.Deps[0]) }, "context: eu after eu: want ascending origins, each once"},
		{"context at offset 0", put, func(e *events.Event) { e.Deps[0].Next = 0 }, ""},
		{"context below offset 0", put, func(e *events.Event) { e.Deps[0].Next = -1 }, "context: eu@-1: want an offset of 0 or more"},
		{"structured mode", put, func(e *events.Event) { e.ContentType = "Application/CloudEvents+json" }, "event: content type: structured content mode is not understood; use binary mode"},
		{"structured mode, bare", barePut, func(e *events.Event) { e.ContentType = "application/cloudevents-batch+json" }, "event: content type: structured content mode is not understood; use binary mode"},
		{"first year", put, func(e *events.Event) { e.Time = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) }, ""},
		{"last year", put, func(e *events.Event) { e.Time = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC) }, ""},
		{"year 10000", put, func(e *events.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "event: time in the year 10000: want 0 to 9999"},
		{"year 10000 in UTC", put, func(e *events.Event) { e.Time = time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -7200)) }, "event: time in the year 10000: want 0 to 9999"},
		{"before Christ", put, func(e *events.Event) { e.Time = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC) }, "event: time in the year -1: want 0 to 9999"},
		{"bare with context", barePut, func(e *events.Event) { e.Deps = put().Deps }, "event: context, epoch, subject and time need a CloudEvents id, source and type"},
		{"bare with epoch", barePut, func(e *events.Event) { e.Epoch = 1 }, "event: context, epoch, subject and time need a CloudEvents id, source and type"},
		{"bare with subject", barePut, func(e *events.Event) { e.Subject = "s" }, "event: context, epoch, subject and time need a CloudEvents id, source and type"},
		{"bare with time", barePut, func(e *events.Event) { e.Time = time.Unix(1, 0) }, "event: context, epoch, subject and time need a CloudEvents id, source and type"},
		{"bare with content type", barePut, func(e *events.Event) { e.ContentType = "text/plain" }, ""},
		{"bare with a counter in the clock", barePut, func(e *events.Event) { e.Clock++ }, "event: clock 5.1: without CloudEvents attributes only whole milliseconds can be written"},
		{"bare delete", barePut, func(e *events.Event) { e.Op, e.Value = events.OpDelete, nil }, ""},
		{"bare delete with a value", barePut, func(e *events.Event) { e.Op = events.OpDelete }, `event: a delete of type "" with a value of 1 bytes would be read as a put`},
		{"delete", put, func(e *events.Event) { e.Op, e.Type, e.Value = events.OpDelete, events.TypeDelete, nil }, ""},
		{"delete with a reason", put, func(e *events.Event) { e.Op, e.Type = events.OpDelete, events.TypeDelete }, ""},
		{"delete of the type for puts", put, func(e *events.Event) { e.Op = events.OpDelete }, `event: a delete of type "evenkeel.put.v1" with a value of 1 bytes would be read as a put`},
		{"patch", put, func(e *events.Event) { e.Op, e.Type = events.OpPatch, events.TypePatch }, ""},
		{"append", put, func(e *events.Event) { e.Op, e.Type = events.OpAppend, events.TypeAppend }, ""},
		{"resolve", put, func(e *events.Event) { e.Op, e.Type = events.OpResolve, events.TypeResolve }, ""},
		{"append of nothing", put, func(e *events.Event) { e.Op, e.Type, e.Value = events.OpAppend, events.TypeAppend, nil }, "event: an append needs a value, if only an empty one"},
		{"patch of the type for puts", put, func(e *events.Event) { e.Op = events.OpPatch }, `event: a patch of type "evenkeel.put.v1" with a value of 1 bytes would be read as a put`},
		{"put of the type for appends", put, func(e *events.Event) { e.Type = events.TypeAppend }, `event: a put of type "evenkeel.append.v1" with a value of 1 bytes would be read as an append`},
		{"bare patch", barePut, func(e *events.Event) { e.Op = events.OpPatch }, `event: a patch of type "" with a value of 1 bytes would be read as a put`},
		{"put of the type for deletes", put, func(e *events.Event) { e.Type = events.TypeDelete }, `event: a put of type "evenkeel.delete.v1" with a value of 1 bytes would be read as a delete`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := c.from()
			c.do(&e)
			err := e.Validate()
			if text := errorText(err); text != c.want {
				t.Errorf("error %q, want %q", text, c.want)
			}
			if err != nil && events.KindOf(err) != events.KindInvalid {
				t.Errorf("error of kind %q", events.KindOf(err))
			}
			if _, encErr := events.Encode(e); errorText(encErr) != c.want {
				t.Errorf("Encode says %q", errorText(encErr))
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// genAnything gives events with every field now right, now wrong.
func genAnything() *rapid.Generator[events.Event] {
	big := make([]byte, events.MaxValueBytes+1)
	texts := rapid.SampledFrom([]string{"", "a", "a", "a", "a\n", strings.Repeat("a", events.MaxAttributeBytes), strings.Repeat("a", events.MaxAttributeBytes+1)})
	return rapid.Custom(func(t *rapid.T) events.Event {
		return events.Event{
			Key:         rapid.SampledFrom([]string{"k", "\x00", "", strings.Repeat("k", events.MaxKeyBytes), strings.Repeat("k", events.MaxKeyBytes+1)}).Draw(t, "key"),
			Op:          rapid.SampledFrom([]events.Op{events.OpPut, events.OpDelete, events.OpPut, events.OpDelete, events.OpPatch, events.OpAppend, events.OpResolve, 0, 6}).Draw(t, "op"),
			Clock:       rapid.SampledFrom([]events.HLC{0, 1, 1 << 16, events.MaxHLC}).Draw(t, "clock"),
			Deps:        rapid.SampledFrom([]events.Context{nil, {}, put().Deps, {{Next: 1}}}).Draw(t, "deps"),
			Epoch:       rapid.SampledFrom([]events.Epoch{0, 1}).Draw(t, "epoch"),
			Value:       rapid.SampledFrom([][]byte{nil, {}, []byte("v"), big[:events.MaxValueBytes], big}).Draw(t, "value"),
			ContentType: rapid.SampledFrom([]string{"", "a/b", "application/cloudevents", "APPLICATION/CLOUDEVENTS+JSON", "a\x00"}).Draw(t, "content type"),
			ID:          texts.Draw(t, "id"), Source: texts.Draw(t, "source"), Subject: texts.Draw(t, "subject"),
			Type: rapid.SampledFrom([]string{"", "a", events.TypePut, events.TypeDelete, events.TypePatch, events.TypeAppend, events.TypeResolve, "a\n"}).Draw(t, "type"),
			Time: rapid.SampledFrom([]time.Time{{}, time.Unix(1, 0), time.Unix(1<<60, 0), time.Unix(-1<<60, 0)}).Draw(t, "time"),
		}
	})
}

// Encode accepts exactly what Validate accepts, and Decode reads all of it.
func TestEncodeAcceptsExactlyTheValid(t *testing.T) {
	valid := 0
	rapid.Check(t, func(t *rapid.T) {
		e := genAnything().Draw(t, "event")
		if rapid.Bool().Draw(t, "start from a valid one") { // else few are
			e = genEvent().Draw(t, "event")
		}
		r, err := events.Encode(e)
		if errorText(err) != errorText(e.Validate()) {
			t.Fatalf("Encode says %v, Validate %v", err, e.Validate())
		}
		if err != nil {
			return
		}
		valid++
		if _, err := events.Decode(r); err != nil {
			t.Fatalf("a valid event is refused by Decode: %v", err)
		}
	})
	if valid == 0 && !t.Failed() {
		t.Error("not one valid event was tried")
	}
}
