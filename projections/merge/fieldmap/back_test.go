package fieldmap_test

import (
	"strings"
	"testing"
)

// How a key goes back: by a patch where one will do, else by a put, and a patch behind it.
// That it then is what it was is one of the laws.
func TestBack(t *testing.T) {
	for name, c := range map[string]struct {
		then, since []string
		want        []string // the values that are written
	}{
		"what is as it was":     {[]string{`eu/0@0 [] patch {"set":{"a":1}}`}, nil, nil},
		"a field":               {[]string{`eu/0@0 [] patch {"set":{"a":1}}`}, []string{`us/0@0 [] patch {"set":{"a":2,"b":3}}`}, []string{`{"set":{"a":1},"unset":["b"]}`}},
		"a count":               {[]string{`eu/0@0 [] patch {"increment":{"n":5}}`}, []string{`us/0@0 [] patch {"increment":{"n":2}}`}, []string{`{"increment":{"n":-2}}`}},
		"what was not there":    {nil, []string{`us/0@0 [] patch {"set":{"a":2}}`}, []string{``}},
		"one cannot count less": {[]string{`eu/0@0 [] patch {"increment":{"n":-9223372036854775808}}`}, []string{`us/0@0 [] patch {"increment":{"n":1}}`}, []string{`{}`, `{"increment":{"n":-9223372036854775808}}`}},
		"one was reset and would come back": {
			[]string{`eu/0@0 [] patch {"increment":{"n":5}}`},
			[]string{`us/0@0 [eu@1] delete`, `us/0@1 [] patch {"increment":{"n":2}}`},
			[]string{`{}`, `{"increment":{"n":5}}`},
		},
	} {
		changes, err := rule.Back(slicesOf(t, append(c.then[:len(c.then):len(c.then)], c.since...)...), slicesOf(t, c.then...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, change := range changes {
			got = append(got, string(change.Value))
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") || len(got) != len(c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
