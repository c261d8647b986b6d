package fieldmap_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
	sessionv1 "github.com/evenkeel/evenkeel/schemas/session/v1"
)

func slicesOf(t testing.TB, lines ...string) []merge.Slice { return mergetest.Tell(t, rule, lines...) }

func see(t testing.TB, all []merge.Slice) string {
	t.Helper()
	view, err := rule.Join(all)
	if err != nil {
		t.Fatal(err)
	}
	if view.Exists != (view.Value != nil) || view.Exists != (view.ContentType == "application/json") {
		t.Fatalf("%+v", view)
	}
	return string(view.Value)
}

func TestStories(t *testing.T) {
	for name, c := range map[string]struct {
		story []string
		want  string
	}{
		"nothing":           {nil, ``},
		"fields of three":   {[]string{`eu/0@0 [] patch {"set":{"a":1}}`, `us/0@0 [] patch {"set":{"b":2}}`, `ap/0@0 [] patch {"set":{"c":{"y":1, "x":[]}}}`}, `{"a":1,"b":2,"c":{"x":[],"y":1}}`},
		"the last one wins": {[]string{`eu/0@0 [] patch {"set":{"a":1}}`, `us/0@0 [] patch {"set":{"a":2}}`, `eu/0@1 [] patch {"set":{"a":3}}`}, `{"a":3}`},
		"same clock":        {[]string{`us/0@0 [] patch {"set":{"a":2}}`, `eu/0@0 [] patch {"set":{"a":1}}`}, `{"a":2}`},
		"unset holds down":  {[]string{`us/0@0 [] patch {"unset":["a"]}`, `eu/0@0 [] patch {"set":{"a":1, "b":2}}`}, `{"b":2}`},
		"unset is all":      {[]string{`us/0@0 [] patch {"unset":["a"]}`}, ``},
		"empty patch":       {[]string{`us/0@0 [] patch {}`}, ``},
		"null is a value":   {[]string{`us/0@0 [] patch {"set":{"a":null}}`}, `{"a":null}`},

		"counted in three":            {[]string{`eu/0@0 [] patch {"increment":{"n":5}}`, `us/0@0 [] patch {"increment":{"n":-7}}`, `us/0@1 [] patch {"increment":{"n":1}}`}, `{"n":-1}`},
		"more than 64 bits":           {[]string{`eu/0@0 [] patch {"increment":{"n":9223372036854775807}}`, `us/0@0 [] patch {"increment":{"n":9223372036854775807}}`}, `{"n":18446744073709551614}`},
		"nought is a count":           {[]string{`eu/0@0 [] patch {"increment":{"n":0}}`}, `{"n":0}`},
		"reset elsewhere":             {[]string{`eu/0@0 [] patch {"increment":{"n":5}}`, `us/0@0 [eu@1] delete`}, ``},
		"reset that saw half":         {[]string{`eu/0@0 [] patch {"increment":{"n":5}}`, `eu/0@1 [] patch {"increment":{"n":2}}`, `us/0@0 [eu@1] delete`}, `{"n":7}`},
		"own reset that saw half":     {[]string{`eu/0@1 [] patch {"increment":{"n":5}}`, `eu/0@2 [] patch {"increment":{"n":2}}`, `eu/0@3 [eu@2] delete`}, `{"n":7}`},
		"reset, and counted again":    {[]string{`eu/0@0 [] patch {"increment":{"n":5}}`, `eu/0@1 [] delete`, `eu/0@2 [] patch {"increment":{"n":1}}`}, `{"n":1}`},
		"reset elsewhere comes back":  {[]string{`eu/0@0 [] patch {"increment":{"n":5}}`, `us/0@0 [eu@1] delete`, `eu/0@1 [us@1] patch {"increment":{"n":1}}`}, `{"n":6}`}, // doc.go: surprising
		"reset elsewhere, begun anew": {[]string{`eu/0@0 [] patch {"increment":{"n":5}}`, `us/0@0 [eu@1] delete`, `eu/0@1 [us@1] delete`, `eu/0@2 [us@1] patch {"increment":{"n":1}}`}, `{"n":1}`},

		"added in three":              {[]string{`eu/0@0 [] patch {"add":{"s":["x",1]}}`, `us/0@0 [] patch {"add":{"s":["x",true]}}`, `ap/0@0 [] patch {"add":{"s":[null]}}`}, `{"s":["x",1,null,true]}`},
		"removed in its log":          {[]string{`eu/0@0 [] patch {"add":{"s":["x"]}}`, `eu/0@1 [] patch {"remove":{"s":["x"]}}`}, ``},
		"not removed by a stale one":  {[]string{`eu/0@0 [] patch {"add":{"s":["y"]}}`, `eu/0@1 [] patch {"add":{"s":["x"]}}`, `eu/0@2 [eu@1] patch {"remove":{"s":["x","y"]}}`}, `{"s":["x"]}`},
		"removed elsewhere":           {[]string{`eu/0@0 [] patch {"add":{"s":["x","y"]}}`, `us/0@0 [eu@1] patch {"remove":{"s":["x"]}}`}, `{"s":["y"]}`},
		"the remove had not seen it":  {[]string{`eu/0@0 [] patch {"add":{"s":["x"]}}`, `us/0@0 [] patch {"remove":{"s":["x"]}}`}, `{"s":["x"]}`},
		"added again, unseen":         {[]string{`eu/0@0 [] patch {"add":{"s":["x"]}}`, `eu/0@1 [] patch {"add":{"s":["x"]}}`, `us/0@0 [eu@1] patch {"remove":{"s":["x"]}}`}, `{"s":["x"]}`},
		"removed and added at once":   {[]string{`eu/0@0 [] patch {"add":{"s":["x"]}}`, `us/0@0 [eu@1] patch {"remove":{"s":["x"]},"add":{"s":["x"]}}`, `ap/0@0 [us@1] patch {"remove":{"s":["x"]}}`}, ``},
		"one remove does not see two": {[]string{`eu/0@0 [] patch {"add":{"s":["x"]}}`, `us/0@0 [eu@1] patch {"add":{"s":["x"]}}`, `ap/0@0 [eu@1] patch {"remove":{"s":["x"]}}`}, `{"s":["x"]}`},
		// us removes what eu added, and arrives first.
		"the remove comes first":              {[]string{`us/0@0 [eu@1] patch {"remove":{"s":["x"]}}`, `eu/0@0 [] patch {"add":{"s":["x"]}}`}, ``},
		"the remove comes first, then adds":   {[]string{`us/0@0 [eu@1] patch {"remove":{"s":["x"]}}`, `us/0@1 [eu@1] patch {"add":{"s":["x"]}}`, `us/0@2 [] patch {"remove":{"s":["x"]}}`, `eu/0@0 [] patch {"add":{"s":["x"]}}`}, ``},
		"the remove comes first, then resets": {[]string{`us/0@0 [eu@1] patch {"remove":{"s":["x"]}}`, `us/0@1 [] delete`, `eu/0@0 [] patch {"add":{"s":["x"]}}`}, ``},
		"the delete comes first":              {[]string{`us/0@0 [eu@1] delete`, `eu/0@0 [] patch {"set":{"a":1},"increment":{"n":1},"add":{"s":["x"]}}`}, ``},
		"another partition":                   {[]string{`eu/0@0 [] patch {"set":{"a":1},"add":{"s":["x"]}}`, `us/1@0 [eu@1] delete`, `eu/1@5 [] patch {"remove":{"s":["x"]}}`}, `{"a":1,"s":["x"]}`},

		"put":                         {[]string{`eu/0@0 [] patch {"set":{"a":1,"b":2}}`, `eu/0@1 [] put {"b":3}`}, `{"b":3}`},
		"put elsewhere":               {[]string{`eu/0@0 [] patch {"set":{"a":1},"add":{"s":[1]},"increment":{"n":1}}`, `us/0@0 [eu@1] put {"b":3}`}, `{"b":3}`},
		"put spares what it knew not": {[]string{`eu/0@0 [] patch {"set":{"a":1,"b":1},"add":{"s":[1]}}`, `eu/0@1 [] patch {"increment":{"n":1}}`, `us/0@0 [eu@1] put {"b":3}`}, `{"b":3,"n":1}`},
		"put of nothing":              {[]string{`eu/0@0 [] patch {"set":{"a":1}}`, `eu/0@1 [] put {}`}, ``},
		"kinds of one name":           {[]string{`eu/0@0 [] put {"a":1}`, `us/0@0 [] patch {"increment":{"a":1}}`, `us/0@1 [] patch {"add":{"a":["x"]}}`, `ap/0@0 [us@2] patch {"remove":{"a":["x"]}}`}, `{"a":1}`},
	} {
		if got := see(t, slicesOf(t, c.story...)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		reversed := slicesOf(t, c.story...)
		slices.Reverse(reversed)
		if got := see(t, reversed); got != c.want {
			t.Errorf("%s, in another order: %s, want %s", name, got, c.want)
		}
	}
}

func TestCanonicalForm(t *testing.T) {
	for value, want := range map[string]string{
		" 1.50 ":                             `1.50`,
		"-0":                                 `-0`,
		"1E+2":                               `1E+2`,
		`"\u003c\/\u00e9\ud83d\ude00\u2028"`: "\"</é😀\u2028\"",
		`"\b\f\n\r\t\u0000\u001F\"\\\u007f"`: `"\b\f\n\r\t\u0000\u001f\"\\` + "\x7f\"",
		`"\ud800"`:                           "\"\ufffd\"",
		`{ "b" : [ ] , "a":{} , "ä": [1 , "]}", {"":null}],"B":true}`: `{"B":true,"a":{},"b":[],"ä":[1,"]}",{"":null}]}`,
		`"\\\""`: `"\\\""`,
	} {
		all := slicesOf(t, `eu/0@0 [] patch {"set": {"v":`+value+`}}`)
		if got := see(t, all); got != `{"v":`+want+`}` {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
		if again := slicesOf(t, `eu/0@0 [] patch {"set":{"\u0076":`+want+`} }`); string(again[0].Data) != string(all[0].Data) {
			t.Errorf("%s: its canonical form makes another slice", value)
		}
	}
}

func TestSlice(t *testing.T) {
	all := slicesOf(t,
		`us/0@0 [eu@3] delete`,
		`us/0@1 [] patch {"set":{"a":"x"},"unset":["b"],"increment":{"c":-1},"add":{"d":["x"]}}`,
		`us/0@300 [eu@9] patch {"increment":{"a":1},"remove":{"d":[1,"x","y"]},"add":{"d":["y"]}}`,
	)
	const eu3, eu9, none = "01" + "026575" + "01" + "03", "01" + "026575" + "01" + "09", "00"
	const want = "01" + "01" + "000000000000000b" + "ac02" + "00" + eu3 + "0004" +
		"0161" + "03" + "01" + "000000000000000a" + "03227822" + "ac02" + "02" +
		"0162" + "01" + "01" + "000000000000000a" + "00" +
		"0163" + "02" + "01" + "01" +
		"0164" + "04" + "0003" + "03227822" + "00" + eu9 + "03227922" + "ad02" + eu9 + "0131" + "00" + eu9
	if got := hex.EncodeToString(all[0].Data); got != want {
		t.Errorf("slice\n%s, want\n%s", got, want)
	}
	if got := see(t, all); got != `{"a":1,"c":-1,"d":["y"]}` {
		t.Errorf("seen as %s", got)
	}
}

// Every fold reads all that it copies; a join also looks at what fields hold.
func TestSlicesThatCannotBe(t *testing.T) {
	us := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	const head = "01" + "01" + "000000000000000b" + "ac02" + "00"
	const eu3, us3, none = "01" + "026575" + "01" + "03", "01" + "027573" + "01" + "03", "00"
	const clock = "000000000000000a"
	const a, b = "0161" + "02" + "05" + "01", "0162" + "02" + "05" + "01"
	for name, c := range map[string]struct {
		slice string
		fold  bool // Fold refuses it, too
	}{
		"good, for comparison":      {head + none + "0002" + a + b, false},
		"nothing":                   {"", true},
		"another version":           {"02" + head[2:] + none + "0001" + a, true},
		"another flag":              {"0102" + head[4:] + none + "0001" + a, true},
		"live without anything":     {head + none + "0000", false},
		"holds something, not live": {"0100" + head[4:] + none + "0001" + a, false},
		"fewer fields":              {head + none + "0002" + a, true},
		"more fields":               {head + none + "0001" + a + b, true},
		"1,025 fields":              {head + none + "0401" + a, true},
		"fields out of order":       {head + none + "0002" + b + a, true},
		"a field twice":             {head + none + "0002" + a + a, true},
		"no kind":                   {head + none + "0001" + "0161" + "00", true},
		"unknown kind":              {head + none + "0001" + "0161" + "08", true},
		"a long name":               {head + none + "0001" + "8102" + strings.Repeat("61", 257) + "02" + "05" + "01", true},
		"reset of the own log":      {head + us3 + "0001" + a, false},
		"a later register":          {head + none + "0001" + "0161" + "01" + "ad02" + clock + "0131", false},
		"a newer register":          {head + none + "0001" + "0161" + "01" + "05" + "000000000000000c" + "0131", false},
		"a register of no JSON":     {head + none + "0001" + "0161" + "01" + "05" + clock + "0161", false},
		"a later counter":           {head + none + "0001" + "0161" + "02" + "ad02" + "01", false},
		"an empty set":              {head + none + "0001" + "0161" + "06" + "05" + "01" + "0000", true},
		"4,097 elements":            {head + none + "0001" + "0161" + "04" + "1001" + strings.Repeat("0131"+"05"+none, 4097), true},
		"elements out of order":     {head + none + "0001" + "0161" + "04" + "0002" + "0132" + "05" + none + "0131" + "05" + none, true},
		"an element twice":          {head + none + "0001" + "0161" + "04" + "0002" + "0131" + "05" + none + "0131" + "05" + none, true},
		"an element without text":   {head + none + "0001" + "0161" + "04" + "0001" + "00" + "05" + none, true},
		"a long element":            {head + none + "0001" + "0161" + "04" + "0001" + "8108" + strings.Repeat("31", 1025) + "05" + none, true},
		"an element of no JSON":     {head + none + "0001" + "0161" + "04" + "0001" + "0161" + "05" + none, false},
		"neither in nor removed":    {head + none + "0001" + "0161" + "06" + "05" + "01" + "0001" + "0131" + "00" + none, true},
		"a later element":           {head + none + "0001" + "0161" + "04" + "0001" + "0131" + "ae02" + none, false},
		"an element at no offset":   {head + none + "0001" + "0161" + "04" + "0001" + "0131" + "81808080808080808001" + none, true},
		"removed in the own log":    {head + none + "0001" + "0161" + "06" + "05" + "01" + "0001" + "0131" + "00" + us3, false},
		"removed and reset":         {head + eu3 + "0001" + "0161" + "06" + "05" + "01" + "0001" + "0131" + "00" + eu3, false},
		"more elements than many":   {head + none + "0002" + "0161" + "04" + "0800" + elements(2048) + "0162" + "04" + "0801" + elements(2049), false},
	} {
		data, err := hex.DecodeString(c.slice)
		if err != nil {
			t.Fatal(name, err)
		}
		good := strings.HasPrefix(name, "good")
		if view, err := rule.Join([]merge.Slice{{Log: us, Data: data}}); (err == nil) != good {
			t.Errorf("%s: seen as %+v, %v", name, view, err)
		}
		_, err = rule.Fold(nil, data, &events.Event{Op: events.OpPatch, Value: []byte("{}")}, us.At(301))
		var noMeaning *merge.NoMeaningError
		if errors.As(err, &noMeaning) {
			err = nil // too large is no fault of the slice
		}
		if (err != nil) != c.fold {
			t.Errorf("%s: folded with %v", name, err)
		}
	}
}

// elements are encoded elements, all of them in.
func elements(n int) string {
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("%04d", i+1000))
	}
	slices.Sort(texts)
	var b strings.Builder
	for _, text := range texts {
		b.WriteString("04" + hex.EncodeToString([]byte(text)) + "05" + "00")
	}
	return b.String()
}

