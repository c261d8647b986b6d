package mergetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Models says, for each rule that is registered, by its name, what it means: the view of
// a key of which all that was written, as in Suite.Model. Nothing here knows slices,
// prefixes or dots, so that tests of shards and of whole regions can ask it as well.
var Models = map[string]func(history []Written) merge.View{
	"append":     counted,
	"fieldmap":   fieldByField,
	"lww":        newest,
	"multivalue": unseen,
}

// counted counts.
func counted(history []Written) (v merge.View) {
	for i, clock := range EffectiveClocks(history) {
		if w := history[i]; i == 0 || clock > v.Clock || clock == v.Clock && w.At.Compare(v.Position) > 0 {
			v = merge.View{Type: w.Event.Type, Clock: clock, Position: w.At}
		}
	}
	if len(history) > 0 {
		v.Exists, v.ContentType = true, "application/json"
		v.Value = fmt.Appendf(nil, `{"count":%d}`, len(history))
	}
	return v
}

// newest: the newest event is what there is.
func newest(history []Written) (v merge.View) {
	for i, clock := range EffectiveClocks(history) {
		w := history[i]
		if i > 0 && (clock < v.Clock || clock == v.Clock && w.At.Compare(v.Position) < 0) {
			continue
		}
		v = merge.View{Exists: isValue(w), Type: w.Event.Type, ContentType: w.Event.ContentType, Clock: clock, Position: w.At}
		if v.Exists {
			v.Value = w.Event.Value
		}
	}
	return v
}

// unseen: a value is there unless somebody who wrote anything had seen it. It is
// newer than those of its own log that were there until it came.
func unseen(history []Written) merge.View {
	clocks := map[events.Position]events.HLC{}
	for i, w := range history {
		clocks[w.At] = w.Event.Clock
		for j, old := range history[:i] {
			if old.At.Log != w.At.Log || !isValue(old) || !w.Saw(old.At) {
				continue
			}
			sawBefore := func(between Written) bool { return between.At.Log == w.At.Log && between.Saw(old.At) }
			if !slices.ContainsFunc(history[j:i], sawBefore) {
				clocks[w.At] = max(clocks[w.At], clocks[old.At].Next())
			}
		}
	}
	var all []merge.Sibling
	for _, w := range history {
		saw := func(other Written) bool { return other.Saw(w.At) }
		if isValue(w) && !slices.ContainsFunc(history, saw) {
			all = append(all, merge.Sibling{Value: w.Event.Value, ContentType: w.Event.ContentType, Type: w.Event.Type, Clock: clocks[w.At], Position: w.At})
		}
	}
	if len(all) == 0 {
		return merge.View{}
	}
	top := slices.MaxFunc(all, func(a, b merge.Sibling) int {
		if a.Clock != b.Clock {
			return map[bool]int{true: -1, false: 1}[a.Clock < b.Clock]
		}
		return a.Position.Compare(b.Position)
	})
	view := merge.View{Exists: true, Value: top.Value, ContentType: top.ContentType, Type: top.Type, Clock: top.Clock, Position: top.Position}
	if len(all) > 1 {
		view.Siblings = all
	}
	return view
}

func isValue(w Written) bool { return w.Event.Op != events.OpDelete && !w.Event.IsBurial() }

// change is an event of fields, read with encoding/json. It is known to have a meaning.
type change struct {
	Written
	clock events.HLC
	parts parts
}

type parts struct {
	Set       map[string]json.RawMessage `json:"set"`
	Unset     []string                   `json:"unset"`
	Increment map[string]int64           `json:"increment"`
	Add       map[string]elements        `json:"add"`
	Remove    map[string]elements        `json:"remove"`
}

// elements are those of a set, in canonical form.
type elements []string

// UnmarshalJSON implements json.Unmarshaler.
func (e *elements) UnmarshalJSON(text []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	for _, element := range list {
		*e = append(*e, string(canonical(element)))
	}
	return nil
}

func (c change) isReset() bool { return c.Event.Op != events.OpPatch && !c.Event.IsBurial() }

