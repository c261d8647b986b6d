package schemas

import (
	"fmt"
	"strings"
)

// PayloadError says why a payload was refused. None of it, Error included,
// holds anything of the payload, and it wraps no other error that might.
type PayloadError struct {
	Type        string // event type
	ContentType string // as the record has it: anything, of any length; Error shortens it
	Field       string // path of the field at fault, "" if it is the payload as a whole
	Reason      string // the rule, in our own words
}

func (e *PayloadError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "schemas: payload of %q (", clip(e.Type))
	if e.ContentType == "" {
		b.WriteString("no content type")
	} else {
		fmt.Fprintf(&b, "content type %q", clip(e.ContentType))
	}
	b.WriteString("): ")
	if e.Field != "" {
		b.WriteString("field " + e.Field + ": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// clip bounds what an error says of a header.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
