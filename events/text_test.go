package events_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

// form is a textual form: a parser and its inverse.
type form[T any] struct {
	parse func(string) (T, error)
	print func(T) string
	good  []string
	bad   []string
}

var long = strings.Repeat("a", events.MaxNameBytes)

var (
	badRegions = []string{"", "-", "-a", "a-", "A", "a.b", "a_b", "a b", "a/b", "a@b", "a\x00", "ä", "a\n", long + "a"}

	regions = form[events.Region]{
		parse: events.ParseRegion, print: events.Region.String,
		good: []string{"a", "0", "a-b", "a--b", "us-east-1", long},
		bad:  append([]string{"a_2"}, badRegions...),
	}
	streams = form[events.Stream]{
		parse: events.ParseStream, print: events.Stream.String,
		good: []string{"a", "0", "a-b", "a_b", "a_-b", "session", long},
		bad:  []string{"", "-", "_", "_a", "a_", "-a", "A", "a.b", "a b", "a/b", "a@b", "a\x00", "ä", long + "a"},
	}
	origins = form[events.Origin]{
		parse: events.ParseOrigin, print: events.Origin.String,
		good: []string{"a", "us-east-1", "us-east-1_2", "a_10", "a_4294967295", long, long + "_4294967295"},
		bad: append([]string{
			"_", "_2", "a_", "a_0", "a_1", "a_02", "a_+2", "a_-2", "a_ 2", "a_2_3", "a_x", "a_0x2", "a_4294967296", "a-_2", long + "a_2",
		}, badRegions...),
	}
	logs = form[events.Log]{
		parse: events.ParseLog, print: events.Log.String,
		good: []string{"us-east-1/session/0", "us-east-1_2/a_b/1048575"},
		bad: []string{
			"", "/", "//", "a/b", "a/b/", "/b/0", "a//0", "a/b/c", "a/b/-1", "a/b/+1", "a/b/01", "a/b/1/2", "a/b/1048576",
			"a/b/4294967296", "a/b/1 ", "A/b/1", "a/B/1", "a_1/b/1", "a/b/1@2",
		},
	}
	positions = form[events.Position]{
		parse: events.ParsePosition, print: events.Position.String,
		good: []string{"us-east-1/session/3@0", "us-east-1_2/session/3@9223372036854775807"},
		bad: []string{
			"", "@", "a/b/0", "a/b/0@", "@1", "a/b/0@-1", "a/b/0@01", "a/b/0@+1", "a/b/0@1@2", "a/b/0@9223372036854775808", "a/b@1", "a/b/0@x",
		},
	}
	vectors = form[events.Vector]{
		parse: events.ParseVector, print: events.Vector.String,
		good: []string{"", "a/b/0@1", "a/b/0@1,a/b/1@1,a/c/0@9,a_2/b/0@1,b/a/0@1", "us/s/0@1,us-a/s/0@1", "a_2/s/0@1,a_10/s/0@1"},
		bad: []string{
			",", "a/b/0@1,", ",a/b/0@1", "a/b/0@0", "a/b/0@1,a/b/0@1", "a/b/0@1,a/b/0@2", "a/b/1@1,a/b/0@1", "b/a/0@1,a/a/0@1",
			"a/b/0@1, a/b/1@1", "a/b/0@1;a/b/1@1", "a_10/s/0@1,a_2/s/0@1", "us-a/s/0@1,us/s/0@1", "x",
		},
	}
	clocks = form[events.HLC]{
		parse: events.ParseHLC, print: events.HLC.String,
		good: []string{"0.0", "0.1", "1750774237000.3", "281474976710655.65535"},
		bad: []string{
			"", ".", "0", "1750774237000", "0.", ".0", "0.0.0", "00.0", "0.00", "-1.0", "0.-1", "+1.0", "0.65536", "281474976710656.0", "0,0", "0.0 ", "1e3.0",
		},
	}
	epochs = form[events.Epoch]{
		parse: events.ParseEpoch, print: events.Epoch.String,
		good: []string{"0", "1", "18446744073709551615"},
		bad:  []string{"", "-1", "+1", "01", "00", "1 ", "0x1", "1_0", "18446744073709551616", "x"},
	}
	contexts = form[events.Context]{
		parse: events.ParseContext, print: events.Context.String,
		good: []string{"", "a@1", "a@0", "a@0,b@1", "eu-central-1@7,us-east-1@12", "us@1,us-a@9223372036854775807", "a@1,a_2@1,a_10@1", manyOrigins(events.MaxContextOrigins)},
		bad: []string{
			",", "a@1,", ",a@1", "a", "a@", "@1", "a@00", "a@-1", "a@01", "a@0,a@0", "a@1,a@1", "a@1,a@2", "b@1,a@1", "a@1, b@1", "a_10@1,a_2@1",
			"a@9223372036854775808", "a_1@1", "a/s/0@1", manyOrigins(events.MaxContextOrigins + 1),
		},
	}
	digests = form[events.Digest]{
		parse: events.ParseDigest, print: events.Digest.String,
		good: []string{strings.Repeat("0", 32), "0123456789abcdef0123456789abcdef", strings.Repeat("f", 32)},
		bad: []string{
			"", "0", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("0", 34), strings.Repeat("F", 32), strings.Repeat("g", 32), " " + strings.Repeat("0", 32),
		},
	}
	ops = form[events.Op]{
		parse: events.ParseOp, print: events.Op.String,
		good: []string{"put", "delete", "patch", "append", "resolve"},
		bad:  []string{"", "none", "Put", "put ", "merge", "Op(7)"},
	}
)

