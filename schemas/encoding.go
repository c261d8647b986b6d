package schemas

import (
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"
)

// decoder reads data into m and returns why it could not, in our own words.
type decoder func(t Type, data []byte, m proto.Message) (reason string)

// encodingOf finds the decoder for a content type, nil if there is none.
func encodingOf(contentType string) decoder {
	if contentType == "" {
		return decodeProto
	}
	if IsJSON(contentType) {
		return decodeJSON
	}
	switch mediaOf(contentType) {
	case "application/protobuf", "application/x-protobuf", "application/vnd.google.protobuf":
		return decodeProto
	}
	return nil // among them a whole event in structured mode, which is no payload
}

// IsJSON reports whether a content type says JSON, as Decode reads it.
func IsJSON(contentType string) bool {
	media := mediaOf(contentType)
	if media == "application/json" {
		return true
	}
	kind, sub, ok := strings.Cut(media, "/")
	structured := kind == "application" && strings.HasPrefix(sub, "cloudevents")
	sub, json := strings.CutSuffix(sub, "+json")
	return ok && json && isToken(kind) && isToken(sub) && !structured
}

// mediaOf is the media type in lower case, without its parameters.
func mediaOf(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// isToken reports whether s can be one part of a media type (RFC 6838).
func isToken(s string) bool {
	bad := func(c rune) bool {
		return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.ContainsRune("!#$&-^_.+", c))
	}
	return s != "" && !strings.ContainsFunc(s, bad)
}

// jsonDepthWithin reports whether nothing in data is nested more than most
// levels deep. It counts brackets outside strings and leaves the judgement on
// malformed JSON to the decoder, which recurses and so must not come first.
func jsonDepthWithin(data []byte, most int) bool {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++ // whatever is escaped, it does not end the string
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return true
}

// place matches the beginning of protojson's errors, up to and with the
// position. Anchored, for what follows quotes the input.
var place = regexp.MustCompile(`^proto:[\s\x{a0}](?:syntax error )?\(line ([0-9]+):([0-9]+)\)`)

// placeOf takes the position, and nothing else, out of protojson's error.
func placeOf(err error) string {
	m := place.FindStringSubmatch(err.Error())
	if m == nil {
		return ""
	}
	return ": fault at line " + m[1] + " column " + m[2]
}
