package schemas

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Both targets hand the same input to every type, once as it is and once with
// the plant put in somewhere, and look for panics, leaks, errors of another
// kind, and answers that do not repeat.

func FuzzCheckProto(f *testing.F) {
	for _, s := range samples() {
		f.Add(marshal(f, s.msg), uint(3))
	}
	f.Add([]byte{}, uint(0))
	f.Add([]byte("\x0b\x0b\x0c\x0c"), uint(1))
	f.Fuzz(func(t *testing.T, data []byte, at uint) { fuzzCheck(t, "application/protobuf", data, at) })
}

func FuzzCheckJSON(f *testing.F) {
	for _, s := range samples() {
		f.Add(toJSON(f, s.msg), uint(12))
	}
	for _, text := range []string{"", "{}", "null", `{"x":[[[[]]]]}`, `{"key":"a\u0000"}`, `{"[a.b]":1,"@type":"x"}`, `{"kind":99,"value":"NaN"}`} {
		f.Add([]byte(text), uint(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint) { fuzzCheck(t, "application/json", data, at) })
}

func fuzzCheck(t *testing.T, contentType string, data []byte, at uint) {
	given := bytes.Clone(data)
	cut := at % uint(len(data)+1)
	planted := slices.Concat(data[:cut], []byte(plant), data[cut:])
	for _, typ := range All() {
		fuzzOne(t, typ, contentType, data)
		if err := Check(typ, contentType, planted); err != nil && leaks(err.Error()) {
			t.Fatalf("%s leaks: %v", typ.Name, err)
		}
	}
	if !bytes.Equal(data, given) {
		t.Fatal("the payload was changed")
	}
}

func fuzzOne(t *testing.T, typ Type, contentType string, data []byte) {
	m, err := Decode(typ, contentType, data)
	if again := Check(typ, contentType, data); (again == nil) != (err == nil) || err != nil && again.Error() != err.Error() {
		t.Fatalf("%s: first %v, then %v", typ.Name, err, again)
	}
	if err != nil {
		var pe *PayloadError
		if !errors.As(err, &pe) || len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Fatalf("%s: %v", typ.Name, err)
		}
		return
	}
	// What was accepted is accepted again in either form, and means the same.
	if n := proto.Size(m); n > MaxPayloadBytes/8 {
		return // in JSON it may be too long
	}
	m.ProtoReflect().SetUnknown(nil) // has no form in JSON
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatalf("%s: accepted, but has no JSON form", typ.Name)
	}
	for contentType, data := range map[string][]byte{"application/protobuf": marshal(t, m), "application/json": text} {
		back, err := Decode(typ, contentType, data)
		if err != nil {
			t.Fatalf("%s: accepted, but not in %s: %v", typ.Name, contentType, err)
		}
		if contentType == "application/protobuf" && !proto.Equal(m, back) {
			t.Fatalf("%s: changed on the way", typ.Name)
		}
	}
}
