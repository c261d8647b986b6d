package load_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

func writeFile(t testing.TB, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func lines(t testing.TB, text string) *load.Input {
	t.Helper()
	return open(t, writeFile(t, filepath.Join(t.TempDir(), "in.jsonl"), []byte(text)), load.DefaultFields())
}

func open(t testing.TB, path string, fields load.Fields) *load.Input {
	t.Helper()
	in, err := load.JSONLines(path, fields)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// read collects an input's items, and the faults of those that are none.
func read(t testing.TB, in *load.Input) (items []load.Item, faults []string) {
	t.Helper()
	for item, err := range in.Items() {
		var fault *load.ItemError
		switch {
		case errors.As(err, &fault):
			faults = append(faults, strings.TrimPrefix(err.Error(), in.Name+":"))
		case err != nil:
			t.Fatal(err)
		default:
			items = append(items, item)
		}
	}
	return items, faults
}

// describe writes an item as PLACE REGION KEY=VALUE CLOCK TYPE.
func describe(item load.Item) string {
	value := "(deleted)"
	if item.Event.Value != nil {
		value = fmt.Sprintf("%q", item.Event.Value)
	}
	clock := "-"
	if item.Event.Clock != nil {
		clock = item.Event.Clock.String()
	}
	return fmt.Sprintf("%d %s %q=%s %s %s", item.Place, item.Region, item.Event.Key, value, clock, item.Event.ContentType)
}

// Lines of every shape: what they become, or what is wrong with them.
func TestLines(t *testing.T) {
	const text, json = "text/plain; charset=utf-8", "application/json"
	for name, c := range map[string]struct{ line, want string }{
		"text":                 {`{"key":"k","value":"v"}`, `1  "k"="v" - ` + text},
		"empty text":           {`{"key":"k","value":""}`, `1  "k"="" - ` + text},
		"escapes":              {`{"key":"\u006b\n","value":"\ud83d\ude00\u0000"}`, `1  "k\n"="😀\x00" - ` + text},
		"replacement sign":     {`{"key":"k","value":"\ufffd"}`, `1  "k"="�" - ` + text},
		"number":               {`{"key":"k","value":12.50}`, `1  "k"="12.50" - ` + json},
		"object as it stands":  {`{"key":"k","value":{"b": 1,"a":[ ]}}`, `1  "k"="{\"b\": 1,\"a\":[ ]}" - ` + json},
		"true":                 {`{"key":"k","value":true}`, `1  "k"="true" - ` + json},
		"null deletes":         {`{"key":"k","value":null}`, `1  "k"=(deleted) - `},
		"delete":               {`{"key":"k","op":"delete"}`, `1  "k"=(deleted) - `},
		"delete with value":    {`{"key":"k","op":"delete","value":"v"}`, `1  "k"=(deleted) - `},
		"put":                  {`{"key":"k","op":"put","value":"v"}`, `1  "k"="v" - ` + text},
		"region":               {`{"key":"k","value":"v","region":"eu-central-1"}`, `1 eu-central-1 "k"="v" - ` + text},
		"nulls":                {`{"key":"k","value":"v","region":null,"clock":null,"op":null}`, `1  "k"="v" - ` + text},
		"clock in ms":          {`{"key":"k","value":"v","clock":1750774237123}`, `1  "k"="v" 1750774237123.0 ` + text},
		"clock as text":        {`{"key":"k","value":"v","clock":"1750774237123.7"}`, `1  "k"="v" 1750774237123.7 ` + text},
		"clock zero":           {`{"key":"k","value":"v","clock":0}`, `1  "k"="v" 0.0 ` + text},
		"other members":        {`{"key":"k","value":"v","x":{"key":"no","value":{"key":5}},"y":["key:",{}]}`, `1  "k"="v" - ` + text},
		"key in a text":        {`{"key":"a\"b:{[","value":"}]:\\"}`, `1  "a\"b:{["="}]:\\" - ` + text},
		"spaces":               {"  {\t\"key\" : \"k\" , \"value\" : 1 }  \r", `1  "k"="1" - ` + json},
		"no key":               {`{"value":"v"}`, `1: member "key", the key, is missing or empty`},
		"empty key":            {`{"key":"","value":"v"}`, `1: member "key", the key, is missing or empty`},
		"null key":             {`{"key":null,"value":"v"}`, `1: member "key", the key, is missing or empty`},
		"number as key":        {`{"key":5,"value":"v"}`, `1: member "key" is no text`},
		"object as key":        {`{"key":{},"value":"v"}`, `1: member "key" is no text`},
		"base64 as key":        {`{"key":{"base64":"AA=="},"value":"v"}`, `1: member "key" is no text`},
		"half a pair in key":   {`{"key":"\ud800","value":"v"}`, `1: member "key" is no Unicode text`},
		"half a pair in value": {`{"key":"k","value":"x\udc00"}`, `1: member "value" is no Unicode text`},
		"no value":             {`{"key":"k"}`, `1: member "value", the value, is missing`},
		"put of null":          {`{"key":"k","op":"put","value":null}`, `1: member "value", the value, is missing`},
		"unknown op":           {`{"key":"k","op":"patch","value":"v"}`, `1: member "op" is neither put nor delete`},
		"number as op":         {`{"key":"k","op":1,"value":"v"}`, `1: member "op" is no text`},
		"number as region":     {`{"key":"k","region":1,"value":"v"}`, `1: member "region" is no text`},
		"clock negative":       {`{"key":"k","value":"v","clock":-1}`, `1: member "clock": neither whole milliseconds nor text like 1750774237000.0`},
		"clock broken":         {`{"key":"k","value":"v","clock":1.5}`, `1: member "clock": neither`},
		"clock exponent":       {`{"key":"k","value":"v","clock":1e3}`, `1: member "clock": neither`},
		"clock too large":      {`{"key":"k","value":"v","clock":140737488355328}`, `1: member "clock": neither`},
		"clock far too large":  {`{"key":"k","value":"v","clock":99999999999999999999999}`, `1: member "clock": neither`},
		"clock true":           {`{"key":"k","value":"v","clock":true}`, `1: member "clock": neither`},
		"clock as date":        {`{"key":"k","value":"v","clock":"2026-01-01"}`, `1: member "clock": clock "2026-01-01": want MILLISECONDS.COUNTER`},
		"clock text too large": {`{"key":"k","value":"v","clock":"281474976710656.0"}`, `1: member "clock": clock`},
		"given twice":          {`{"key":"a","value":"v","key":"b"}`, `1: a member is given twice`},
		"any given twice":      {`{"key":"a","value":"v","x":1,"x":2}`, `1: a member is given twice`},
		"twice by an escape":   {`{"key":"a","value":"v","\u006bey":"b"}`, `1: a member is given twice`},
		"not UTF-8":            {"{\"key\":\"k\",\"value\":\"\xff\"}", `1: not UTF-8`},
		"not UTF-8 elsewhere":  {"{\"key\":\"k\",\"value\":{\"x\":\"\xed\xa0\x80\"}}", `1: not UTF-8`},
		"no JSON":              {`key=k`, `1: no JSON object: invalid character 'k'`},
		"cut off":              {`{"key":"k","val`, `1: no JSON object: unexpected end`},
		"two objects":          {`{"key":"k","value":"v"}{"key":"k","value":"v"}`, `1: no JSON object: invalid character '{' after top-level value`},
		"list":                 {`["k","v"]`, `1: no JSON object`},
		"text alone":           {`"k"`, `1: no JSON object`},
		"null alone":           {`null`, `1: member "key"`},
		"zero bytes":           {"\x00\x00", `1: no JSON object`},
	} {
		t.Run(name, func(t *testing.T) {
			items, faults := read(t, lines(t, c.line+"\n"))
			var got []string
			for _, item := range items {
				got = append(got, describe(item))
			}
			got = append(got, faults...)
			if len(got) != 1 || got[0] != c.want && (len(faults) == 0 || !strings.HasPrefix(got[0], c.want)) {
				t.Errorf("%s\ngot  %q\nwant %q", c.line, got, c.want)
			}
		})
	}
}

// A fault never quotes the value, which may be a secret.
func TestFaultsKeepSecrets(t *testing.T) {
	const secret = "s3cr3t"
	for _, line := range []string{
		`{"key":"k","value":"` + secret + `\udc00"}`,
		`{"key":"k","value":"` + secret,
		`{"key":"k","value":"` + secret + `"}}`,
		`{"key":"k","value":"` + secret + `","op":"x"}`,
		`{"value":"` + secret + `"}`,
		`["` + secret + `"]`,
		secret,
	} {
		_, faults := read(t, lines(t, line))
		if len(faults) != 1 || strings.Contains(faults[0], secret) {
			t.Errorf("%s: %q", line, faults)
		}
	}
}

func TestOtherFields(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "in.jsonl"), []byte(`{"id":"k","body":"v","at":5,"where":"eu","do":"put","key":"x"}`))
	fields := load.Fields{Key: "id", Value: "body", Region: "where", Clock: "at", Op: "do"}
	items, faults := read(t, open(t, path, fields))
	if len(items) != 1 || len(faults) != 0 || describe(items[0]) != `1 eu "k"="v" 5.0 text/plain; charset=utf-8` {
		t.Errorf("%v %v", items, faults)
	}
	fields.Value = "" // the whole line
	items, _ = read(t, open(t, path, fields))
	if want := `{"id":"k","body":"v","at":5,"where":"eu","do":"put","key":"x"}`; len(items) != 1 || string(items[0].Event.Value) != want {
		t.Errorf("%v", items)
	}
}

