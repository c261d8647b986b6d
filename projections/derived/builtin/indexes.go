package builtin

import (
	"bytes"
	"encoding/json"

	"google.golang.org/protobuf/proto"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/schemas"
	registryv1 "github.com/evenkeel/evenkeel/schemas/registry/v1"
	sessionv1 "github.com/evenkeel/evenkeel/schemas/session/v1"
)

// SessionsByUser has an entry under the user of each key of the stream session:
// the user_id of erlmcp.session.started.v1, or the text under "user" or "user_id" of
// a JSON object.
func SessionsByUser() derived.Model {
	return derived.Model{
		Name: "sessions-by-user", Version: 1, Streams: []events.Stream{"session"},
		Rows: func(v derived.View, emit func(key string, value []byte)) error {
			eachValue(&v.View, func(typ, contentType string, value []byte) {
				emitText(userOf(typ, contentType, value), emit)
			})
			return nil
		},
	}
}

func userOf(typ, contentType string, value []byte) string {
	if m, ok := message(typ, contentType, value).(*sessionv1.SessionStarted); ok {
		return m.GetUserId()
	}
	var object struct {
		User   json.RawMessage `json:"user"`
		UserID json.RawMessage `json:"user_id"`
	}
	if !readObject(value, &object) {
		return ""
	}
	if user := text(object.User); user != "" {
		return user
	}
	return text(object.UserID)
}

// RegistryByCapability has an entry under each capability of each key of the stream
// registry: the capabilities of erlmcp.registry.registered.v1, or the texts of the
// array "capabilities" of a JSON object, the first 1,000 of them.
func RegistryByCapability() derived.Model {
	return derived.Model{
		Name: "registry-by-capability", Version: 1, Streams: []events.Stream{"registry"},
		Rows: func(v derived.View, emit func(key string, value []byte)) error {
			eachValue(&v.View, func(typ, contentType string, value []byte) {
				for _, capability := range capabilitiesOf(typ, contentType, value) {
					emitText(capability, emit)
				}
			})
			return nil
		},
	}
}

const mostCapabilities = 1_000

func capabilitiesOf(typ, contentType string, value []byte) []string {
	if m, ok := message(typ, contentType, value).(*registryv1.Registered); ok {
		return m.GetCapabilities()
	}
	var object struct {
		Capabilities json.RawMessage `json:"capabilities"`
	}
	var list []json.RawMessage
	if !readObject(value, &object) || json.Unmarshal(object.Capabilities, &list) != nil {
		return nil
	}
	var texts []string
	for _, entry := range list[:min(len(list), mostCapabilities)] {
		texts = append(texts, text(entry))
	}
	return texts
}

// mostSiblings bounds how many concurrent values of one view count.
const mostSiblings = 8

// eachValue gives the value of a view, or those of its siblings: as long as nobody
// has decided between them, each of them is true.
func eachValue(v *merge.View, yield func(typ, contentType string, value []byte)) {
	yield(v.Type, v.ContentType, v.Value)
	for _, s := range v.Siblings[:min(len(v.Siblings), mostSiblings)] {
		yield(s.Type, s.ContentType, s.Value)
	}
}

// emitText emits an entry without a value, if there can be one.
func emitText(key string, emit func(key string, value []byte)) {
	if n := len(key); n > 0 && n <= derived.MaxKeyBytes {
		emit(key, nil)
	}
}

// message is a payload of a known type, nil if it is none.
func message(typ, contentType string, value []byte) proto.Message {
	t, known := schemas.Lookup(typ)
	if !known {
		return nil
	}
	m, err := schemas.Decode(t, contentType, value)
	if err != nil {
		return nil
	}
	return m
}

// readObject reads a JSON object of a bounded size.
func readObject(value []byte, object any) bool {
	value = bytes.TrimLeft(value, " \t\r\n")
	return len(value) > 0 && value[0] == '{' && len(value) <= schemas.MaxPayloadBytes && json.Unmarshal(value, object) == nil
}

// text is a JSON text, empty if it is something else.
func text(raw json.RawMessage) (s string) {
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