// What a slice remembers is dropped when a reset of the same slice covers it.
func TestResetsDropRemembered(t *testing.T) {
	size := func(lines ...string) int { return len(slicesOf(t, lines...)[0].Data) }
	few := size(`us/0@0 [eu@9] delete`, `us/0@1 [] patch {}`)
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf(`us/0@%d [eu@%d] patch {"remove":{"s":["element %d"]},"unset":["field %d"]}`, i, i%8+1, i, i))
	}
	if many := size(lines...); many < 100*few {
		t.Errorf("%d bytes with 100 removes", many)
	}
	if after := size(append(lines, `us/0@100 [eu@9] delete`, `us/0@101 [] patch {}`)...); after != few {
		t.Errorf("%d bytes after the reset, want %d", after, few)
	}
	if left := see(t, append(slicesOf(t, append(lines, `us/0@100 [eu@7] delete`)...), slicesOf(t, `eu/0@7 [] patch {"add":{"s":["element 7","element 8"]}}`)...)); left != `{"s":["element 8"]}` {
		t.Errorf("after a reset that saw less: %s", left)
	}
}

func refusal(t *testing.T, prev []byte, e events.Event) string {
	t.Helper()
	_, err := rule.Fold(nil, prev, &e, events.Log{Origin: events.FirstOrigin("us"), Stream: "session"}.At(9000))
	var noMeaning *merge.NoMeaningError
	if err != nil && (!errors.As(err, &noMeaning) || noMeaning.Rule != "fieldmap") {
		t.Fatalf("error %v", err)
	}
	if noMeaning == nil {
		return ""
	}
	return noMeaning.Reason
}

