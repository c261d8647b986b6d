package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// Secret is text that is not shown: printed, logged or encoded, only
// "[redacted]" comes out, or nothing if it is empty. Package fmt can not ask a
// Secret in an unexported field, nor encoding/json one that is a map's key: use
// it for neither. (The verb %p, senseless here, is fmt's own affair too.)
type Secret string

const redacted = "[redacted]"

var (
	_ fmt.Formatter  = Secret("")
	_ json.Marshaler = Secret("")
	_ slog.LogValuer = Secret("")
)

// Reveal is the secret itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is the form for %#v.
func (s Secret) GoString() string { return fmt.Sprintf("config.Secret(%q)", s.String()) }

// Format answers every verb; without it, those that do not suit a string (such
// as %d) would print the secret along with the complaint.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		_, _ = fmt.Fprint(f, s.GoString()) // a Formatter can not report it
		return
	}
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, 's'), s.String())
}

// MarshalText redacts.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON redacts.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// LogValue redacts.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