// Places are the numbers of lines, whatever ends them and however long they are.
func TestPlaces(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	text := strings.Join([]string{
		`{"key":"2","value":1}`,
		"", "   \t",
		`{"key":"5","value":"` + long + `"}`,
		`bad`,
		"{\"key\":\"7\",\"value\":1}\r",
		`{"key":"8","value":"` + strings.Repeat("y", load.MaxLineBytes) + `"}`,
		`worse`,
		`{"key":"10","value":1}`,
	}, "\n")
	for name, end := range map[string]string{"with": "\n", "without": ""} {
		t.Run(name+" a last line end", func(t *testing.T) {
			items, faults := read(t, lines(t, "\n"+text+end))
			var places []string
			for _, item := range items {
				if string(item.Event.Key) != fmt.Sprint(item.Place) {
					t.Errorf("line %d has key %s", item.Place, item.Event.Key)
				}
				places = append(places, fmt.Sprint(item.Place))
			}
			if got := strings.Join(places, " "); got != "2 5 7 10" {
				t.Errorf("items at %s", got)
			}
			if len(faults) != 3 || !strings.HasPrefix(faults[0], "6: ") || !strings.HasPrefix(faults[1], "8: the line has more than") || !strings.HasPrefix(faults[2], "9: ") {
				t.Errorf("faults %q", faults)
			}
		})
	}
}

