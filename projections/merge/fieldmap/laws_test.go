package fieldmap_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge/fieldmap"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
)

var rule fieldmap.Rule

// The laws for everything mixed, and for each kind of field alone, where writers
// meet more often.
func TestLaws(t *testing.T) {
	for name, parts := range map[string][]string{
		"everything": {"set", "unset", "increment", "add", "add", "remove", "remove"},
		"registers":  {"set", "set", "unset"},
		"counters":   {"increment"},
		"sets":       {"add", "remove"},
	} {
		t.Run(name, suite(parts...).Run)
	}
}

func FuzzSlices(f *testing.F) { suite("set", "unset", "increment", "add", "remove").Fuzz(f) }

func suite(parts ...string) mergetest.Suite {
	return mergetest.Suite{Rule: rule, Events: genEvent(parts), Model: mergetest.Models[rule.Name()]}
}

// genEvent gives patches, puts and deletes of few fields and elements, in many
// spellings, and now and then what has no meaning.
func genEvent(parts []string) *rapid.Generator[events.Event] {
	return rapid.Custom(func(t *rapid.T) events.Event {
		e := events.Event{
			Type:        rapid.SampledFrom([]string{"", "t", events.TypePatch}).Draw(t, "type"),
			ContentType: rapid.SampledFrom([]string{"", "", "application/json"}).Draw(t, "content type"),
		}
		switch rapid.IntRange(0, 15).Draw(t, "what") {
		case 0:
			e.Op = rapid.SampledFrom([]events.Op{events.OpAppend, events.OpResolve, events.OpPatch, events.OpPut}).Draw(t, "op")
			e.Value, e.ContentType = []byte(genPatch(parts).Draw(t, "patch")), "text/plain"
		case 1:
			e.Op = rapid.SampledFrom([]events.Op{events.OpPatch, events.OpPut}).Draw(t, "op")
			e.Value = []byte(rapid.SampledFrom(broken).Draw(t, "broken"))
		case 2, 3:
			e.Op = events.OpDelete
		case 4, 5:
			e.Op, e.Value = events.OpPut, []byte(object(t, genName(), genValue()))
		default:
			e.Op, e.Value = events.OpPatch, []byte(genPatch(parts).Draw(t, "patch"))
		}
		return e
	})
}

var broken = []string{
	``, `[]`, `1`, `{`, `{"set":{"a":1,"a":2}}`, `{"a":1,"a":2}`, `{"a":{"b":1,"\u0062":2}}`, `{"put":{}}`, `{"set":[]}`, `{"unset":{}}`, `{"unset":[1]}`,
	`{"increment":{"a":1.5}}`, `{"increment":{"a":"1"}}`, `{"add":{"a":1}}`, `{"add":{"a":[[]]}}`, `{"remove":["a"]}`,
	`{"set":{"a":1},"unset":["a"]}`, `{"set":{"a":1},"increment":{"a":1}}`, `{"unset":["a","a"]}`, `{"increment":{"a":1},"add":{"a":[]}}`, "{\"\xff\":1}",
}

// Names and elements are few, so that writers meet, and now and then odd.
func genName() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{`"a"`, `"a"`, `"a"`, `"\u0061"`, `"b"`, `"b"`, `"ü\"\n\u0001<"`, `""`})
}

func genElement() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{`"x"`, `"x"`, `"x"`, `"\u0078"`, `1`, `1`, `null`, `"\/\b\u2028<>"`})
}

func genValue() *rapid.Generator[string] {
	return rapid.OneOf(genElement(), rapid.SampledFrom([]string{`1.0`, `-0`, `1e400`, `""`, `{ }`, "[ 1 ,\t2]", `{"z":1, "y":{"b" : [], "a":[{"d":1,"c":""}]}}`}))
}

func genElements() *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(genElement(), 0, 3), func(all []string) string { return "[" + strings.Join(all, " ,") + "]" })
}

func object(t *rapid.T, name, value *rapid.Generator[string]) string {
	var members []string
	for range rapid.SampledFrom([]int{1, 1, 1, 2, 0}).Draw(t, "members") {
		members = append(members, name.Draw(t, "name")+" : "+value.Draw(t, "value"))
	}
	return " {" + strings.Join(members, ", ") + "} \n"
}

// genPatch gives patches, most of which do one thing.
func genPatch(parts []string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var texts []string
		integers := rapid.SampledFrom([]string{"1", "1", "-3", "0", "-0", "4611686018427387904", "-9223372036854775808"})
		parts := rapid.Permutation(parts).Draw(t, "parts")
		for _, part := range parts[:min(len(parts), rapid.SampledFrom([]int{1, 1, 1, 2, 3, 0}).Draw(t, "how many"))] {
			var text string
			switch part {
			case "set":
				text = object(t, genName(), genValue())
			case "unset":
				text = "[" + genName().Draw(t, "name") + "]"
			case "increment":
				text = object(t, genName(), integers)
			default:
				text = object(t, genName(), genElements())
			}
			texts = append(texts, `"`+part+`":`+text)
		}
		return "{" + strings.Join(texts, ",") + "}"
	})
}
