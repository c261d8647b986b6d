package fieldmap

import (
	"encoding/json"
	"strings"
	"testing"
)

// A text is JSON if encoding/json says so, and as deep as its brackets say that
// stand outside strings.
func checkScanner(t *testing.T, data []byte) {
	t.Helper()
	s := scanner{data: data}
	valid := s.text()
	if want := json.Valid(data); valid != want {
		t.Fatalf("%q is JSON: %v, encoding/json says %v", data, valid, want)
	}
	if !valid {
		return
	}
	level, deepest := 0, 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = stringEnd(data, i) - 1
		case '{', '[':
			level++
			deepest = max(deepest, level)
		case '}', ']':
			level--
		}
	}
	if s.levels != deepest {
		t.Fatalf("%q is nested %d levels deep, found %d", data, deepest, s.levels)
	}
}

var jsonTexts = []string{
	``, ` `, `0`, `-0`, `-`, `01`, `1.`, `.5`, `1.5e`, `1.5e+`, `1.5e+07`, `1E-2`, `+1`, `1 2`, `true`, `tru`, `truex`, `null`, `nul`, `false`,
	`"`, `"\"`, `"\""`, `"\x"`, `"\u12"`, `"\u12fG"`, `"\uD800"`, "\"\n\"", "\"\x7f\"", "\"\xff\"", `"a" `, ` "a"`, `"\/\b\f\n\r\t\\"`,
	`[]`, `[ ]`, `[,]`, `[1,]`, `[1 2]`, `[1,2`, `[1]]`, `[[[]],[]]`, `]`,
	`{}`, `{ }`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1 "b":2}`, `{a:1}`, `{"a":1]`, `{"a":{"b":["}"]}}`, `{1:2}`, `{"a" : 1 , "b" : [ ] }`,
	"\ufeff{}", "{}\x00", "[1,\v2]",
}

func TestScanner(t *testing.T) {
	for _, text := range jsonTexts {
		checkScanner(t, []byte(text))
	}
	for _, levels := range []int{maxDepth, maxDepth + 1, levelsRead, levelsRead + 1} {
		checkScanner(t, []byte(strings.Repeat("[", levels)+strings.Repeat("]", levels)))
		checkScanner(t, []byte(strings.Repeat(`{"":`, levels)+"1"+strings.Repeat("}", levels)))
	}
}

func FuzzScanner(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(checkScanner)
}
