package events

import (
	"fmt"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/schemas"
)

// Op is the generic operation through which an event is folded. Which type of
// event means which operation is part of the wire contract.
type Op = schemas.Op

// The operations.
const (
	OpPut     = schemas.OpPut     // the value replaces what was there
	OpDelete  = schemas.OpDelete  // nothing is there any more
	OpPatch   = schemas.OpPatch   // the value says what changes in what was there
	OpAppend  = schemas.OpAppend  // the value is one more
	OpResolve = schemas.OpResolve // a put that ends a conflict
)

// operations lists all of them.
var operations = []Op{OpPut, OpDelete, OpPatch, OpAppend, OpResolve}

// ParseOp reads what String prints.
func ParseOp(s string) (Op, error) {
	for _, op := range operations {
		if op.String() == s {
			return op, nil
		}
	}
	return 0, Errorf(KindInvalid, "operation %q: want put, delete, patch, append or resolve", clip(s))
}

// Event is one state change of one entity.
type Event struct {
	Key         string // the entity's key; any bytes, not empty
	Op          Op
	Clock       HLC     // when its writer says it happened; orders writes of different origins
	Deps        Context // what its writer had seen; empty if it did not say
	Epoch       Epoch   // the term it was written under; 0 if none
	Value       []byte  // payload; may be empty, and present for a delete too (the reason, say)
	ContentType string  // media type of Value; empty if not said

	// CloudEvents attributes; all empty for an event from a bare record.
	ID      string
	Source  string
	Type    string
	Subject string
	Time    time.Time
}

// IsBare reports whether the event carries none of the CloudEvents attributes.
func (e Event) IsBare() bool { return e.ID == "" && e.Source == "" && e.Type == "" }

// Validate reports whether the event may be written: Encode accepts exactly
// the valid events, and Decode reads them back as they are. It does not look
// into the payload; that of a type in package schemas is checked by Decode.
func (e Event) Validate() error {
	if err := checkSize("key", len(e.Key), 1, MaxKeyBytes); err != nil {
		return err
	}
	if err := checkSize("value", len(e.Value), 0, MaxValueBytes); err != nil {
		return err
	}
	if !slices.Contains(operations, e.Op) {
		return Errorf(KindInvalid, "event: %s is no operation", e.Op)
	}
	if e.Op != OpDelete && e.Value == nil {
		return Errorf(KindInvalid, "event: %s needs a value, if only an empty one", aOp(e.Op))
	}
	if got := OpOf(e.Type, e.Value); got != e.Op {
		return Errorf(KindInvalid, "event: %s of type %q with a value of %d bytes would be read as %s", aOp(e.Op), clip(e.Type), len(e.Value), aOp(got))
	}
	for _, a := range []struct{ name, value string }{
		{"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"subject", e.Subject}, {"content type", e.ContentType},
	} {
		if err := checkText(a.name, a.value); err != nil {
			return err
		}
	}
	if isStructured(e.ContentType) {
		return Errorf(KindInvalid, "event: content type: %s", noStructuredMode)
	}
	if err := checkTime(e.Time); err != nil {
		return Errorf(KindInvalid, "event: %w", err)
	}
	if err := e.Deps.Validate(); err != nil {
		return err
	}
	return e.validateAttributes()
}

// aOp is the operation with its article.
func aOp(op Op) string {
	if op == OpAppend {
		return "an " + op.String()
	}
	return "a " + op.String()
}

// validateAttributes holds the rules between attributes: CloudEvents wants
// id, source and type together, and a bare record can say nothing of context
// and no more of the clock than its timestamp holds.
func (e Event) validateAttributes() error {
	if e.IsBare() {
		if len(e.Deps) > 0 || e.Epoch != 0 || e.Subject != "" || !e.Time.IsZero() {
			return Errorf(KindInvalid, "event: context, epoch, subject and time need a CloudEvents id, source and type")
		}
		if HLCFromMillis(e.Clock.Millis()) != e.Clock {
			return Errorf(KindInvalid, "event: clock %s: without CloudEvents attributes only whole milliseconds can be written", e.Clock)
		}
		return nil
	}
	if e.ID == "" || e.Source == "" || e.Type == "" {
		return Errorf(KindInvalid, "event: CloudEvents id, source and type are given together or not at all")
	}
	return nil
}

func checkSize(what string, n, least, most int) error {
	if n < least || n > most {
		return Errorf(KindInvalid, "event: %s of %d bytes: want %d to %d", what, n, least, most)
	}
	return nil
}

// checkTime keeps to the years that RFC 3339 can write.
func checkTime(t time.Time) error {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return fmt.Errorf("time in the year %d: want 0 to 9999", y)
	}
	return nil
}

// checkText bounds an attribute and keeps control characters out of it: it
// ends up in headers, logs and tables.
func checkText(what, s string) error {
	if len(s) > MaxAttributeBytes {
		return Errorf(KindInvalid, "event: %s of %d bytes: want at most %d", what, len(s), MaxAttributeBytes)
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return Errorf(KindInvalid, "event: %s has a control character at byte %d", what, i)
		}
	}
	return nil
}
