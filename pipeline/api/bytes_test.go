package api_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/pipeline/api"
)

// genBytes draws bytes that are text, nearly text, or anything at all.
func genBytes() *rapid.Generator[[]byte] {
	text := rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) })
	tricky := rapid.SampledFrom([][]byte{
		{}, {0}, []byte("null"), []byte(`{"base64":"AA=="}`), []byte(`"`), []byte(`\`), []byte("\u2028<&>\u2029"),
		[]byte("\ufffd"), {0xff}, {0xed, 0xa0, 0x80}, []byte("\xf0\x9f\x98"), []byte("\xef\xbb\xbf"),
	})
	return rapid.OneOf(text, rapid.SliceOf(rapid.Byte()), tricky)
}

func TestBytesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genBytes().Draw(t, "bytes")
		text, err := json.Marshal(api.Bytes(want))
		if err != nil {
			t.Fatal(err)
		}
		var got api.Bytes
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !bytes.Equal(got, want) || got == nil {
			t.Fatalf("%q became %s and then %q", want, text, got)
		}
		if isText := text[0] == '"'; isText != utf8.Valid(want) {
			t.Fatalf("%q became %s", want, text)
		}
	})
}

// Nil and empty differ: the one deletes, the other is a value.
func TestBytesNull(t *testing.T) {
	text, err := json.Marshal(struct{ A, B api.Bytes }{nil, api.Bytes{}})
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != `{"A":null,"B":""}` {
		t.Errorf("got %s", text)
	}
	got := struct{ A, B, C api.Bytes }{api.Bytes("x"), nil, nil}
	if err := json.Unmarshal([]byte(`{"A":null,"B":"","C":{"base64":""}}`), &got); err != nil {
		t.Fatal(err)
	}
	if got.A != nil || got.B == nil || got.C == nil || len(got.B)+len(got.C) != 0 {
		t.Errorf("got %#v", got)
	}
}

// Whatever would have to be guessed, or replaced by something else, is refused.
func TestBytesInvalidForms(t *testing.T) {
	for _, text := range []string{
		`5`, `true`, `[]`, `["a"]`, `{}`, `{"base64":null}`, `{"base64":5}`, `{"base64":"A"}`, `{"base64":"??=="}`,
		`{"base64":"QQ==","x":1}`, `{"text":"a"}`,
		"\"a\xff\"", "\"\xed\xa0\x80\"", // not UTF-8
		`"\ud800"`, `"\udc00"`, `"\ud800x"`, `"\ud800\u0041"`, `"\udc00\ud800"`, `"a\uD83D"`, // half a surrogate pair
	} {
		got := api.Bytes("untouched")
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%q was read as %q", text, got)
		} else if !strings.Contains(err.Error(), "base64") && !strings.Contains(err.Error(), "Unicode") {
			t.Errorf("%q: %v: says nothing of what is wanted", text, err)
		}
	}
}

func TestBytesEscapes(t *testing.T) {
	for text, want := range map[string]string{
		`"\ud83d\ude00"`: "😀",
		`"\\ud800"`:      `\ud800`,
		`"\ufffd"`:       "\ufffd",
		`"a\u0000b"`:     "a\x00b",
		`"\"\\\/\n"`:     "\"\\/\n",
	} {
		var got api.Bytes
		if err := json.Unmarshal([]byte(text), &got); err != nil || string(got) != want {
			t.Errorf("%s was read as %q, %v; want %q", text, got, err, want)
		}
	}
}