// manyOrigins is the text of a context of n origins.
func manyOrigins(n int) string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("r%04d@1", i)
	}
	return strings.Join(texts, ",")
}

func TestTextualForms(t *testing.T) {
	t.Run("region", regions.test)
	t.Run("stream", streams.test)
	t.Run("origin", origins.test)
	t.Run("log", logs.test)
	t.Run("position", positions.test)
	t.Run("vector", vectors.test)
	t.Run("clock", clocks.test)
	t.Run("epoch", epochs.test)
	t.Run("context", contexts.test)
	t.Run("digest", digests.test)
	t.Run("operation", ops.test)
}

func (f form[T]) test(t *testing.T) {
	for _, text := range f.good {
		if _, err := f.parse(text); err != nil {
			t.Errorf("%.100q is refused: %v", text, err)
		}
		f.check(t, text)
	}
	for _, text := range f.bad {
		if v, err := f.parse(text); err == nil {
			t.Errorf("%.100q is accepted as %v", text, v)
		}
		f.check(t, text)
	}
}

// check holds for any text: it is refused with an error of bounded size that
// says that the input is wrong, and no value, or it is what its value prints.
func (f form[T]) check(t testing.TB, text string) {
	t.Helper()
	v, err := f.parse(text)
	if err == nil {
		if again := f.print(v); again != text {
			t.Errorf("%.100q is read as a value that prints %.100q", text, again)
		}
		return
	}
	if kind := events.KindOf(err); kind != events.KindInvalid {
		t.Errorf("%.100q: error %q is of kind %q", text, err, kind)
	}
	if n := len(err.Error()); n > 1000 {
		t.Errorf("%.100q: error of %d bytes", text, n)
	}
	var zero T
	if fmt.Sprintf("%#v", v) != fmt.Sprintf("%#v", zero) {
		t.Errorf("%.100q: both an error and the value %#v", text, v)
	}
}

// inverse: what is printed is read as the same value, for every value.
func inverse[T any](f form[T], gen *rapid.Generator[T]) func(*testing.T) {
	return rapid.MakeCheck(func(t *rapid.T) {
		v := gen.Draw(t, "value")
		text := f.print(v)
		read, err := f.parse(text)
		if err != nil {
			t.Fatalf("%q is refused: %v", text, err)
		}
		if f.print(read) != text || fmt.Sprintf("%#v", read) != fmt.Sprintf("%#v", v) {
			t.Fatalf("%#v prints %q, which is read as %#v", v, text, read)
		}
	})
}

