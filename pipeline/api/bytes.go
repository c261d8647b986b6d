package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Bytes are arbitrary bytes in JSON: a string if they are valid UTF-8, else an
// object {"base64": "…"}. JSON null gives nil. A string that is not Unicode
// (broken UTF-8, half a surrogate pair) is an error: JSON readers put other
// characters in its place.
type Bytes []byte

// MarshalJSON implements json.Marshaler.
func (b Bytes) MarshalJSON() ([]byte, error) {
	switch {
	case b == nil:
		return []byte("null"), nil
	case utf8.Valid(b):
		return encode(string(b))
	}
	return json.Marshal(map[string]string{"base64": base64.StdEncoding.EncodeToString(b)})
}

var (
	errBytes   = errors.New(`want a string or {"base64": "…"}`)
	errUnicode = errors.New(`the string is not Unicode; write such bytes as {"base64": "…"}`)
)

// UnmarshalJSON implements json.Unmarshaler.
func (b *Bytes) UnmarshalJSON(text []byte) error {
	switch {
	case bytes.Equal(text, []byte("null")):
		*b = nil
		return nil
	case len(text) > 0 && text[0] == '"':
		var s string
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
		if !utf8.Valid(text) || hasHalfPair(text) {
			return errUnicode
		}
		*b = []byte(s)
		return nil
	}
	var coded struct {
		Base64 *[]byte `json:"base64"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&coded); err != nil || coded.Base64 == nil {
		return errBytes
	}
	*b = *coded.Base64
	return nil
}

// hasHalfPair looks in a valid JSON string for an escaped surrogate that is not
// one of a pair.
func hasHalfPair(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		r, isEscape := escaped(text[i:])
		if !isEscape || !utf16.IsSurrogate(r) {
			i++ // the character that is escaped
			continue
		}
		second, _ := escaped(text[i+6:])
		if utf16.DecodeRune(r, second) == utf8.RuneError {
			return true
		}
		i += 11
	}
	return false
}

// escaped reads \uXXXX at the beginning of text.
func escaped(text []byte) (r rune, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 32)
	return rune(n), err == nil
}
