package schemas

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestAllTypes(t *testing.T) {
	want := []string{
		"erlmcp.config.set.v1 put",
		"erlmcp.config.unset.v1 delete",
		"erlmcp.metrics.sampled.v1 put",
		"erlmcp.registry.registered.v1 put",
		"erlmcp.registry.unregistered.v1 delete",
		"erlmcp.secrets.erased.v1 delete",
		"erlmcp.secrets.stored.v1 put",
		"erlmcp.session.ended.v1 delete",
		"erlmcp.session.started.v1 put",
		"evenkeel.control.attested.v1 put",
		"evenkeel.control.region_started.v1 put",
	}
	var have []string
	for _, typ := range All() {
		have = append(have, typ.Name+" "+typ.Op.String())
	}
	if !slices.Equal(have, want) {
		t.Errorf("All() has\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

func TestTypeSaysWhatItsNameSays(t *testing.T) {
	form := regexp.MustCompile(`^(erlmcp|evenkeel)\.([a-z]+)\.[a-z_]+\.v([0-9]+)$`)
	messages := map[string]string{}
	for _, typ := range All() {
		m := form.FindStringSubmatch(typ.Name)
		if m == nil {
			t.Errorf("%s: want <product>.<family>.<what>.v<N>", typ.Name)
			continue
		}
		if typ.Family != m[2] || fmt.Sprint(typ.Version) != m[3] {
			t.Errorf("%s: has family %s and version %d", typ.Name, typ.Family, typ.Version)
		}
		d := typ.New().ProtoReflect().Descriptor()
		if want := fmt.Sprintf("evenkeel.%s.v%d", typ.Family, typ.Version); string(d.ParentFile().Package()) != want {
			t.Errorf("%s: its message %s is not of package %s", typ.Name, d.FullName(), want)
		}
		if other, twice := messages[string(d.FullName())]; twice {
			t.Errorf("%s and %s share the message %s", typ.Name, other, d.FullName())
		}
		messages[string(d.FullName())] = typ.Name
	}
}

func TestLookup(t *testing.T) {
	for _, typ := range All() {
		if got, ok := Lookup(typ.Name); !ok || got.Name != typ.Name || got.Op != typ.Op {
			t.Errorf("Lookup(%q) = %+v, %v", typ.Name, got, ok)
		}
	}
	for _, name := range []string{"", "erlmcp.session.started", "erlmcp.session.started.v2", "ERLMCP.SESSION.STARTED.V1", "erlmcp.session.started.v1 "} {
		if typ, ok := Lookup(name); ok || typ.Op != OpNone || typ.New() != nil {
			t.Errorf("Lookup(%q) = %+v, %v, want nothing", name, typ, ok)
		}
	}
}

func TestAllIsTheCallersOwn(t *testing.T) {
	first := All()
	first[0] = Type{}
	if All()[0].Name == "" {
		t.Error("a change to one answer of All shows in the next")
	}
}

func TestNewIsEmptyAndNew(t *testing.T) {
	for _, typ := range All() {
		a, b := typ.New(), typ.New()
		if a == b || len(marshal(t, a)) != 0 {
			t.Errorf("%s: New gives %v and %v", typ.Name, a, b)
		}
	}
}

func TestOpString(t *testing.T) {
	for op, want := range map[Op]string{OpNone: "none", OpPut: "put", OpDelete: "delete", OpPatch: "patch", OpAppend: "append", OpResolve: "resolve", 9: "Op(9)"} {
		if got := op.String(); got != want {
			t.Errorf("Op(%d).String() = %q, want %q", uint8(op), got, want)
		}
	}
}