func TestWhatHasNoMeaning(t *testing.T) {
	long, longElement := strings.Repeat("n", 257), strings.Repeat("e", 1023)
	for value, want := range map[string]string{
		``:                                     "patch: no valid JSON",
		"{\"set\":{\"\xff\":1}}":               "patch: no valid JSON",
		`{} {}`:                                "patch: no valid JSON",
		`[]`:                                   "patch: no JSON object where one is wanted",
		`"{}"`:                                 "patch: no JSON object where one is wanted",
		`{"Set":{}}`:                           "patch: unknown member; known are set, unset, increment, add and remove",
		`{"set":{},"set":{}}`:                  "patch: a name twice in one object",
		`{"set":{"a":1,"\u0061":1}}`:           "patch: set: a name twice in one object",
		`{"set":{"a":{"b":1,"b":1}}}`:          "patch: set: a name twice in one object",
		`{"set":null}`:                         "patch: set: no JSON object where one is wanted",
		`{"unset":{"a":1}}`:                    "patch: unset: no JSON array where one is wanted",
		`{"unset":[1]}`:                        "patch: unset: a field's name is no string",
		`{"unset":["a","a"]}`:                  "patch: a field in several ways, or twice",
		`{"unset":["a"],"set":{"a":1}}`:        "patch: a field in several ways, or twice",
		`{"increment":{"a":1},"add":{"a":[]}}`: "patch: a field in several ways, or twice",
		`{"increment":{"a":1.0}}`:              "patch: increment: no integer of 64 bits",
		`{"increment":{"a":"1"}}`:              "patch: increment: no integer of 64 bits",
		`{"increment":{"a":9223372036854775808}}`:                                 "patch: increment: no integer of 64 bits",
		`{"add":{"a":"x"}}`:                                                       "patch: add: no JSON array where one is wanted",
		`{"remove":{"a":[{}]}}`:                                                   "patch: remove: an element is no string, number, boolean or null",
		`{"add":{"a":["` + longElement + `"]}}`:                                   "patch: add: an element of 1025 bytes: at most 1024",
		`{"add":{"a":["` + longElement[1:] + `"]}}`:                               "",
		`{"set":{"` + long + `":1}}`:                                              "patch: set: a field's name of 257 bytes: at most 256",
		`{"unset":["` + long + `"]}`:                                              "patch: unset: a field's name of 257 bytes: at most 256",
		`{"add":{"` + long[1:] + `":[]}}`:                                         "",
		`{"set":{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}}`: "patch: nested more than 32 levels deep",
		`{"set":{"a":` + strings.Repeat("[", 30) + `"[[[\"[[["` + strings.Repeat("]", 30) + `}}`: "",
		`{"set":{"a":"` + strings.Repeat("v", 1<<20-15) + `"}}`:                                  "patch: 1048577 bytes, more than 1048576",
		`{"set":{"a":"` + strings.Repeat("v", 1<<20-16) + `"}}`:                                  "",
		`{"set":{` + members(1024) + `}}`:                                                        "",
		`{"set":{` + members(1025) + `}}`:                                                        "patch: set: 1025 fields, more than 1024",
	} {
		if got := refusal(t, nil, events.Event{Op: events.OpPatch, Value: []byte(value)}); got != want {
			t.Errorf("%.60s: %q, want %q", value, got, want)
		}
	}
	for _, c := range []struct {
		e    events.Event
		want string
	}{
		{events.Event{Op: events.OpAppend, Value: []byte("{}")}, "no meaning for the operation append"},
		{events.Event{Op: events.OpResolve, Value: []byte("{}")}, "no meaning for the operation resolve"},
		{events.Event{Op: events.OpPatch, Value: []byte("{}"), ContentType: "text/plain"}, "patch: the content type is not JSON"},
		{events.Event{Op: events.OpPatch, Value: []byte("{}"), ContentType: "application/vnd.x+JSON; a=b"}, ""},
		{events.Event{Op: events.OpPut, Value: []byte("{}"), ContentType: "text/plain"}, "put: the content type is not JSON"},
		{events.Event{Op: events.OpPut, Value: []byte("hello")}, "put: no valid JSON"},
		{events.Event{Op: events.OpPut, Value: []byte("[]")}, "put: no JSON object where one is wanted"},
		{events.Event{Op: events.OpPut, Value: []byte(`{"a":{"b":1,"b":2}}`)}, "put: a name twice in one object"},
		{events.Event{Op: events.OpPut, Value: []byte("hunter2"), Type: "erlmcp.session.started.v1"},
			`put: schemas: payload of "erlmcp.session.started.v1" (no content type): not a protobuf evenkeel.session.v1.SessionStarted: broken wire format, or text that is not UTF-8`},
	} {
		if got := refusal(t, nil, c.e); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.e.Op, c.e.Value, got, c.want)
		}
	}
}

