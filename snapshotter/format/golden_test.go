package format

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files of the present formats that are missing; one that exists stays as it is")

func goldenName(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("manifest-%d.golden", version))
}

// addGolden writes a file that is not there yet. It refuses to change one that
// is: backups with these bytes exist.
func addGolden(name string, text []byte) error {
	old, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.WriteFile(name, text, 0o644)
	case err == nil && !bytes.Equal(old, text):
		return fmt.Errorf("%s has other bytes and is never changed: what is written has become another format, which needs another number", name)
	}
	return err
}

// The golden manifest of this format is what Encode still writes, byte by byte.
func TestGolden(t *testing.T) {
	text := mustEncode(t, sample())
	if *update {
		if err := addGolden(goldenName(Version), text); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(goldenName(Version))
	if err != nil {
		t.Fatalf("%v; add it with -update", err)
	}
	if !bytes.Equal(golden, text) {
		t.Errorf("the sample is written as\n%s\nthe golden manifest is\n%s", text, golden)
	}
	m, err := Decode(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, sample()) {
		t.Errorf("the golden manifest is read as\n%+v\nwant\n%+v", m, sample())
	}
}

// Manifests of all formats that there ever were are read.
func TestEveryFormatIsRead(t *testing.T) {
	for version := 1; version <= Version; version++ {
		text, err := os.ReadFile(goldenName(version))
		if err != nil {
			t.Fatal(err)
		}
		m, err := Decode(text)
		if err != nil {
			t.Errorf("format %d: %v", version, err)
			continue
		}
		if want := map[int]*Manifest{1: sample1(), 2: sample2(), 3: sample3(), 4: sample()}[version]; !reflect.DeepEqual(m, want) {
			t.Errorf("format %d is read as\n%+v\nwant\n%+v", version, m, want)
		}
		if again := mustEncode(t, m); !bytes.Equal(again, text) {
			t.Errorf("format %d is written again as\n%s\nit was\n%s", version, again, text)
		}
	}
}

func TestGoldenIsNeverChanged(t *testing.T) {
	name := filepath.Join(t.TempDir(), "golden")
	if err := addGolden(name, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := addGolden(name, []byte("first")); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := addGolden(name, []byte("second")); err == nil {
		t.Error("changed")
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "first" {
		t.Errorf("it holds %q, %v", text, err)
	}
}
