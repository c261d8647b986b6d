package schemas

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Golden files pin the fields, but not the values of enums that no sample uses.
// The contract files pin every name, number and type that is ever on the wire.
func TestContractsNeverChange(t *testing.T) {
	files := map[string]protoreflect.FileDescriptor{}
	for _, typ := range All() {
		f := typ.New().ProtoReflect().Descriptor().ParentFile()
		files[string(f.Package())] = f
	}
	for name, f := range files {
		path := filepath.Join("testdata", name+".contract")
		want := contractOf(f)
		if *update {
			if err := addGolden(path, want); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%v (write it: go test ./schemas -update)", err)
		} else if !bytes.Equal(have, want) {
			t.Errorf("%s holds what was released and never changes, but the code now says\n%s\nAdd a new version instead.", path, want)
		}
	}
}

func contractOf(f protoreflect.FileDescriptor) []byte {
	var b bytes.Buffer
	for i := range f.Messages().Len() {
		m := f.Messages().Get(i)
		for j := range m.Fields().Len() {
			fd := m.Fields().Get(j)
			fmt.Fprintf(&b, "%s.%s = %d %s\n", m.Name(), fd.Name(), fd.Number(), typeName(fd))
		}
	}
	for i := range f.Enums().Len() {
		values := f.Enums().Get(i).Values()
		for j := range values.Len() {
			v := values.Get(j)
			fmt.Fprintf(&b, "%s.%s = %d\n", f.Enums().Get(i).Name(), v.Name(), v.Number())
		}
	}
	return b.Bytes()
}

func typeName(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return "map<" + typeName(fd.MapKey()) + ", " + typeName(fd.MapValue()) + ">"
	case fd.IsList():
		return fmt.Sprintf("%s %s", fd.Cardinality(), elementName(fd))
	}
	return elementName(fd)
}

func elementName(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.Message() != nil:
		return string(fd.Message().FullName())
	case fd.Enum() != nil:
		return string(fd.Enum().FullName())
	}
	return fd.Kind().String()
}