func TestParseIsInverseOfString(t *testing.T) {
	t.Run("region", inverse(regions, genRegion()))
	t.Run("stream", inverse(streams, genStream()))
	t.Run("origin", inverse(origins, genOrigin()))
	t.Run("log", inverse(logs, genLog()))
	t.Run("position", inverse(positions, genPosition()))
	t.Run("clock", inverse(clocks, genHLC()))
	t.Run("epoch", inverse(epochs, rapid.Map(rapid.Uint64(), func(n uint64) events.Epoch { return events.Epoch(n) })))
	t.Run("context", inverse(contexts, genContext()))
	t.Run("digest", inverse(digests, genDigest()))
	t.Run("vector", rapid.MakeCheck(func(t *rapid.T) {
		v := genVector().Draw(t, "vector")
		read, err := events.ParseVector(v.String())
		if err != nil || v.Compare(read) != events.Equal || read.String() != v.String() {
			t.Fatalf("%v is read as %v, %v", v, read, err)
		}
	}))
}

// Values that Validate accepts are those that have a text.
func TestValidateAgreesWithText(t *testing.T) {
	for _, o := range []events.Origin{{}, {Region: "a"}, {Incarnation: 1}, {Region: "A", Incarnation: 1}, {Region: "a", Incarnation: 1}, {Region: "a", Incarnation: 2}} {
		read, err := events.ParseOrigin(o.String())
		if ok := err == nil && read == o; ok != (o.Validate() == nil) {
			t.Errorf("origin %#v: Validate says %v, its text is read as %v, %v", o, o.Validate(), read, err)
		}
		if o.IsZero() != (o == events.Origin{}) {
			t.Errorf("origin %#v: IsZero is %t", o, o.IsZero())
		}
	}
	good := events.Log{Origin: events.FirstOrigin("a"), Stream: "s"}
	for name, l := range map[string]events.Log{
		"good": good, "last partition": {good.Origin, "s", events.MaxPartition - 1}, "past the last partition": {good.Origin, "s", events.MaxPartition},
		"negative partition": {good.Origin, "s", -1}, "no origin": {Stream: "s"}, "bad stream": {good.Origin, "S", 0}, "zero": {},
	} {
		for offset := int64(-1); offset <= 1; offset++ {
			p := l.At(offset)
			read, err := events.ParsePosition(p.String())
			if ok := err == nil && read == p; ok != (p.Validate() == nil) {
				t.Errorf("%s: position %s: Validate says %v, its text is read as %v, %v", name, p, p.Validate(), read, err)
			}
		}
		read, err := events.ParseLog(l.String())
		if ok := err == nil && read == l; ok != (l.Validate() == nil) {
			t.Errorf("%s: log %s: Validate says %v, its text is read as %v, %v", name, l, l.Validate(), read, err)
		}
	}
}