func TestEmptyFile(t *testing.T) {
	for _, text := range []string{"", "\n", "\n\n \r\n"} {
		if items, faults := read(t, lines(t, text)); len(items)+len(faults) > 0 {
			t.Errorf("%q: %v %v", text, items, faults)
		}
	}
}

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGzip(t *testing.T) {
	text := `{"key":"a","value":1}` + "\n" + `{"key":"b","value":2}`
	dir := t.TempDir()
	whole := gzipped(t, text)
	plain := open(t, writeFile(t, filepath.Join(dir, "in.jsonl"), []byte(text)), load.DefaultFields())
	packed := open(t, writeFile(t, filepath.Join(dir, "in.jsonl.gz"), whole), load.DefaultFields())
	if plain.ID != packed.ID {
		t.Error("a compressed file is another load than the same file plain")
	}
	if items, _ := read(t, packed); len(items) != 2 {
		t.Errorf("%v", items)
	}
	half := len(text) / 2
	parts := append(gzipped(t, text[:half]), gzipped(t, text[half:])...)
	if items, _ := read(t, open(t, writeFile(t, filepath.Join(dir, "parts.gz"), parts), load.DefaultFields())); len(items) != 2 {
		t.Errorf("in two parts: %v", items)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	for name, content := range map[string][]byte{"not packed": []byte(text), "cut off": whole[:len(whole)-5], "damaged": flipped, "empty": {}} {
		path := writeFile(t, filepath.Join(dir, "bad.gz"), content)
		if in, err := load.JSONLines(path, load.DefaultFields()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", name, in, err)
		}
	}
}

func TestNoFile(t *testing.T) {
	_, err := load.JSONLines(filepath.Join(t.TempDir(), "none.jsonl"), load.DefaultFields())
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "none.jsonl") {
		t.Errorf("got %v", err)
	}
	if in, err := load.JSONLines(t.TempDir(), load.DefaultFields()); err == nil {
		t.Errorf("a directory: %v", in)
	}
}

