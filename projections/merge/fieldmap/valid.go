package fieldmap

// levelsRead is as deep as encoding/json reads; what is nested deeper is no JSON to it,
// and so never was to a fold.
const levelsRead = 10_000

// scanner goes over a JSON text once. It says what encoding/json's Valid says, in a
// fraction of the time, and how deep the text is nested: a fold does it with every event.
type scanner struct {
	data   []byte
	at     int
	levels int
}

// text reports whether all of the data is one JSON text, whatever its encoding.
func (s *scanner) text() bool {
	return s.value(0) && s.next() == 0 && s.at == len(s.data)
}

// next is the byte that comes after spaces, 0 at the end.
func (s *scanner) next() byte {
	if s.at = skipSpace(s.data, s.at); s.at == len(s.data) {
		return 0
	}
	return s.data[s.at]
}

// value takes a value that lies below so many levels.
func (s *scanner) value(level int) bool {
	switch s.next() {
	case '{':
		return s.list(level+1, '}', true)
	case '[':
		return s.list(level+1, ']', false)
	case '"':
		return s.quoted()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

// list takes an object or an array.
func (s *scanner) list(level int, end byte, named bool) bool {
	if level > levelsRead {
		return false
	}
	s.levels = max(s.levels, level)
	s.at++
	if s.next() == end {
		s.at++
		return true
	}
	for {
		if named {
			if s.next() != '"' || !s.quoted() || s.next() != ':' {
				return false
			}
			s.at++
		}
		if !s.value(level) {
			return false
		}
		switch s.next() {
		case ',':
			s.at++
		case end:
			s.at++
			return true
		default:
			return false
		}
	}
}

// quoted takes a string.
func (s *scanner) quoted() bool {
	for i := s.at + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.at = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			n := escapeBytes(s.data[i+1:])
			if n == 0 {
				return false
			}
			i += n
		}
	}
	return false
}

// escapeBytes is how many bytes follow a backslash; 0 if they do not belong there.
func escapeBytes(rest []byte) int {
	if len(rest) == 0 {
		return 0
	}
	switch rest[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		if len(rest) < 5 {
			return 0
		}
		for _, c := range rest[1:5] {
			if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return 5
	}
	return 0
}

func (s *scanner) word(w string) bool {
	if len(s.data)-s.at < len(w) || string(s.data[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

func (s *scanner) number() bool {
	s.skip("-")
	switch {
	case s.skip("0"):
	case !s.digits():
		return false
	}
	if s.skip(".") && !s.digits() {
		return false
	}
	if s.skip("eE") {
		s.skip("+-")
		return s.digits()
	}
	return true
}

// skip takes one byte if it is one of those.
func (s *scanner) skip(set string) bool {
	if s.at == len(s.data) {
		return false
	}
	for i := range len(set) {
		if s.data[s.at] == set[i] {
			s.at++
			return true
		}
	}
	return false
}

// digits takes one digit or more.
func (s *scanner) digits() bool {
	from := s.at
	for s.at < len(s.data) && isDigit(s.data[s.at]) {
		s.at++
	}
	return s.at > from
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