// bury leaves of a change what it takes away, and that its registers are newer than others.
func (c *change) bury() {
	c.parts.Unset = append(c.parts.Unset, slices.Collect(maps.Keys(c.parts.Set))...)
	c.parts.Set, c.parts.Increment, c.parts.Add = nil, nil, nil
}

func read(history []Written) (all []change) {
	for i, clock := range EffectiveClocks(history) {
		c := change{Written: history[i], clock: clock}
		if c.Event.IsBurial() {
			for j := range all {
				if all[j].At.Log == c.At.Log {
					all[j].bury()
				}
			}
			all = append(all, c)
			continue
		}
		target := any(&c.parts)
		if c.Event.Op == events.OpPut {
			target = &c.parts.Set
		}
		if c.Event.Op != events.OpDelete {
			if err := json.Unmarshal(c.Event.Value, target); err != nil {
				panic(err)
			}
		}
		all = append(all, c)
	}
	return all
}

// fieldByField reads everything that was written again and again.
func fieldByField(history []Written) merge.View {
	all := read(history)
	if len(all) == 0 {
		return merge.View{}
	}
	last := slices.MaxFunc(all, newer)
	v := merge.View{Type: last.Event.Type, Clock: last.clock, Position: last.At}
	names := map[string]bool{}
	for _, c := range all {
		for _, used := range []map[string]bool{namesOf(c.parts.Set), namesOf(c.parts.Increment), namesOf(c.parts.Add)} {
			maps.Copy(names, used)
		}
	}
	fields := map[string]json.RawMessage{}
	for name := range names {
		showRegister(fields, all, name)
		showCounter(fields, all, name)
		showSet(fields, all, name) // the last one: a set comes first
	}
	if len(fields) > 0 {
		v.Exists, v.ContentType, v.Value = true, "application/json", canonical(fields)
	}
	return v
}

func namesOf[V any](fields map[string]V) map[string]bool {
	names := map[string]bool{}
	for name := range fields {
		names[name] = true
	}
	return names
}

func newer(a, b change) int {
	switch {
	case a.clock < b.clock:
		return -1
	case a.clock > b.clock:
		return 1
	}
	return a.At.Compare(b.At)
}

// isReset: somebody had seen it and put or deleted the key.
func isReset(all []change, at events.Position) bool {
	return slices.ContainsFunc(all, func(c change) bool { return c.isReset() && c.Saw(at) })
}

func showRegister(fields map[string]json.RawMessage, all []change, name string) {
	var candidates []change
	for _, c := range all {
		_, sets := c.parts.Set[name]
		if (sets || slices.Contains(c.parts.Unset, name)) && !isReset(all, c.At) {
			candidates = append(candidates, c)
		}
	}
	if len(candidates) == 0 {
		return
	}
	if value, sets := slices.MaxFunc(candidates, newer).parts.Set[name]; sets {
		fields[name] = value
	}
}

func showCounter(fields map[string]json.RawMessage, all []change, name string) {
	total, shown := new(big.Int), false
	perLog := map[events.Log][]change{}
	for _, c := range all {
		perLog[c.At.Log] = append(perLog[c.At.Log], c)
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
func contribution(all, log []change, name string) (*big.Int, bool) {
	sum, last := new(big.Int), events.Position{Offset: -1}
	for _, c := range log {
		if c.isReset() && last.Offset >= 0 && c.Saw(last) {
			sum, last = new(big.Int), events.Position{Offset: -1}
		}
		if by, increments := c.parts.Increment[name]; increments {
			sum.Add(sum, big.NewInt(by))
			last = c.At
		}
	}
	return sum, last.Offset >= 0 && !isReset(all, last)
}

func showSet(fields map[string]json.RawMessage, all []change, name string) {
	in := map[string]bool{}
	for _, c := range all {
		for _, element := range c.parts.Add[name] {
			removes := func(other change) bool { return other.Saw(c.At) && slices.Contains(other.parts.Remove[name], element) }
			if !isReset(all, c.At) && !slices.ContainsFunc(all, removes) {
				in[element] = true
			}
		}
	}
	if len(in) == 0 {
		return
	}
	var sorted []json.RawMessage
	for _, element := range slices.Sorted(maps.Keys(in)) {
		sorted = append(sorted, json.RawMessage(element))
	}
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
