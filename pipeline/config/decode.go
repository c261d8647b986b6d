package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds what aliases can blow a small file up to.
const maxNodes = 50_000

// decoder writes YAML nodes over a Config, noting where each value stood. Of
// what it can not take over it notes a problem, and goes on.
type decoder struct {
	*problems
	variable string // the variable of the environment that is being taken over
	nodes    int
}

// config takes over a whole configuration.
func (d *decoder) config(n *yaml.Node, c *Config) { d.value("", n, reflect.ValueOf(c).Elem()) }

func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			d.unreadable(path, "too much: want at most %d values in all", maxNodes)
		}
		return
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if isNull(n) && d.variable == "" {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(path, n, v)
	case reflect.Map:
		d.entries(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
			if e, ok := v.Interface().(interface{ setDefaults(name string) }); ok {
				e.setDefaults("")
			}
		}
		d.value(path, n, v.Elem())
	default:
		d.scalar(path, n, v)
	}
}

func (d *decoder) structure(path string, n *yaml.Node, v reflect.Value) {
	fields := fieldsOf(v.Type())
	d.mapping(path, n, func(key string, n *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		if i < 0 {
			d.unreadable(child(path, key), "%s", unknownKey(key, fields))
			return
		}
		d.value(child(path, key), n, v.Field(fields[i].index))
	})
}

// entries takes over a map whose keys are the user's names. Entries that are
// there already are written over.
func (d *decoder) entries(path string, n *yaml.Node, v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.mapping(path, n, func(name string, n *yaml.Node) {
		key := reflect.ValueOf(name).Convert(v.Type().Key())
		entry := reflect.New(v.Type().Elem()).Elem()
		if old := v.MapIndex(key); old.IsValid() {
			entry.Set(old)
		} else if e, ok := entry.Addr().Interface().(interface{ setDefaults(name string) }); ok {
			e.setDefaults(name)
		}
		d.value(child(path, name), n, entry)
		v.SetMapIndex(key, entry)
	})
}

// mapping yields the pairs of n in order, each key once.
func (d *decoder) mapping(path string, n *yaml.Node, yield func(key string, n *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.unreadable(path, "want keys and values, got %s", kindOf(n))
		return
	}
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch first, twice := lines[key.Value]; {
		case key.Kind != yaml.ScalarNode || isNull(key):
			d.addLine(path, key.Line, "a key must be text, got "+kindOf(key))
		case key.ShortTag() == "!!merge":
			d.addLine(path, key.Line, `merge keys ("<<") are not understood; an alias (*name) can stand for a whole value`)
		case twice:
			d.addLine(child(path, key.Value), key.Line, fmt.Sprintf("given twice, first on line %d", first))
		default:
			lines[key.Value] = key.Line
			d.note(child(path, key.Value), key.Line, value)
			yield(key.Value, value)
		}
	}
}

// note remembers where the value at path stands. A variable that changes a key
// does not move what that key is in.
func (d *decoder) note(path string, line int, value *yaml.Node) {
	if _, known := d.places[path]; known && d.variable != "" && value.Kind == yaml.MappingNode {
		return
	}
	d.places[path] = place{line: line, variable: d.variable}
}

func (d *decoder) list(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.unreadable(path, "want a list, got %s", kindOf(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, len(n.Content)))
	for i, n := range n.Content {
		at := indexed(path, i)
		d.note(at, n.Line, n)
		entry := reflect.New(v.Type().Elem()).Elem()
		d.value(at, n, entry)
		v.Set(reflect.Append(v, entry))
	}
}

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) scalar(path string, n *yaml.Node, v reflect.Value) {
	fail := func(want string) {
		got := kindOf(n)
		switch {
		case got == "text":
			got = fmt.Sprintf("text %q", clip(n.Value))
		case n.Kind == yaml.ScalarNode:
			got = clip(n.Value)
		}
		d.unreadable(path, "want %s, got %s", want, got)
	}
	tag := n.ShortTag()
	switch {
	case v.Type() == durationType:
		t, err := ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			fail("a duration with its unit, such as 10s or 30d")
			return
		}
		v.SetInt(int64(t))
	case v.CanInt() || v.CanUint():
		var i int64
		if tag != "!!int" || n.Decode(&i) != nil {
			fail("a whole number")
		} else if !setInt(v, i) {
			d.unreadable(path, "%d is out of range", i)
		}
	case v.Kind() == reflect.Bool:
		var b bool
		if tag != "!!bool" || n.Decode(&b) != nil {
			fail("true or false")
			return
		}
		v.SetBool(b)
	default: // not quoted: it may be a misplaced password
		if tag != "!!str" {
			hint := ""
			if n.Kind == yaml.ScalarNode && strings.HasPrefix(tag, "!!") {
				hint = "; put it in quotes if it is meant as text"
			}
			d.unreadable(path, "want text, got %s%s", kindOf(n), hint)
			return
		}
		v.SetString(n.Value)
	}
}

// ParseDuration is time.ParseDuration, with days of 24 hours in front: 30d, 1d12h.
func ParseDuration(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil || rest == "" {
		return time.Duration(n) * 24 * time.Hour, err
	}
	more, err := time.ParseDuration(rest)
	return time.Duration(n)*24*time.Hour + more, err
}

// setInt sets v to i unless that does not fit.
func setInt(v reflect.Value, i int64) bool {
	switch {
	case v.CanInt() && !v.OverflowInt(i):
		v.SetInt(i)
	case v.CanUint() && i >= 0 && !v.OverflowUint(uint64(i)):
		v.SetUint(uint64(i))
	default:
		return false
	}
	return true
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindOf names what stands at n without showing it.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch tag := n.ShortTag(); tag {
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	case "!!null":
		return "nothing"
	default:
		return "a value with the tag " + clip(tag)
	}
}

// field is a key of a struct.
type field struct {
	key   string
	index int
}

func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "-" {
			fields = append(fields, field{key: key, index: i})
		}
	}
	return fields
}

func unknownKey(key string, fields []field) string {
	if key == "password" {
		return "a password does not stand in this file: say where it is with password_file or password_env"
	}
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	if like := closest(strings.ReplaceAll(key, "-", "_"), known); like != "" {
		return fmt.Sprintf("unknown key; did you mean %s?", like)
	}
	return "unknown key; there is " + strings.Join(known, ", ")
}
