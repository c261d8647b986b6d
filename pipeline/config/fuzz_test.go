package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
)

// FuzzParse: no panic; what passes is valid; what does not is a list of
// problems, one a line, in order.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "example.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "EVENKEEL_API__LISTEN=127.0.0.1:1")
	}
	f.Add([]byte(minimal), "EVENKEEL_REGIONS__US_EAST_1__KAFKA__SEEDS=a:1,b:2")
	f.Add([]byte("a: &a {a: *a, <<: *a}\n---\n"), "EVENKEEL_X__Y=1")
	f.Fuzz(func(t *testing.T, text []byte, variable string) {
		c, err := Parse("f.yaml", text, []string{variable})
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Fatalf("Parse let pass what is not valid: %v", err)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || c != nil || events.KindOf(err) != events.KindInvalid {
			t.Fatalf("%T of kind %s, config %v", err, events.KindOf(err), c)
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(e.Problems) {
			t.Fatalf("%d problems in %d lines", len(e.Problems), len(lines))
		}
		for i, p := range e.Problems {
			if !strings.HasPrefix(lines[i], "f.yaml:") || p.Message == "" {
				t.Errorf("problem %+v as %q", p, lines[i])
			}
			if i > 0 && p.Line < e.Problems[i-1].Line {
				t.Errorf("line %d after line %d", p.Line, e.Problems[i-1].Line)
			}
			if p.Line > lineBreaks(text)+2 {
				t.Errorf("problem on line %d of a shorter file", p.Line)
			}
		}
	})
}

// lineBreaks counts what YAML may take for one.
func lineBreaks(text []byte) (n int) {
	for _, r := range string(text) {
		if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) {
			n++
		}
	}
	return n
}
