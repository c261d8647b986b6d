package seal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/evenkeel/evenkeel/events"
)

// MinRecipients is how many keys a Sealer seals for, at least.
const MinRecipients = 2

// KeyID is the id of the key with the given recipient ("age1…"): the first 8 bytes
// of the recipient's SHA-256, in hexadecimal digits.
func KeyID(recipient string) string {
	sum := sha256.Sum256([]byte(recipient))
	return hex.EncodeToString(sum[:8])
}

// Sealer encrypts for some keys.
type Sealer struct {
	recipients []age.Recipient // empty: nothing is encrypted
	keys       []string
}

// None is the Sealer that leaves everything as it is.
func None() *Sealer { return &Sealer{} }

// NewSealer makes a Sealer for recipients in age's form ("age1…", and "age1pq1…"
// for keys that withstand quantum computers; not both kinds together). There must
// be at least MinRecipients different ones. The error is of kind
// events.KindInvalid and does not quote what is no recipient: it may be a secret
// in the wrong place.
func NewSealer(recipients []string) (*Sealer, error) {
	s := &Sealer{}
	for i, text := range recipients {
		r, err := parseRecipient(text)
		if err != nil {
			return nil, events.Errorf(events.KindInvalid, "recipient %d: %w", i+1, err)
		}
		if slices.Contains(s.keys, KeyID(text)) {
			return nil, events.Errorf(events.KindInvalid, "recipient %d stands there twice: the loss of one key would be that of all", i+1)
		}
		s.recipients, s.keys = append(s.recipients, r), append(s.keys, KeyID(text))
	}
	if len(s.recipients) < MinRecipients {
		return nil, events.Errorf(events.KindInvalid, "%d recipients, want at least %d: an operating key and a recovery key", len(s.recipients), MinRecipients)
	}
	if _, err := age.Encrypt(io.Discard, s.recipients...); err != nil { // kinds that cannot stand together
		return nil, events.Errorf(events.KindInvalid, "recipients: %w", err)
	}
	return s, nil
}

func parseRecipient(text string) (age.Recipient, error) {
	var r age.Recipient
	var err error
	switch {
	case strings.HasPrefix(text, "AGE-SECRET-KEY-"):
		return nil, fmt.Errorf("this is a secret identity, which stands in a file of its own; want its recipient (age1…)")
	case strings.HasPrefix(text, "age1pq1"):
		r, err = age.ParseHybridRecipient(text)
	default:
		r, err = age.ParseX25519Recipient(text)
	}
	if err != nil {
		return nil, fmt.Errorf("want age1… as age-keygen or evenkeel keys generate print it, got something else")
	}
	return r, nil
}

// Keys are the ids of the keys that open what the Sealer seals; none if it leaves
// everything as it is.
func (s *Sealer) Keys() []string { return slices.Clone(s.keys) }

// Writer seals what is written to it; dst has all of it once the writer is closed
// without an error.
func (s *Sealer) Writer(dst io.Writer) (io.WriteCloser, error) {
	if len(s.recipients) == 0 {
		return plain{dst}, nil
	}
	return age.Encrypt(dst, s.recipients...)
}

// plain writes as it is.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }
