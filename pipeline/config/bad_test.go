package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write into testdata/bad what the problems now are")

const (
	environmentMark = "# environment:\n"
	problemsMark    = "# problems:\n"
)

// Each file of testdata/bad ends with a comment that says which variables are
// set and which problems are expected, all of them.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".yaml"), func(t *testing.T) {
			whole, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			head, want, _ := strings.Cut(string(whole), problemsMark)
			text, environ, _ := strings.Cut(head, environmentMark)
			_, err = Parse(name, []byte(text), commented(environ))
			if err == nil {
				t.Fatal("no problem was found")
			}
			got := "#   " + strings.ReplaceAll(err.Error(), "\n", "\n#   ") + "\n"
			if got == want {
				return
			}
			if !*update {
				t.Fatalf("got\n%swant\n%s", got, want)
			}
			if err := os.WriteFile(file, []byte(head+problemsMark+got), 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func commented(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(strings.TrimPrefix(line, "#")))
	}
	return lines
}
