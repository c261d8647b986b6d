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
	if !json.Valid(data) || !utf8.Valid(data) {
		return errors.New("no valid JSON")
	}
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = stringEnd(data, i) - 1
		case '{', '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("nested more than %d levels deep", maxDepth)
			}
		case '}', ']':
			depth--
		}
	}
	return nil
}

// member is one member of an object: its name, and its value as it stands there.
type member struct{ name, value []byte }

// membersOf reads an object, members sorted by name.
func membersOf(object []byte) ([]member, error) {
	object = bytes.TrimLeft(object, jsonSpace)
	if len(object) == 0 || object[0] != '{' {
		return nil, errors.New("no JSON object where one is wanted")
	}
	var all []member
	for i := skipSpace(object, 1); object[i] != '}'; {
		end := valueEnd(object, i)
		m := member{name: unquote(object[i:end])}
		i = skipSpace(object, skipSpace(object, end)+1) // past the colon
		end = valueEnd(object, i)
		m.value = object[i:end]
		all = append(all, m)
		i = nextItem(object, end)
	}
	slices.SortFunc(all, func(a, b member) int { return bytes.Compare(a.name, b.name) })
	for i := 1; i < len(all); i++ {
		if bytes.Equal(all[i].name, all[i-1].name) {
			return nil, errors.New("a name twice in one object")
		}
	}
	return all, nil
}

// itemsOf reads an array.
func itemsOf(array []byte) ([][]byte, error) {
	array = bytes.TrimLeft(array, jsonSpace)
	if len(array) == 0 || array[0] != '[' {
		return nil, errors.New("no JSON array where one is wanted")
	}
	var all [][]byte
	for i := skipSpace(array, 1); array[i] != ']'; {
		end := valueEnd(array, i)
		all = append(all, array[i:end])
		i = nextItem(array, end)
	}
	return all, nil
}

// appendCanonical appends a value in canonical form.
func appendCanonical(dst, value []byte) ([]byte, error) {
	switch value[0] {
	case '{':
		members, err := membersOf(value)
		if err != nil {
			return nil, err
		}
		dst = append(dst, '{')
		for i, m := range members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, m.name), ':')
			if dst, err = appendCanonical(dst, m.value); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	case '[':
		items, err := itemsOf(value)
		if err != nil {
			return nil, err
		}
		dst = append(dst, '[')
		for i, item := range items {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendCanonical(dst, item); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case '"':
		return appendString(dst, unquote(value)), nil
	}
	return append(dst, value...), nil // a number keeps its text
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
