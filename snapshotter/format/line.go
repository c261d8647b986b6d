package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
)

// MaxLineBytes bounds what is read as a floor, a plan, a pin or a drill.
const MaxLineBytes = 16 << 20

// encodeLine writes v as one line of JSON and a line with the SHA-256 of the first.
func encodeLine(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	return fmt.Appendf(text, "\nsha256:%x\n", sum), nil
}

// versioned is what encodeLine writes.
type versioned interface {
	version() int // of its format
}

// decodeLine reads into v what encodeLine wrote, if its format is one of 1 to
// newest. what is what errors call it.
func decodeLine(what string, newest int, b []byte, v versioned) error {
	text, rest, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(text)
	if string(rest) != fmt.Sprintf("sha256:%x\n", sum) {
		return events.Errorf(events.KindInconsistent, "%s is damaged: its hash does not fit", what)
	}
	// What is well formed is read once: a bucket has thousands of manifests.
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if at := v.version(); err == nil && d.InputOffset() == int64(len(text)) && at >= 1 && at <= newest {
		return nil
	}
	return whyNot(what, newest, text, err)
}

// whyNot says why a line was not read, of which decoding said strict. What a newer program has written is told
// as such, whatever else is new about it.
func whyNot(what string, newest int, text []byte, strict error) error {
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return events.Errorf(events.KindInconsistent, "%s is no JSON: %w", what, err)
	}
	if version.Format < 1 || version.Format > newest {
		return events.Errorf(events.KindRefused, "%s has format %d; this program reads 1 to %d; use a newer one", what, version.Format, newest)
	}
	if strict != nil {
		return events.Errorf(events.KindInconsistent, "%s: %w", what, strict)
	}
	return nil // there is but white space behind it
}

// object is what stands in the bucket as two lines, and nothing else.
type object interface {
	versioned
	title() string // what errors call it
	validate() error
}

// encode writes an object.
func encode(o object) ([]byte, error) {
	if err := o.validate(); err != nil {
		return nil, events.Errorf(events.KindInconsistent, "%s: %w", o.title(), err)
	}
	text, err := encodeLine(o)
	if err == nil && len(text) > MaxLineBytes {
		return nil, events.Errorf(events.KindRefused, "%s: %d bytes, nothing reads more than %d", o.title(), len(text), MaxLineBytes)
	}
	return text, err
}

// decode reads and verifies what encode wrote. what is what errors call it.
func decode[T any, P interface {
	*T
	object
}](what string, newest int, b []byte) (P, error) {
	o := P(new(T))
	if err := decodeLine(what, newest, b, o); err != nil {
		return nil, err
	}
	if err := o.validate(); err != nil {
		return nil, events.Errorf(events.KindInconsistent, "%s: %w", o.title(), err)
	}
	return o, nil
}