// A file that is written to while it is loaded is not taken for what it was.
func TestLinesChange(t *testing.T) {
	const was = `{"key":"a","value":1}` + "\n" + `{"key":"b","value":2}` + "\n"
	for name, is := range map[string]string{
		"value": strings.Replace(was, "2", "3", 1), "shorter": was[:23], "longer": was + `{"key":"c","value":3}`, "space": was + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			in := lines(t, was)
			r := newRegion(us)
			cfg := configFor(t)
			cfg.Checked = func(int, int) { writeFile(t, in.Name, []byte(is)) } // between the check and the sending
			_, err := load.Run(t.Context(), in, nodesOf(r), cfg)
			wantKind(t, err, events.KindFailed, in.Name, "has changed")
			r = newRegion(us)
			cfg.Checked, cfg.Progress = nil, cfg.Progress+".2" // before the check
			_, err = load.Run(t.Context(), in, nodesOf(r), cfg)
			wantKind(t, err, events.KindFailed, in.Name, "has changed", "nothing was loaded")
			if r.count() > 0 {
				t.Errorf("%d events were written", r.count())
			}
			writeFile(t, in.Name, []byte(was))
			if _, err := load.Run(t.Context(), in, nodesOf(r), cfg); err != nil {
				t.Error(err)
			}
		})
	}
}

// The ID tells inputs apart whose items differ.
func TestLinesID(t *testing.T) {
	const text = `{"key":"a","value":1}`
	other := load.DefaultFields()
	other.Value = "key"
	path := writeFile(t, filepath.Join(t.TempDir(), "in.jsonl"), []byte(text))
	ids := map[string]string{}
	for name, in := range map[string]*load.Input{
		"as it is": lines(t, text), "other content": lines(t, text+"\n"), "other fields": open(t, path, other),
	} {
		if was, ok := ids[in.ID]; ok {
			t.Errorf("%s and %s have the same ID", name, was)
		}
		ids[in.ID] = name
	}
	if again := open(t, path, load.DefaultFields()); ids[again.ID] != "as it is" {
		t.Error("the same content at another place has another ID")
	}
}

// Whatever bytes a file holds, each line is an item or has a fault, and all that
// an item holds was in its line.
func TestAnyLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "any.jsonl")
	piece := rapid.SampledFrom([]string{
		`{"key":"k","value":`, `{"key":"`, `"}`, `1}`, `null}`, `"value":`, `,`, `"`, `\`, `{`, `}`, "\n", "\r\n", " ", `\u`, "\xff", "k", `"op":"delete"}`,
	})
	rapid.Check(t, func(rt *rapid.T) {
		text := strings.Join(rapid.SliceOfN(piece, 0, 30).Draw(rt, "pieces"), "")
		items, faults := read(t, open(t, writeFile(t, path, []byte(text)), load.DefaultFields()))
		n := 0
		for line := range strings.Lines(text) {
			if strings.TrimSpace(line) != "" {
				n++
			}
		}
		if len(items)+len(faults) != n {
			rt.Errorf("%d items and %d faults in %d lines", len(items), len(faults), n)
		}
		for _, item := range items {
			if len(item.Event.Key) == 0 || item.Event.Value == nil && item.Event.ContentType != "" {
				rt.Errorf("item %s", describe(item))
			}
		}
	})
}

// A clock that nobody would take is a fault of its line, told before anything
// is sent.
func TestLinesClockAhead(t *testing.T) {
	ahead := time.Now().Add(time.Hour).UnixMilli()
	in := lines(t, fmt.Sprintf(`{"key":"a","value":1}`+"\n"+`{"key":"a","value":1,"clock":%d}`, ahead))
	r := newRegion(us)
	_, err := load.Run(t.Context(), in, nodesOf(r), configFor(t))
	wantKind(t, err, events.KindInvalid, ":2: clock", fmt.Sprint(ahead))
	if len(r.turn) > 0 {
		t.Error("the node was asked")
	}
}