func members(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"%04d":1`, i))
	}
	return strings.Join(all, ",")
}

// A slice is bounded, however many events make it, and a put makes room.
func TestSlicesAreBounded(t *testing.T) {
	log := events.Log{Origin: events.FirstOrigin("us"), Stream: "session"}
	deps := events.Context{{Origin: events.FirstOrigin("eu"), Next: 1}}
	big := strings.Repeat("v", 1<<20-100)
	for name, c := range map[string]struct {
		patches []string
		want    string // how the refusal of the last one begins
	}{
		"fields":   {[]string{`{"set":{` + members(1023) + `}}`, `{"unset":["a"]}`, `{"unset":["b"]}`}, "1025 fields, 0 elements and removes"},
		"elements": {[]string{`{"add":{"s":[` + numbers(2048) + `]},"remove":{"t":[` + numbers(2047) + `]}}`, `{"add":{"s":["a"]}}`, `{"add":{"s":["b"]}}`}, "2 fields, 4097 elements and removes"},
		"one set":  {[]string{`{"remove":{"s":[` + numbers(4096) + `]}}`, `{"add":{"s":["a"]}}`}, "4097 elements and removes of one set"},
		"bytes": {[]string{`{"set":{"a":"` + big + `"}}`, `{"set":{"b":"` + big + `"}}`, `{"set":{"c":"` + big + `"}}`, `{"set":{"d":"` + big + `"}}`, `{"set":{"e":"` + big + `"}}`},
			"5 fields, 0 elements and removes, 524"},
		"counters":  {[]string{`{"increment":{"n":9223372036854775807}}`, `{"increment":{"n":0}}`, `{"increment":{"n":1}}`}, "patch: increment: the origin's sum would need more than 64 bits"},
		"downwards": {[]string{`{"increment":{"n":-9223372036854775808}}`, `{"increment":{"n":-1}}`}, "patch: increment: the origin's sum would need more than 64 bits"},
	} {
		var slice []byte
		for i, patch := range c.patches {
			now, err := rule.Fold(nil, slice, &events.Event{Op: events.OpPatch, Value: []byte(patch), Deps: deps}, log.At(int64(i)))
			last := i == len(c.patches)-1
			var noMeaning *merge.NoMeaningError
			if errors.As(err, &noMeaning) != last || last && !strings.HasPrefix(noMeaning.Reason, c.want) {
				t.Errorf("%s: patch %d: %v, want at the end %s", name, i, err, c.want)
			}
			if err == nil {
				slice = now
			}
		}
		if got := refusal(t, slice, events.Event{Op: events.OpPut, Value: []byte(`{` + members(1024) + `}`), Deps: deps}); got != "" {
			t.Errorf("%s: no room after a put: %s", name, got)
		}
	}
}

func numbers(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return strings.Join(all, ",")
}

// A payload of a known type becomes its JSON form.
func TestPutOfAKnownType(t *testing.T) {
	value, err := proto.Marshal(&sessionv1.SessionStarted{
		SessionId: "s-1", Client: &sessionv1.ClientInfo{Name: "acme"}, ProtocolVersion: "2025-06-18", Capabilities: []string{"tools", "a"},
		Node: "n", Transport: sessionv1.Transport_TRANSPORT_STDIO, State: sessionv1.State_STATE_ACTIVE, StartedAtMs: 7, LastActiveAtMs: 1 << 40,
	})
	if err != nil {
		t.Fatal(err)
	}
	log := events.Log{Origin: events.FirstOrigin("us"), Stream: "session"}
	const want = `{"capabilities":["tools","a"],"client":{"name":"acme"},"lastActiveAtMs":"1099511627776","node":"n",` +
		`"protocolVersion":"2025-06-18","sessionId":"s-1","startedAtMs":"7","state":"STATE_ACTIVE","transport":"TRANSPORT_STDIO"}`
	var slices []string
	for _, e := range []events.Event{
		{Op: events.OpPut, Type: "erlmcp.session.started.v1", ContentType: "application/protobuf", Value: value},
		{Op: events.OpPut, Type: "erlmcp.session.started.v1", Value: value},
		{Op: events.OpPut, Type: "erlmcp.session.started.v1", ContentType: "application/json", Value: []byte(want)},
	} {
		slice, err := rule.Fold(nil, nil, &e, log.At(0))
		if err != nil {
			t.Fatal(err)
		}
		slices = append(slices, string(slice))
		if got := see(t, []merge.Slice{{Log: log, Data: slice}}); got != want {
			t.Errorf("seen as %s, want %s", got, want)
		}
	}
	if slices[0] != slices[1] || slices[0] != slices[2] {
		t.Errorf("one payload, several slices: %x", slices)
	}
}

func TestOriginsAreBounded(t *testing.T) {
	context := func(prefix string) string {
		var all []string
		for i := range 200 {
			all = append(all, fmt.Sprintf("%s%03d@1", prefix, i))
		}
		return strings.Join(all, ",")
	}
	parse := func(text string) events.Context {
		c, err := events.ParseContext(text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for op, value := range map[string]string{"delete": "", "put": "{}", "patch": `{"remove":{"s":["x"]}}`} {
		slice := slicesOf(t, "us/0@0 ["+context("a")+"] "+op+" "+value)[0].Data
		parsed, _ := events.ParseOp(op)
		got := refusal(t, slice, events.Event{Op: parsed, Value: []byte(value), Deps: parse(context("b"))})
		if got != "the contexts of the key's events name more than 256 origins" {
			t.Errorf("%s: %q", op, got)
		}
	}
}

// session is a slice like that of a session: ten fields, two counters, a set of
// ten.
func session(b *testing.B, region string) merge.Slice {
	var fields, elements []string
	for i := range 10 {
		fields = append(fields, fmt.Sprintf(`"field%d":"some value of %d"`, i, i))
		elements = append(elements, fmt.Sprintf(`"capability%d"`, i))
	}
	return slicesOf(b,
		region+`/0@0 [] put {`+strings.Join(fields, ",")+`}`,
		region+`/0@1 [] patch {"increment":{"messages":7,"bytes":700},"add":{"capabilities":[`+strings.Join(elements, ",")+`]}}`)[0]
}

func BenchmarkFold(b *testing.B) {
	prev := session(b, "us-east-1")
	deps := events.Context{{Origin: events.FirstOrigin("eu-central-1"), Next: 300}, {Origin: events.FirstOrigin("us-west-1"), Next: 9}}
	for name, e := range map[string]events.Event{
		"set one":       {Op: events.OpPatch, Value: []byte(`{"set":{"field3":"another value"}}`)},
		"count":         {Op: events.OpPatch, Value: []byte(`{"increment":{"messages":1,"bytes":100}}`)},
		"add and count": {Op: events.OpPatch, Value: []byte(`{"add":{"capabilities":["capability5"]},"increment":{"messages":1}}`)},
		"remove, seen":  {Op: events.OpPatch, Value: []byte(`{"remove":{"capabilities":["capability5"]}}`), Deps: deps},
		"put, seen":     {Op: events.OpPut, Value: []byte(`{"field1":"a","field2":"b","field3":"c"}`), Deps: deps},
		"delete, seen":  {Op: events.OpDelete, Deps: deps},
		"several, 256 B": {Op: events.OpPatch, Value: []byte(`{"increment":{"messages":1},"add":{"capabilities":["capability5"]},"set":{"field3":"active","field7":"` +
			strings.Repeat("some text, ", 13) + `"}}`)},
	} {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, 4<<10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rule.Fold(dst, prev.Data, &e, prev.Log.At(2)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkJoin(b *testing.B) {
	for name, regions := range map[string][]string{"one": {"us-east-1"}, "three": {"eu-central-1", "us-east-1", "us-west-1"}} {
		var all []merge.Slice
		for _, region := range regions {
			all = append(all, session(b, region))
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rule.Join(all); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
