package fieldmap_test

import (
	"bytes"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
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
	return mergetest.Suite{Rule: rule, Events: genEvent(parts), Model: model}
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

// what is an event, read with encoding/json. It is known to have a meaning.
type what struct {
	mergetest.Written
	clock events.HLC
	parts parts
}

type parts struct {
	Set       map[string]json.RawMessage   `json:"set"`
	Unset     []string                     `json:"unset"`
	Increment map[string]int64             `json:"increment"`
	Add       map[string][]json.RawMessage `json:"add"`
	Remove    map[string][]json.RawMessage `json:"remove"`
}

func (w what) isReset() bool { return w.Event.Op != events.OpPatch }

func read(history []mergetest.Written) (all []what) {
	for i, clock := range mergetest.EffectiveClocks(history) {
		w := what{Written: history[i], clock: clock}
		target := any(&w.parts)
		if w.Event.Op == events.OpPut {
			target = &w.parts.Set
		}
		if w.Event.Op != events.OpDelete {
			if err := json.Unmarshal(w.Event.Value, target); err != nil {
				panic(err)
			}
		}
		all = append(all, w)
	}
	return all
}

// model reads everything that was written again and again.
func model(history []mergetest.Written) merge.View {
	all := read(history)
	if len(all) == 0 {
		return merge.View{}
	}
	last := slices.MaxFunc(all, newer)
	v := merge.View{Type: last.Event.Type, Clock: last.clock, Position: last.At}
	fields := map[string]json.RawMessage{}
	for _, w := range all {
		for name := range w.parts.Set {
			showRegister(fields, all, name)
		}
		for name := range w.parts.Increment {
			showRegister(fields, all, name)
			showCounter(fields, all, name)
		}
	}
	for _, w := range all { // after the others: a set comes first
		for name := range w.parts.Add {
			showSet(fields, all, name)
		}
	}
	if len(fields) > 0 {
		v.Exists, v.ContentType, v.Value = true, "application/json", canonical(fields)
	}
	return v
}

func newer(a, b what) int {
	switch {
	case a.clock < b.clock:
		return -1
	case a.clock > b.clock:
		return 1
	}
	return a.At.Compare(b.At)
}

// isReset: somebody had seen it and put or deleted the key.
func isReset(all []what, at events.Position) bool {
	return slices.ContainsFunc(all, func(w what) bool { return w.isReset() && w.Saw(at) })
}

func showRegister(fields map[string]json.RawMessage, all []what, name string) {
	if _, shown := fields[name]; shown {
		return
	}
	var candidates []what
	for _, w := range all {
		_, sets := w.parts.Set[name]
		if (sets || slices.Contains(w.parts.Unset, name)) && !isReset(all, w.At) {
			candidates = append(candidates, w)
		}
	}
	if len(candidates) == 0 {
		return
	}
	if value, sets := slices.MaxFunc(candidates, newer).parts.Set[name]; sets {
		fields[name] = value
	}
}

func showCounter(fields map[string]json.RawMessage, all []what, name string) {
	total, shown := new(big.Int), false
	perLog := map[events.Log][]what{}
	for _, w := range all {
		perLog[w.At.Log] = append(perLog[w.At.Log], w)
	}
	for _, log := range perLog {
		if sum, counts := contribution(all, log, name); counts {
			total.Add(total, sum)
			shown = true
		}
	}
	if shown {
		fields[name] = json.RawMessage(total.String())
	}
}

// contribution is what one log counted since the last reset in it that had seen
// all increments before; nothing if a reset anywhere has seen the last one.
func contribution(all, log []what, name string) (*big.Int, bool) {
	sum, last := new(big.Int), events.Position{Offset: -1}
	for _, w := range log {
		if w.isReset() && last.Offset >= 0 && w.Saw(last) {
			sum, last = new(big.Int), events.Position{Offset: -1}
		}
		if by, increments := w.parts.Increment[name]; increments {
			sum.Add(sum, big.NewInt(by))
			last = w.At
		}
	}
	return sum, last.Offset >= 0 && !isReset(all, last)
}

func showSet(fields map[string]json.RawMessage, all []what, name string) {
	in := map[string]bool{}
	for _, w := range all {
		for _, element := range w.parts.Add[name] {
			text := string(canonical(element))
			removes := func(other what) bool {
				return other.Saw(w.At) && slices.ContainsFunc(other.parts.Remove[name], func(e json.RawMessage) bool { return string(canonical(e)) == text })
			}
			if !isReset(all, w.At) && !slices.ContainsFunc(all, removes) {
				in[text] = true
			}
		}
	}
	if len(in) == 0 {
		return
	}
	var sorted []json.RawMessage
	for text := range in {
		sorted = append(sorted, json.RawMessage(text))
	}
	slices.SortFunc(sorted, func(a, b json.RawMessage) int { return bytes.Compare(a, b) })
	fields[name] = canonical(sorted)
}

// canonical is the canonical form by way of encoding/json.
func canonical(v any) []byte {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := json.NewDecoder(bytes.NewReader(encoded))
	d.UseNumber()
	var plain any
	if err := d.Decode(&plain); err != nil {
		panic(err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain); err != nil {
		panic(err)
	}
	text := strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), `\u2028`, "\u2028") // needless, and not ours
	return []byte(text)
}
