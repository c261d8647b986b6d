package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var update = flag.Bool("update", false, "write golden files that are missing; those that exist stay as they are")

const goldenSuffix = ".golden"

// golden is a golden file; testdata/README.md explains it.
type golden struct {
	Key     string          `json:"key"`
	Headers []header        `json:"headers"`
	Value   []byte          `json:"value_base64"`
	JSON    json.RawMessage `json:"value_json"`
}

type header struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func (s sample) golden(t testing.TB, typeName string) golden {
	t.Helper()
	value, err := protojson.Marshal(s.msg)
	if err != nil {
		t.Fatal(err)
	}
	return golden{
		Key: s.key,
		Headers: []header{
			{"ce_specversion", "1.0"},
			{"ce_id", s.id},
			{"ce_source", s.source},
			{"ce_type", typeName},
			{"ce_time", time.UnixMilli(s.millis).UTC().Format(time.RFC3339Nano)},
			{"ce_subject", s.key},
			{"content-type", "application/protobuf"},
			{"ce_hlc", fmt.Sprintf("%d.0", s.millis)},
		},
		Value: marshal(t, s.msg),
		JSON:  value,
	}
}

// encode is stable: the indentation of protojson, which varies from build to
// build on purpose, is undone.
func (g golden) encode(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// addGolden writes a file that is not there yet. It never changes one that is.
func addGolden(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data)
	return err
}

func TestGolden(t *testing.T) {
	all := samples()
	for _, typ := range All() {
		t.Run(typ.Name, func(t *testing.T) {
			s, ok := all[typ.Name]
			if !ok {
				t.Fatal("no sample of this type in samples_test.go")
			}
			path := filepath.Join("testdata", typ.Name+goldenSuffix)
			want := s.golden(t, typ.Name).encode(t)
			if *update {
				if err := addGolden(path, want); err != nil {
					t.Fatal(err)
				}
			}
			have, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v (write it: go test ./schemas -update)", err)
			}
			if !bytes.Equal(have, want) {
				t.Errorf("%s holds what was released and never changes, but code or sample now say\n%s\nAdd a new version instead.", path, want)
			}
			checkGolden(t, typ, s.msg, have)
		})
	}
}

// checkGolden reads a golden file as a consumer would.
func checkGolden(t *testing.T, typ Type, want proto.Message, file []byte) {
	t.Helper()
	var g golden
	if err := json.Unmarshal(file, &g); err != nil {
		t.Fatal(err)
	}
	for _, form := range []struct {
		contentType string
		data        []byte
	}{{"application/protobuf", g.Value}, {"application/json", g.JSON}} {
		m, err := Decode(typ, form.contentType, form.data)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(m, want) {
			t.Errorf("%s decodes to %v, want %v", form.contentType, m, want)
		}
		if again := marshal(t, m); !bytes.Equal(again, g.Value) {
			t.Errorf("%s encodes again to %x, want %x", form.contentType, again, g.Value)
		}
	}
}

// A golden file pins only the fields that have a value in it.
func TestSamplesSetEveryField(t *testing.T) {
	for name, s := range samples() {
		eachMessage(s.msg.ProtoReflect(), func(m protoreflect.Message) {
			fields := m.Descriptor().Fields()
			for i := range fields.Len() {
				if !m.Has(fields.Get(i)) {
					t.Errorf("%s: the sample has no %s", name, fields.Get(i).FullName())
				}
			}
		})
	}
}

// eachMessage visits a message and those that it holds as plain fields.
func eachMessage(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() != nil && !fd.IsMap() && !fd.IsList() {
			eachMessage(v.Message(), visit)
		}
		return true
	})
}

func TestGoldenFilesHaveTypes(t *testing.T) {
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), goldenSuffix); ok {
			if _, known := Lookup(name); !known {
				t.Errorf("testdata/%s is of a type that no longer exists: types stay for ever", e.Name())
			}
		}
	}
	for name := range samples() {
		if _, known := Lookup(name); !known {
			t.Errorf("the sample %s is of no type", name)
		}
	}
}

func TestAddGoldenNeverChangesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x"+goldenSuffix)
	for _, text := range []string{"first", "second"} {
		if err := addGolden(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(path); err != nil || string(have) != "first" {
			t.Fatalf("after writing %q the file holds %q, %v", text, have, err)
		}
	}
}

// Without this, a golden file with a map could be right today by luck.
func TestGoldenEncodingDoesNotDependOnMapOrder(t *testing.T) {
	for name := range samples() {
		first := marshal(t, samples()[name].msg)
		for range 20 {
			if again := marshal(t, samples()[name].msg); !bytes.Equal(first, again) {
				t.Fatalf("%s: %x and %x", name, first, again)
			}
		}
	}
}
