// Package escape writes arbitrary bytes into the middle of a database key so that
// keys sort as the bytes do and none is the prefix of another: 0x00 is written as
// 0x00 0xff, and 0x00 0x01 ends the text.
package escape

import "bytes"

// Append appends s without an end: the beginning of every text that begins with s.
func Append(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		b = append(b, s[i])
		if s[i] == 0x00 {
			b = append(b, 0xff)
		}
	}
	return b
}

// End appends the end of a text.
func End(b []byte) []byte { return append(b, 0x00, 0x01) }

// Cut takes a text and its end off the beginning of b. It is not ok if there is
// none.
func Cut(b []byte) (text string, rest []byte, ok bool) {
	if end := bytes.IndexByte(b, 0x00); end >= 0 && end+1 < len(b) && b[end+1] == 0x01 { // nothing in it is escaped
		return string(b[:end]), b[end+2:], true
	}
	plain := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != 0x00 {
			plain = append(plain, b[i])
			continue
		}
		if i+1 == len(b) {
			break
		}
		switch i++; b[i] {
		case 0x01:
			return string(plain), b[i+1:], true
		case 0xff:
			plain = append(plain, 0x00)
		default:
			return "", nil, false
		}
	}
	return "", nil, false
}

// Past is the smallest key after all keys that begin with prefix, nil if there is
// none.
func Past(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
