package fieldmap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

const (
	maxPayloadBytes = 1 << 20
	maxDepth        = 32 // levels, the payload itself being the first
)

// Errors of this package's readers never quote what they read: it may be
// secret.

// checkJSON reports whether data is one JSON text that may be read. Everything
// below relies on it.
func checkJSON(data []byte) error {
	if len(data) > maxPayloadBytes {
		return fmt.Errorf("%d bytes, more than %d", len(data), maxPayloadBytes)
	}
	s := scanner{data: data}
	if !s.text() || !utf8.Valid(data) {
		return errors.New("no valid JSON")
	}
	if s.levels > maxDepth {
		return fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	return nil
}

// member is one member of an object: its name, and its value as it stands there.
type member struct{ name, value []byte }

// membersOf reads an object, members sorted by name.
func (r *reader) membersOf(object []byte) ([]member, error) {
	object = bytes.TrimLeft(object, jsonSpace)
	if len(object) == 0 || object[0] != '{' {
		return nil, errors.New("no JSON object where one is wanted")
	}
	from := len(r.members)
	for i := skipSpace(object, 1); object[i] != '}'; {
		end := valueEnd(object, i)
		m := member{name: unquote(object[i:end])}
		i = skipSpace(object, skipSpace(object, end)+1) // past the colon
		end = valueEnd(object, i)
		m.value = object[i:end]
		r.members = append(r.members, m)
		i = nextItem(object, end)
	}
	all := r.members[from:]
	slices.SortFunc(all, func(a, b member) int { return bytes.Compare(a.name, b.name) })
	for i := 1; i < len(all); i++ {
		if bytes.Equal(all[i].name, all[i-1].name) {
			return nil, errors.New("a name twice in one object")
		}
	}
	return all, nil
}

// itemsOf reads an array.
func (r *reader) itemsOf(array []byte) ([][]byte, error) {
	array = bytes.TrimLeft(array, jsonSpace)
	if len(array) == 0 || array[0] != '[' {
		return nil, errors.New("no JSON array where one is wanted")
	}
	from := len(r.items)
	for i := skipSpace(array, 1); array[i] != ']'; {
		end := valueEnd(array, i)
		r.items = append(r.items, array[i:end])
		i = nextItem(array, end)
	}
	return r.items[from:], nil
}

// canonical is a value in canonical form.
func (r *reader) canonical(value []byte) ([]byte, error) {
	from := len(r.text)
	if err := r.writeCanonical(value); err != nil {
		return nil, err
	}
	return r.text[from:], nil
}

func (r *reader) writeCanonical(value []byte) error {
	switch value[0] {
	case '{':
		members, err := r.membersOf(value)
		if err != nil {
			return err
		}
		r.text = append(r.text, '{')
		for i, m := range members {
			if i > 0 {
				r.text = append(r.text, ',')
			}
			r.text = append(appendString(r.text, m.name), ':')
			if err := r.writeCanonical(m.value); err != nil {
				return err
			}
		}
		r.text = append(r.text, '}')
	case '[':
		items, err := r.itemsOf(value)
		if err != nil {
			return err
		}
		r.text = append(r.text, '[')
		for i, item := range items {
			if i > 0 {
				r.text = append(r.text, ',')
			}
			if err := r.writeCanonical(item); err != nil {
				return err
			}
		}
		r.text = append(r.text, ']')
	case '"':
		r.text = appendString(r.text, unquote(value))
	default:
		r.text = append(r.text, value...) // a number keeps its text
	}
	return nil
}

// appendString appends a JSON string. UTF-8 stays as it is.
func appendString(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x20:
			dst = append(dst, c)
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(dst, '"')
}

const jsonSpace = " \t\r\n"

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n') {
		i++
	}
	return i
}

// nextItem is where the next item or the closing bracket stands, after a value
// that ends at i.
func nextItem(data []byte, i int) int {
	i = skipSpace(data, i)
	if data[i] == ',' {
		i = skipSpace(data, i+1)
	}
	return i
}

// valueEnd is where the value that begins at i ends.
func valueEnd(data []byte, i int) int {
	switch data[i] {
	case '"':
		return stringEnd(data, i)
	case '{', '[':
		for depth := 0; ; i++ {
			switch data[i] {
			case '"':
				i = stringEnd(data, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	n := bytes.IndexAny(data[i:], ",]}"+jsonSpace)
	if n < 0 {
		return len(data)
	}
	return i + n
}

// stringEnd is where the string that begins at i ends.
func stringEnd(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// unquote is the text of a JSON string. Half a surrogate pair stands for
// U+FFFD, as everywhere in Go.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return nil // cannot be: checkJSON has seen it
	}
	return []byte(s)
}