// Everything that stands in JSON stands there as its text and comes back.
func TestJSON(t *testing.T) {
	type all struct {
		Log      events.Log      `json:"log"`
		Position events.Position `json:"position"`
		Vector   events.Vector   `json:"vector"`
		None     events.Vector   `json:"none"`
		Clock    events.HLC      `json:"clock"`
		Digest   events.Digest   `json:"digest"`
	}
	log := events.Log{Origin: events.Origin{Region: "us", Incarnation: 2}, Stream: "s", Partition: 3}
	in := all{Log: log, Position: log.At(7), Vector: events.Vector{log: 8}, Clock: 1<<16 | 2, Digest: events.Digest{15: 1}}
	const want = `{"log":"us_2/s/3","position":"us_2/s/3@7","vector":"us_2/s/3@8","none":"","clock":"1.2","digest":"00000000000000000000000000000001"}`
	text, err := json.Marshal(in)
	if err != nil || string(text) != want {
		t.Fatalf("%s, %v\nwant %s", text, err, want)
	}
	var out all
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(out); err != nil || string(again) != want {
		t.Errorf("read and written again: %s, %v", again, err)
	}
	for _, bad := range []string{`{"log":"us"}`, `{"position":"us/s/1"}`, `{"vector":"x"}`, `{"clock":"1"}`, `{"digest":"00"}`} {
		if err := json.Unmarshal([]byte(bad), &out); events.KindOf(err) != events.KindInvalid {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

func TestMirrorTopics(t *testing.T) {
	for _, c := range []struct{ name, origin, topic string }{
		{"us-east-1.session", "us-east-1", "session"},
		{"us-east-1_2.a.b", "us-east-1_2", "a.b"},
		{"us..x", "us", ".x"},
		{"session", "", ""},
		{"us.", "", ""},
		{".session", "", ""},
		{"US.session", "", ""},
		{"us_1.session", "", ""},
		{"", "", ""},
	} {
		o, topic, ok := events.ParseMirrorTopic(c.name)
		if ok != (c.origin != "") || ok && (o.String() != c.origin || topic != c.topic) {
			t.Errorf("%q is read as %s, %q, %t", c.name, o, topic, ok)
		}
	}
}

func TestMirrorTopicIsInvertible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		origin, topic := genOrigin().Draw(t, "origin"), rapid.StringMatching(`[a-zA-Z0-9._-]{1,174}`).Draw(t, "topic")
		o, got, ok := events.ParseMirrorTopic(origin.MirrorTopic(topic))
		if !ok || o != origin || got != topic {
			t.Fatalf("%s of %s is read as %s of %s, %t", topic, origin, got, o, ok)
		}
	})
}

func TestValidateTopic(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "A.b_c-9": true, "...": true, strings.Repeat("a", events.MaxTopicBytes): true,
		"": false, ".": false, "..": false, "a b": false, "a/b": false, "ä": false, "a\x00": false, strings.Repeat("a", events.MaxTopicBytes+1): false,
	} {
		if err := events.ValidateTopic(name); (err == nil) != ok {
			t.Errorf("topic %.100q: %v", name, err)
		}
	}
	// Kafka's own limit must leave room for every mirror.
	const kafkaMaxTopicBytes = 249
	longest := events.Origin{Region: events.Region(long), Incarnation: 1<<32 - 1}
	if n := len(longest.MirrorTopic(strings.Repeat("a", events.MaxTopicBytes))); n > kafkaMaxTopicBytes {
		t.Errorf("the longest mirror's name has %d bytes, Kafka takes %d", n, kafkaMaxTopicBytes)
	}
}

func TestKinds(t *testing.T) {
	inner := events.Errorf(events.KindNotFound, "no such thing")
	for name, c := range map[string]struct {
		err  error
		want events.Kind
		text string
	}{
		"none":               {nil, 0, ""},
		"of another package": {errors.New("x"), events.KindFailed, "x"},
		"with a kind":        {inner, events.KindNotFound, "no such thing"},
		"wrapped":            {fmt.Errorf("while looking: %w", inner), events.KindNotFound, "while looking: no such thing"},
		"outermost wins":     {events.Errorf(events.KindRefused, "stop: %w", inner), events.KindRefused, "stop: no such thing"},
		"joined":             {errors.Join(errors.New("x"), inner), events.KindNotFound, "x\nno such thing"},
	} {
		if got := events.KindOf(c.err); got != c.want {
			t.Errorf("%s: kind %q, want %q", name, got, c.want)
		}
		if c.err != nil && c.err.Error() != c.text {
			t.Errorf("%s: text %q, want %q", name, c.err, c.text)
		}
	}
	if !errors.Is(events.Errorf(events.KindRefused, "%w", inner), inner) {
		t.Error("the error within is not found")
	}
	// Exit codes are for ever.
	for want, k := range []events.Kind{1: events.KindFailed, 2: events.KindInvalid, 3: events.KindPartial, 4: events.KindRefused, 5: events.KindNotFound, 6: events.KindInconsistent, 7: events.KindNotReady} {
		if int(k) != want || want > 0 && strings.HasPrefix(k.String(), "kind ") {
			t.Errorf("kind %q is %d, want %d", k, k, want)
		}
	}
	if s := events.Kind(99).String(); s != "kind 99" {
		t.Errorf("unknown kind prints %q", s)
	}
}
