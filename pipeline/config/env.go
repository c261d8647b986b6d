package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const variablePrefix = "EVENKEEL_"

// Variables that begin with variablePrefix and are no keys.
var (
	cliVariables = []string{"EVENKEEL_CONFIG", "EVENKEEL_LAB", "EVENKEEL_OUTPUT", "EVENKEEL_SERVER"}

	testVariablePrefix = "EVENKEEL_KAFKA_"

	// Kubernetes makes these up from the names of services. EVENKEEL_PORT=7400
	// is none of them, but somebody's wish.
	serviceVariable = regexp.MustCompile(`^EVENKEEL_([A-Z0-9]+_)*(SERVICE_HOST=|SERVICE_PORT(_[A-Z0-9_]+)?=|PORT=(tcp|udp|sctp)://|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=)`)
)

// parseEnviron reads NAME=value; empty values count as not set.
func parseEnviron(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" {
			env[name] = value
		}
	}
	return env
}

// override takes over the keys that the environment sets; known are all.
func (d *decoder) override(c *Config, known map[string][]setting, env map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(known)) {
		text, set := env[name]
		keys := known[name]
		switch {
		case !set:
		case len(keys) > 1:
			d.addLine(name, 0, fmt.Sprintf("may mean %s or %s: change the file instead", keys[0], keys[1]))
		default:
			d.variable = name
			d.config(keys[0].node(text), c)
		}
	}
	d.variable = ""
}

// checkEnviron refuses variables that look like keys and are none.
func (c *Config) checkEnviron(p *problems, known map[string][]setting, env map[string]string) {
	named := map[string]bool{}
	for _, r := range c.Regions {
		named[r.Kafka.SASL.PasswordEnv] = true
	}
	if c.Backup != nil {
		named[c.Backup.IdentityEnv] = true
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		switch {
		case !strings.HasPrefix(name, variablePrefix), known[name] != nil, named[name],
			slices.Contains(cliVariables, name), strings.HasPrefix(name, testVariablePrefix), serviceVariable.MatchString(name + "=" + env[name]):
			continue
		}
		message := "no key of the configuration has this name"
		if like := closest(name, slices.Sorted(maps.Keys(known))); like != "" {
			message += "; did you mean " + like + "?"
		}
		p.addLine(oneLine(clip(name)), 0, message)
	}
}

// setting is a key that holds a value, not further keys.
type setting struct {
	path []string
	kind reflect.Kind
}

func (s setting) String() string { return strings.Join(s.path, ".") }

// variables finds every key of c by the name of its variable. It is more than
// one key if names differ only in dashes and underscores.
func variables(c *Config) map[string][]setting {
	found := map[string][]setting{}
	eachSetting(nil, reflect.ValueOf(c).Elem(), func(s setting) {
		name := variablePrefix + strings.ToUpper(strings.ReplaceAll(strings.Join(s.path, "__"), "-", "_"))
		found[name] = append(found[name], s)
	})
	return found
}

func eachSetting(path []string, v reflect.Value, yield func(setting)) {
	down := func(name string) []string { return append(slices.Clone(path), name) }
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			eachSetting(down(f.key), v.Field(f.index), yield)
		}
	case reflect.Map:
		for _, name := range slices.SortedFunc(slices.Values(v.MapKeys()), compareText) {
			eachSetting(down(name.String()), v.MapIndex(name), yield)
		}
	case reflect.Pointer:
		if v.IsNil() {
			v = reflect.New(v.Type().Elem())
		}
		eachSetting(path, v.Elem(), yield) // with what the file has in its maps
	default:
		yield(setting{path: path, kind: v.Kind()})
	}
}

func compareText(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }

// node is what a file with just this key would hold.
func (s setting) node(text string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	switch s.kind {
	case reflect.String:
		n.Tag = "!!str"
	case reflect.Slice:
		n = &yaml.Node{Kind: yaml.SequenceNode}
		for entry := range strings.SplitSeq(text, ",") {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.TrimSpace(entry)})
		}
	}
	for _, name := range slices.Backward(s.path) {
		n = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, n}}
	}
	return n
}
