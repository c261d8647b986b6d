package schemas

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	_ "google.golang.org/protobuf/types/gofeaturespb" // registers the extension pb.go, which must not matter

	configv1 "github.com/evenkeel/evenkeel/schemas/config/v1"
)

// refusal returns the PayloadError of a Check that has to fail.
func refusal(t testing.TB, typ Type, contentType string, data []byte) *PayloadError {
	t.Helper()
	m, err := Decode(typ, contentType, data)
	var pe *PayloadError
	if !errors.As(err, &pe) {
		t.Fatalf("%s: error %v (%T), want a *PayloadError", typ.Name, err, err)
	}
	if m != nil {
		t.Errorf("%s: refused, and yet there is a message", typ.Name)
	}
	if pe.Type != typ.Name || pe.ContentType != contentType || pe.Reason == "" {
		t.Errorf("%s: incomplete error %+v", typ.Name, pe)
	}
	return pe
}

func toJSON(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContentTypes(t *testing.T) {
	const isProto, isJSON, isNone = "protobuf", "JSON", "none"
	for contentType, want := range map[string]string{
		"":                                     isProto,
		"application/protobuf":                 isProto,
		"application/x-protobuf":               isProto,
		"application/vnd.google.protobuf":      isProto,
		"Application/Protobuf":                 isProto,
		" application/protobuf ; proto=x.Y":    isProto,
		"application/protobuf;;;":              isProto,
		"application/json":                     isJSON,
		"application/json; charset=utf-8":      isJSON,
		"APPLICATION/JSON":                     isJSON,
		"application/vnd.acme.v1+json":         isJSON,
		"text/x+json;a=b":                      isJSON,
		"application/cloudevents+json":         isNone,
		"application/cloudevents-batch+json":   isNone,
		"application/cloudevents+protobuf":     isNone,
		"application/+json":                    isNone,
		"/x+json":                              isNone,
		"+json":                                isNone,
		"json":                                 isNone,
		"a/b/c+json":                           isNone,
		"application/json+xml":                 isNone,
		"text/plain":                           isNone,
		"application/octet-stream":             isNone,
		";":                                    isNone,
		" ":                                    isNone,
		"application/protobuf, application/js": isNone,
		"application/jsonx":                    isNone,
		"application/\x00+json":                isNone,
	} {
		typ := mustType(t, "erlmcp.config.set.v1")
		msg := samples()[typ.Name].msg
		for form, data := range map[string][]byte{isProto: marshal(t, msg), isJSON: toJSON(t, msg)} {
			if err := Check(typ, contentType, data); (err == nil) != (form == want) {
				t.Errorf("content type %q with a payload in %s: %v", contentType, form, err)
			}
		}
		if want == isNone {
			if pe := refusal(t, typ, contentType, marshal(t, msg)); !strings.Contains(pe.Reason, "unknown content type") {
				t.Errorf("content type %q: %v", contentType, pe)
			}
		}
	}
}

func TestLongContentTypeIsClipped(t *testing.T) {
	pe := refusal(t, mustType(t, "erlmcp.config.set.v1"), strings.Repeat("x\n", 1<<16), nil)
	if s := pe.Error(); len(s) > 500 || strings.Contains(s, "\n") {
		t.Errorf("error of %d bytes: %.600s", len(s), s)
	}
}

func TestPayloadLimitIsExact(t *testing.T) {
	typ := mustType(t, "erlmcp.config.set.v1")
	data := toJSON(t, samples()[typ.Name].msg)
	most := append(data, strings.Repeat(" ", MaxPayloadBytes-len(data))...)
	if err := Check(typ, "application/json", most); err != nil {
		t.Errorf("%d bytes: %v", len(most), err)
	}
	if pe := refusal(t, typ, "application/json", append(most, ' ')); !strings.Contains(pe.Reason, "more than 1048576") {
		t.Errorf("one byte more: %v", pe)
	}

	// In protobuf, an unknown field fills up: tag and length take 5 bytes.
	data = marshal(t, samples()[typ.Name].msg)
	filler := make([]byte, MaxPayloadBytes-len(data)-5)
	most = protowire.AppendBytes(protowire.AppendTag(data, 15, protowire.BytesType), filler)
	if len(most) > MaxPayloadBytes || len(most) < MaxPayloadBytes-1 {
		t.Fatalf("the filler is off: %d bytes", len(most))
	}
	if err := Check(typ, "", most); err != nil {
		t.Errorf("%d bytes: %v", len(most), err)
	}
}

func TestJSONDepthLimitIsExact(t *testing.T) {
	typ := mustType(t, "erlmcp.config.set.v1")
	known := strings.TrimSuffix(string(toJSON(t, samples()[typ.Name].msg)), "}")
	nest := func(levels int, open, shut string) []byte {
		return []byte(known + `,"x":` + strings.Repeat(open, levels) + `1` + strings.Repeat(shut, levels) + `,"y":"]}\"` + strings.Repeat("[{", MaxJSONDepth) + `\\"}`)
	}
	for _, b := range [][2]string{{"[", "]"}, {`{"a":`, "}"}, {`[{"a":[`, "]}]"}} {
		per := strings.Count(b[0], "[") + strings.Count(b[0], "{")
		levels := (MaxJSONDepth - 1) / per
		if err := Check(typ, "application/json", nest(levels, b[0], b[1])); err != nil {
			t.Errorf("%d levels: %v", 1+levels*per, err)
		}
		if pe := refusal(t, typ, "application/json", nest(levels+1, b[0], b[1])); !strings.Contains(pe.Reason, "nested") {
			t.Errorf("%d levels: %v", 1+(levels+1)*per, pe)
		}
	}
	refusal(t, typ, "application/json", []byte(strings.Repeat("[", MaxPayloadBytes)))
}

func TestGroupsNestedWithoutEnd(t *testing.T) {
	bomb := make([]byte, MaxPayloadBytes)
	for i := range bomb {
		bomb[i] = byte(protowire.EncodeTag(12, protowire.StartGroupType))
	}
	for _, typ := range All() {
		refusal(t, typ, "application/protobuf", bomb)
	}
}

func TestUnknownFields(t *testing.T) {
	for name, s := range samples() {
		typ := mustType(t, name)
		text := string(toJSON(t, s.msg))
		for _, extra := range []string{`"x":1`, `"x":{"y":[null,true,"z"]}`, `"[a.b]":2`, `"[pb.go]":3`, `"":4`} {
			err := Check(typ, "application/json", []byte(text[:len(text)-1]+","+extra+"}"))
			if refused := err != nil; refused != (typ.Family == "secrets") {
				t.Errorf("%s with %s: %v", name, extra, err)
			}
		}
		extra := protowire.AppendVarint(protowire.AppendTag(marshal(t, s.msg), 1000, protowire.VarintType), 1)
		err := Check(typ, "application/protobuf", extra)
		if refused := err != nil; refused != (typ.Family == "secrets") {
			t.Errorf("%s with an unknown field in protobuf: %v", name, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	typ := mustType(t, "erlmcp.config.set.v1")
	for _, data := range []string{
		``, ` `, `null`, `[]`, `1`, `"x"`, `{`, `{}`, `{}{}`, `{"key":}`, `{"key":1}`, `{"key":"a","key":"b"}`,
		`{"version":-1}`, `{"version":1.5}`, `{"version":18446744073709551616}`, `{"changedAtMs":"soon"}`, `{"format":["x"]}`,
		"{\"key\":\"\xff\"}", "{\"key\":\"\\ud800\"}", "\xef\xbb\xbf{}", "{'key':1}", `{"key":"a",}`, `{"key":"a"/**/}`,
	} {
		refusal(t, typ, "application/json", []byte(data))
	}
	for _, data := range []string{"", "\xff", "\x0a", "\x0a\x05ab", "\x0a\x01\xff", "\x00", "\x0b", "\x0c", "\x08\x01", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		refusal(t, typ, "application/protobuf", []byte(data))
	}
}

func TestJSONFaultHasItsPlace(t *testing.T) {
	pe := refusal(t, mustType(t, "erlmcp.config.set.v1"), "application/json", []byte("{\n  \"key\": 17\n}"))
	if !strings.HasSuffix(pe.Reason, ": fault at line 2 column 10") {
		t.Errorf("got %q", pe.Reason)
	}
}

// What follows the position quotes the input, and so might what has none.
func TestPlaceOf(t *testing.T) {
	for text, want := range map[string]string{
		"proto: (line 3:14): unknown field x (line 4711:1)":        ": fault at line 3 column 14",
		"proto:\u00a0syntax error (line 1:2): unexpected token 17": ": fault at line 1 column 2",
		"proto: invalid value (line 4711:4712)":                    "",
		"(line 4711:4712)":                                         "",
		"proto: (line x:4712)":                                     "",
		"":                                                         "",
	} {
		if got := placeOf(errors.New(text)); got != want {
			t.Errorf("placeOf(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestErrorText(t *testing.T) {
	typ := mustType(t, "erlmcp.config.set.v1")
	pe := refusal(t, typ, "", nil)
	const want = `schemas: payload of "erlmcp.config.set.v1" (no content type): field key: must have 1 to 512 bytes and no control characters`
	if pe.Error() != want || pe.Field != "key" {
		t.Errorf("field %q, text\n%s, want\n%s", pe.Field, pe, want)
	}
	if errors.Unwrap(pe) != nil {
		t.Error("wraps an error, which may quote the payload")
	}
}

func TestTypeOfNoCatalogue(t *testing.T) {
	for _, typ := range []Type{{}, {Name: "erlmcp.config.set.v1", Family: "config", Version: 1, Op: OpPut}} {
		if pe := refusal(t, typ, "application/json", []byte(`{}`)); !strings.Contains(pe.Reason, "catalogue") {
			t.Errorf("%+v: %v", typ, pe)
		}
	}
}

func TestJSONTakesBothSpellingsOfFields(t *testing.T) {
	for name, s := range samples() {
		text, err := protojson.MarshalOptions{UseProtoNames: true, UseEnumNumbers: true}.Marshal(s.msg)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(mustType(t, name), "application/json", text)
		if err != nil || !proto.Equal(m, s.msg) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

// A message that kept pointing into the record's buffer would change under its
// reader when the buffer is used again.
func TestMessageSharesNoMemory(t *testing.T) {
	for name, s := range samples() {
		for contentType, data := range map[string][]byte{"application/protobuf": marshal(t, s.msg), "application/json": toJSON(t, s.msg)} {
			m, err := Decode(mustType(t, name), contentType, data)
			if err != nil {
				t.Fatal(err)
			}
			clear(data)
			if !proto.Equal(m, s.msg) {
				t.Errorf("%s, %s: clearing the payload changed the message to %v", name, contentType, m)
			}
		}
	}
}

// plant is a secret with its own syntax: whatever part of it an error quotes,
// leaks finds it.
const plant = `hunter2(line 4711:4712)Zq7`

func leaks(text string) bool {
	for _, part := range []string{"hunter", "4711", "4712", "Zq7", "aHVudGVy" /* base64 */} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

func TestErrorsNeverQuoteThePayload(t *testing.T) {
	quoted := fmt.Sprintf("%q", plant)
	for _, typ := range All() {
		fields := typ.New().ProtoReflect().Descriptor().Fields()
		bad := []string{
			plant, quoted, "[" + quoted + "]", "{" + quoted + "}", "{" + quoted + ":", "{" + quoted + ":1}x" + plant,
			`{"\u` + plant + `":1}`, `{"[` + plant + `]":` + plant + `}`, `{"@type":` + quoted + `}x`,
		}
		for i := range fields.Len() {
			name := fields.Get(i).JSONName()
			for _, v := range []string{
				plant, quoted, "[" + quoted + "]", "[[" + quoted + "]]", "{" + quoted + ":1}", "{" + quoted + ":{}}", `"` + plant, `"\x` + plant + `"`,
				"{" + quoted + ":" + quoted + "," + quoted + ":" + quoted + "}", "[" + quoted + "," + quoted + "]", "-" + plant, "1" + plant,
			} {
				bad = append(bad, fmt.Sprintf(`{%q:%s}`, name, v), fmt.Sprintf(`{%q:%s,%q:%s}`, name, v, name, v))
			}
		}
		for _, data := range bad {
			if err := Check(typ, "application/json", []byte(data)); err == nil || leaks(err.Error()) || leaks(fmt.Sprintf("%+v %#v", err, err)) {
				t.Errorf("%s: %s gives %v", typ.Name, data, err)
			}
		}
		for num := range protowire.Number(fields.Len() + 2) {
			for wire := range protowire.Type(6) {
				data := protowire.AppendString(protowire.AppendTag(nil, num+1, wire), plant)
				if err := Check(typ, "application/protobuf", append(data, 0xff)); err == nil || leaks(err.Error()) {
					t.Errorf("%s: field %d of wire type %d gives %v", typ.Name, num+1, wire, err)
				}
			}
		}
	}
}

// Every prefix and every flipped bit of a good payload: refused or accepted,
// but without a panic and without a word of it.
func TestDamagedPayloads(t *testing.T) {
	for name, s := range samples() {
		typ := mustType(t, name)
		for contentType, data := range map[string][]byte{"application/protobuf": marshal(t, s.msg), "application/json": toJSON(t, s.msg)} {
			for n := range data {
				checkQuietly(t, typ, contentType, data[:n])
				for bit := range 8 {
					data[n] ^= 1 << bit
					checkQuietly(t, typ, contentType, data)
					data[n] ^= 1 << bit
				}
			}
		}
	}
}

// checkQuietly runs Check and looks for words of the samples in its error.
func checkQuietly(t testing.TB, typ Type, contentType string, data []byte) {
	t.Helper()
	err := Check(typ, contentType, data)
	if err == nil {
		return
	}
	var pe *PayloadError
	if !errors.As(err, &pe) || len(err.Error()) > 500 {
		t.Fatalf("%s: %v", typ.Name, err)
	}
	for _, word := range []string{"s-7f3a91", "acme", "zoë", "node-a", "weather", "limits", "10000", "user:ada", "kms", "us-east", "keel-0", "1767225"} {
		if strings.Contains(err.Error(), word) {
			t.Fatalf("%s: the error quotes %q: %v", typ.Name, word, err)
		}
	}
}

func TestConfigValueSaidToBeJSON(t *testing.T) {
	typ := mustType(t, "erlmcp.config.set.v1")
	for value, ok := range map[string]bool{
		`{}`: true, `17`: true, `"x"`: true, ` null `: true, "": false, "{": false, plant: false,
		strings.Repeat("[", 32) + strings.Repeat("]", 32): true,
		strings.Repeat("[", 33) + strings.Repeat("]", 33): false,
	} {
		m := sampleOf[*configv1.ConfigSet](t, typ.Name)
		m.Value = value
		err := Check(typ, "", marshal(t, m))
		if (err == nil) != ok || err != nil && leaks(err.Error()) {
			t.Errorf("value %q: %v", value, err)
		}
	}
}
