package seal

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/evenkeel/evenkeel/events"
)

// ErrNoKey says that bytes are sealed, and none of the identities that are there opens them.
var ErrNoKey = errors.New("no identity fits")

// ErrDamaged says that bytes are not what was sealed, or are no sealed bytes.
var ErrDamaged = errors.New("sealed bytes are damaged")

// Opener holds identities. The zero Opener has none: it opens what is not sealed.
type Opener struct {
	identities []age.Identity
	recipients []string
	keys       []string
}

// NewOpener reads identities in age's form, one a line; empty lines and those that
// begin with # are skipped. name is what errors call the text, of which they quote
// nothing.
func NewOpener(name, text string) (*Opener, error) {
	o := &Opener{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		identity, recipient, err := parseIdentity(line)
		if err != nil {
			return nil, events.Errorf(events.KindInvalid, "%s, line %d: no age identity (AGE-SECRET-KEY-…)", name, number)
		}
		o.identities, o.recipients, o.keys = append(o.identities, identity), append(o.recipients, recipient), append(o.keys, KeyID(recipient))
	}
	if len(o.keys) == 0 {
		return nil, events.Errorf(events.KindInvalid, "%s holds no age identity", name)
	}
	return o, nil
}

// parseIdentity's error may tell of the secret: it is not to be shown.
func parseIdentity(line string) (identity age.Identity, recipient string, err error) {
	if strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1") {
		i, err := age.ParseHybridIdentity(line)
		if err != nil {
			return nil, "", err
		}
		return i, i.Recipient().String(), nil
	}
	i, err := age.ParseX25519Identity(line)
	if err != nil {
		return nil, "", err
	}
	return i, i.Recipient().String(), nil
}

// Keys are the ids of the keys that the Opener holds.
func (o *Opener) Keys() []string {
	if o == nil {
		return nil
	}
	return slices.Clone(o.keys)
}

// Recipients are the public halves of the keys that the Opener holds.
func (o *Opener) Recipients() []string { return slices.Clone(o.recipients) }

// Telling is the Opener with its identities, which tells of each object that it opens the id of the key whose
// identity has opened it: who seals for several keys does not say in the object which of them a place in it is for, so
// nobody but who opens it knows. opened is called from several goroutines, and may be called again for
// an object that is read again. That an object is opened says nothing yet of what it holds.
func (o *Opener) Telling(opened func(key string)) *Opener {
	if o == nil {
		return nil
	}
	told := &Opener{recipients: o.recipients, keys: o.keys}
	for i, identity := range o.identities {
		told.identities = append(told.identities, telling{Identity: identity, key: o.keys[i], opened: opened})
	}
	return told
}

type telling struct {
	age.Identity
	key    string
	opened func(key string)
}

// Unwrap implements age.Identity.
func (t telling) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	fileKey, err := t.Identity.Unwrap(stanzas)
	if err == nil {
		t.opened(t.key)
	}
	return fileKey, err
}

// Fits says whether what is sealed for the keys with these ids can be opened; no
// ids: it is not sealed. The error is ErrNoKey of kind events.KindNotFound, and names the
// keys that are wanted and those that are there.
func (o *Opener) Fits(keys []string) error {
	have := o.Keys()
	if len(keys) == 0 || slices.ContainsFunc(keys, func(k string) bool { return slices.Contains(have, k) }) {
		return nil
	}
	there := "no identity was given"
	if len(have) > 0 {
		there = "the identities that were given have " + strings.Join(have, ", ")
	}
	return events.Errorf(events.KindNotFound, "%w: it is sealed for the keys %s; %s; give one that fits with backup.identity_file or --identity FILE", ErrNoKey, strings.Join(keys, ", "), there)
}

// Open reads what was sealed for the keys with these ids; no ids: it was not
// sealed. Reads give ErrDamaged where bytes are not those that were sealed, and
// what they gave before is as it was sealed. Errors of src come out as they are.
func (o *Opener) Open(src io.Reader, keys []string) (io.Reader, error) {
	if len(keys) == 0 {
		return src, nil
	}
	if err := o.Fits(keys); err != nil {
		return nil, err
	}
	source := &source{Reader: src}
	r, err := age.Decrypt(source, o.identities...)
	if err != nil {
		return nil, source.judge(err)
	}
	return &opened{r: r, source: source}, nil
}

// source remembers how reading went wrong, which is not the fault of the bytes.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// judge tells damage from a reading that went wrong.
func (s *source) judge(err error) error {
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// opened is what comes out.
type opened struct {
	r      io.Reader
	source *source
}

func (o *opened) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = o.source.judge(err)
	}
	return n, err
}
