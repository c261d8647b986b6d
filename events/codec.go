package events

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/schemas"
)

// Header names of CloudEvents 1.0 in Kafka's binary content mode, with the
// extension attributes of Evenkeel.
const (
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerSource      = "ce_source"
	headerType        = "ce_type"
	headerTime        = "ce_time"
	headerSubject     = "ce_subject"
	headerHLC         = "ce_hlc"
	headerDeps        = "ce_deps"
	headerEpoch       = "ce_epoch"
	headerContentType = "content-type"

	specVersion = "1.0"
)

// Types of events that stand for an operation alone; what their value means is
// for the stream's merge rule to say. Other types are listed in package schemas;
// a type in neither is a put.
const (
	TypePut     = "evenkeel.put.v1"
	TypeDelete  = "evenkeel.delete.v1"
	TypePatch   = "evenkeel.patch.v1"
	TypeAppend  = "evenkeel.append.v1"
	TypeResolve = "evenkeel.resolve.v1"
)

// DecodeError says why a record is no event. It never quotes the payload, which
// may be a secret.
type DecodeError struct {
	Field  string // the header, "key", "value" or "record"
	Reason string
}

func (e *DecodeError) Error() string { return e.Field + ": " + e.Reason }

func decodeErrorf(field, format string, args ...any) error {
	return &DecodeError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// Encode writes e as a record without topic and partition. A bare event's
// record is stamped with the event's clock; any other record is left without a
// timestamp, so that the producer stamps it with the time of writing: brokers
// expire records by that time, and an event's own clock may be arbitrary.
func Encode(e Event) (*kgo.Record, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	r := &kgo.Record{Key: []byte(e.Key), Value: e.Value}
	add := func(name, value string) {
		if value != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		}
	}
	if e.IsBare() {
		r.Timestamp = e.Clock.Time()
		add(headerContentType, e.ContentType)
		return r, nil
	}
	r.Headers = make([]kgo.RecordHeader, 0, 10)
	add(headerSpecVersion, specVersion)
	add(headerID, e.ID)
	add(headerSource, e.Source)
	add(headerType, e.Type)
	if !e.Time.IsZero() {
		add(headerTime, e.Time.UTC().Format(time.RFC3339Nano))
	}
	add(headerSubject, e.Subject)
	add(headerContentType, e.ContentType)
	add(headerHLC, e.Clock.String())
	add(headerDeps, e.Deps.String())
	if e.Epoch != 0 {
		add(headerEpoch, e.Epoch.String())
	}
	return r, nil
}

// Decode reads a record as an event, or says in a *DecodeError why it is none.
// It is a pure function of the record.
func Decode(r *kgo.Record) (Event, error) {
	if n := len(r.Key); n == 0 || n > MaxKeyBytes {
		return Event{}, decodeErrorf("key", "%d bytes: want 1 to %d", n, MaxKeyBytes)
	}
	if n := len(r.Value); n > MaxValueBytes {
		return Event{}, decodeErrorf("value", "%d bytes: want at most %d", n, MaxValueBytes)
	}
	d := decoder{event: Event{Key: string(r.Key), Value: r.Value, Clock: HLCFromMillis(r.Timestamp.UnixMilli())}}
	if err := d.headers(r.Headers); err != nil {
		return Event{}, err
	}
	e := d.event
	e.Op = OpOf(e.Type, e.Value)
	if t, known := schemas.Lookup(e.Type); known && e.Value != nil {
		if err := schemas.Check(t, e.ContentType, e.Value); err != nil {
			return Event{}, decodeErrorf("value", "%s", err)
		}
	}
	return e, nil
}

// OpOf tells the operation of a record: a null value deletes, as everywhere in
// Kafka; else the type decides.
func OpOf(typ string, value []byte) Op {
	if value == nil {
		return OpDelete
	}
	switch typ {
	case TypePut:
		return OpPut
	case TypeDelete:
		return OpDelete
	case TypePatch:
		return OpPatch
	case TypeAppend:
		return OpAppend
	case TypeResolve:
		return OpResolve
	}
	if t, known := schemas.Lookup(typ); known {
		return t.Op
	}
	return OpPut
}

// decoder collects the attributes of one record.
type decoder struct {
	event Event
	seen  uint16 // which headers were met, by attribute
}

const (
	seenSpecVersion = 1 << iota
	seenID
	seenSource
	seenType
	seenTime
	seenSubject
	seenHLC
	seenDeps
	seenEpoch
	seenContentType

	seenRequired = seenSpecVersion | seenID | seenSource | seenType
)

func (d *decoder) headers(headers []kgo.RecordHeader) error {
	if len(headers) > MaxHeaders {
		return decodeErrorf("record", "%d headers: want at most %d", len(headers), MaxHeaders)
	}
	for i := range headers {
		if err := d.header(&headers[i]); err != nil {
			return err
		}
	}
	attributes := d.seen &^ seenContentType
	if attributes == 0 {
		return nil // a bare record
	}
	for _, required := range []struct {
		bit  uint16
		name string
	}{{seenSpecVersion, headerSpecVersion}, {seenID, headerID}, {seenSource, headerSource}, {seenType, headerType}} {
		if attributes&required.bit == 0 {
			return decodeErrorf(required.name, "missing; a CloudEvent needs it")
		}
	}
	return nil
}

// header takes in one header; those that are not ours are skipped.
func (d *decoder) header(h *kgo.RecordHeader) error {
	var bit uint16
	var err error
	e := &d.event
	switch h.Key {
	case headerSpecVersion:
		bit = seenSpecVersion
		if string(h.Value) != specVersion {
			return decodeErrorf(h.Key, "%q: only %s is understood", clip(string(h.Value)), specVersion)
		}
	case headerID:
		bit, e.ID = seenID, string(h.Value)
	case headerSource:
		bit, e.Source = seenSource, string(h.Value)
	case headerType:
		bit, e.Type = seenType, string(h.Value)
	case headerSubject:
		bit, e.Subject = seenSubject, string(h.Value)
	case headerContentType:
		bit, e.ContentType = seenContentType, string(h.Value)
		if isStructured(e.ContentType) {
			return decodeErrorf(h.Key, noStructuredMode)
		}
	case headerTime:
		bit = seenTime
		e.Time, err = parseTime(string(h.Value))
	case headerHLC:
		bit = seenHLC
		e.Clock, err = ParseHLC(string(h.Value))
	case headerDeps:
		bit = seenDeps
		e.Deps, err = ParseContext(string(h.Value))
	case headerEpoch:
		bit = seenEpoch
		e.Epoch, err = ParseEpoch(string(h.Value))
	default:
		return nil
	}
	return d.taken(h, bit, err)
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errors.New("no RFC 3339 time")
	}
	return t.UTC(), checkTime(t)
}

// isStructured tells a whole event in one value, with its attributes inside,
// from a payload; case does not matter in media types.
func isStructured(contentType string) bool {
	const prefix = "application/cloudevents"
	return len(contentType) >= len(prefix) && strings.EqualFold(contentType[:len(prefix)], prefix)
}

const noStructuredMode = "structured content mode is not understood; use binary mode"

// indexControl is where the first control character of ASCII stands; -1 if there is none.
func indexControl(text []byte) int {
	for i, c := range text {
		if c < 0x20 || c == 0x7f {
			return i
		}
	}
	return -1
}

// taken applies the rules that all known headers share.
func (d *decoder) taken(h *kgo.RecordHeader, bit uint16, err error) error {
	if err != nil {
		return decodeErrorf(h.Key, "%s", err)
	}
	if d.seen&bit != 0 {
		return decodeErrorf(h.Key, "given twice")
	}
	d.seen |= bit
	if len(h.Value) == 0 && bit&seenRequired != 0 {
		return decodeErrorf(h.Key, "empty")
	}
	if bit != seenDeps && len(h.Value) > MaxAttributeBytes {
		return decodeErrorf(h.Key, "%d bytes: want at most %d", len(h.Value), MaxAttributeBytes)
	}
	if i := indexControl(h.Value); i >= 0 {
		return decodeErrorf(h.Key, "control character at byte %d", i)
	}
	return nil
}
