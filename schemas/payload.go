package schemas

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Limits on a payload, both inclusive.
const (
	// MaxPayloadBytes is about what a broker takes by default in one batch.
	MaxPayloadBytes = 1 << 20
	// MaxJSONDepth is how deeply objects and arrays may be nested in JSON, the
	// payload itself being the first level. Contracts need 3.
	MaxJSONDepth = 32
)

// Check proves that data is a payload of type t in the form that contentType
// says (see Decode), and that it keeps the rules of its contract. Every error
// is a *PayloadError.
func Check(t Type, contentType string, data []byte) error {
	_, err := Decode(t, contentType, data)
	return err
}

// Decode reads a payload and checks the rules of its contract. Content types:
//
//   - application/protobuf, application/x-protobuf,
//     application/vnd.google.protobuf, or none at all: binary protobuf
//   - application/json, and any type with the suffix +json except
//     application/cloudevents: the JSON form of protobuf, field names in
//     lowerCamelCase or as in the .proto file
//
// in upper or lower case; parameters after a semicolon are ignored (both forms
// are UTF-8 by their own rules). Every error is a *PayloadError, and then there
// is no message. The message shares no memory with data.
func Decode(t Type, contentType string, data []byte) (proto.Message, error) {
	refuse := func(field, reason string) (proto.Message, error) {
		return nil, &PayloadError{Type: t.Name, ContentType: contentType, Field: field, Reason: reason}
	}
	m := t.New()
	if m == nil {
		return refuse("", "not a type of this catalogue")
	}
	enc := encodingOf(contentType)
	if enc == nil {
		return refuse("", "unknown content type; known are application/protobuf and application/json")
	}
	if len(data) > MaxPayloadBytes {
		return refuse("", fmt.Sprintf("%d bytes, more than %d", len(data), MaxPayloadBytes))
	}
	if reason := enc(t, data, m); reason != "" {
		return refuse("", reason)
	}
	var r rules
	t.validate(m, &r)
	if !r.ok() {
		return refuse(r.field, r.reason)
	}
	return m, nil
}

// The decoders' own errors quote what they read, so none is passed on: each
// decoder returns a reason in our words, or "".

func decodeProto(_ Type, data []byte, m proto.Message) string {
	if proto.Unmarshal(data, m) != nil {
		return fmt.Sprintf("not a protobuf %s: broken wire format, or text that is not UTF-8", m.ProtoReflect().Descriptor().FullName())
	}
	return ""
}

func decodeJSON(t Type, data []byte, m proto.Message) string {
	if !jsonDepthWithin(data, MaxJSONDepth) {
		return fmt.Sprintf("JSON nested more than %d levels deep", MaxJSONDepth)
	}
	opts := protojson.UnmarshalOptions{
		DiscardUnknown: !closed(t),
		// Empty instead of the process-wide one: what is accepted must not
		// depend on what else is linked into the program.
		Resolver: new(protoregistry.Types),
	}
	if err := opts.Unmarshal(data, m); err != nil {
		return fmt.Sprintf("not the JSON form of %s%s", m.ProtoReflect().Descriptor().FullName(), placeOf(err))
	}
	return ""
}
