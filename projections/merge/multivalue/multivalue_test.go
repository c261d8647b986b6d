package multivalue_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
	"github.com/evenkeel/evenkeel/projections/merge/multivalue"
)

var rule multivalue.Rule

func genEvent() *rapid.Generator[events.Event] {
	return rapid.Custom(func(t *rapid.T) events.Event {
		return events.Event{
			Op: rapid.SampledFrom([]events.Op{
				events.OpPut, events.OpPut, events.OpPut, events.OpResolve, events.OpDelete, events.OpDelete, events.OpPatch, events.OpAppend,
			}).Draw(t, "op"),
			Value:       rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value"),
			Type:        rapid.SampledFrom([]string{"", "t", string(make([]byte, 200))}).Draw(t, "type"),
			ContentType: rapid.SampledFrom([]string{"", "a/b"}).Draw(t, "content type"),
		}
	})
}

var suite = mergetest.Suite{Rule: rule, Events: genEvent(), Model: mergetest.Models[rule.Name()]}

func TestLaws(t *testing.T)   { suite.Run(t) }
func FuzzSlices(f *testing.F) { suite.Fuzz(f) }

func TestStories(t *testing.T) {
	for name, c := range map[string]struct {
		story []string
		want  string // position=value of each sibling, the one that shows first
	}{
		"nothing":                         {nil, ""},
		"one value":                       {[]string{"eu/0@0 [] put a"}, "eu@0=a"},
		"replaced in one log":             {[]string{"eu/0@0 [] put a", "eu/0@5 [] put b"}, "eu@5=b"},
		"two writers of one log":          {[]string{"eu/0@1 [] put a", "eu/0@5 [eu@1] put b"}, "eu@5=b eu@1=a"},
		"the first two of one log":        {[]string{"eu/0@0 [] put a", "eu/0@1 [eu@0] put b"}, "eu@1=b eu@0=a"},
		"nothing of another":              {[]string{"eu/0@0 [] put a", "us/0@0 [eu@0] put b"}, "us@0=b eu@0=a"},
		"concurrent":                      {[]string{"eu/0@0 [] put a", "us/0@0 [] put b"}, "us@0=b eu@0=a"},
		"replaced from elsewhere":         {[]string{"eu/0@0 [] put a", "us/0@0 [eu@1] put b"}, "us@0=b"},
		"resolved":                        {[]string{"eu/0@0 [] put a", "us/0@0 [] put b", "ap/0@0 [eu@1,us@1] resolve c"}, "ap@0=c"},
		"resolved all but what came late": {[]string{"eu/0@0 [] put a", "us/0@0 [] put b", "us/0@1 [] put d", "ap/0@0 [eu@1,us@1] resolve c"}, "us@1=d ap@0=c"},
		"deleted":                         {[]string{"eu/0@0 [] put a", "us/0@0 [eu@1] delete"}, ""},
		"deleted without having seen it":  {[]string{"eu/0@0 [] put a", "us/0@0 [] delete"}, "eu@0=a"},
		"put again after the deletion":    {[]string{"eu/0@0 [] put a", "us/0@0 [eu@1] delete", "eu/0@1 [] put b"}, "eu@1=b"},
		// What was deleted in us was written in eu, but us arrives first: its delete must not be forgotten.
		"the delete comes first":      {[]string{"us/0@0 [eu@1] delete", "eu/0@0 [] put a"}, ""},
		"the replacement comes first": {[]string{"us/0@0 [eu@1] put b", "us/0@1 [] delete", "eu/0@0 [] put a"}, ""},
		"another incarnation":         {[]string{"us/0@0 [] put a", "us_2/0@0 [] put b"}, "us_2@0=b us@0=a"},
		"another partition":           {[]string{"us/0@0 [] put a", "us/1@5 [us@3] delete", "eu/1@5 [us@3] delete"}, "us@0=a"},
		"buried":                      {[]string{"us/0@0 [] put a", "eu/0@0 [us@1] delete", "us/0@1 [] bury", "us/0@2 [] put b"}, "us@2=b"},
		"buried, it still covers":     {[]string{"us/0@0 [ap@1] put a", "eu/0@0 [us@1] delete", "us/0@1 [] bury", "ap/0@0 [] put b", "ap/0@1 [] put c"}, "ap@1=c"},
		"buried with siblings":        {[]string{"us/0@0 [] put a", "us/0@1 [us@0] put b", "eu/0@0 [us@2] put c", "us/0@2 [] bury"}, "eu@0=c"},
		"more than there is":          {[]string{"us/0@0 [eu@9] put b", "eu/0@4 [] put a", "eu/0@9 [] put c"}, "eu@9=c us@0=b"},
	} {
		all := mergetest.Tell(t, rule, c.story...)
		view, err := rule.Join(all)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		show := func(p events.Position, value []byte) {
			if text := fmt.Sprintf("%s@%d=%s", p.Origin, p.Offset, value); !slices.Contains(got, text) {
				got = append(got, text)
			}
		}
		if view.Exists {
			show(view.Position, view.Value)
		}
		for _, s := range view.Siblings {
			show(s.Position, s.Value)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSlice(t *testing.T) {
	log := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	deps := events.Context{{Origin: events.FirstOrigin("eu"), Next: 300}, {Origin: log.Origin, Next: 1}}
	var slice []byte
	for offset, e := range []events.Event{
		{Op: events.OpPut, Clock: 0x100, Type: "a", Value: []byte("x")},
		{Op: events.OpPut, Clock: 5, Deps: deps, ContentType: "b", Value: []byte("yz")},
		{Op: events.OpPut, Clock: 3, Deps: deps, Value: []byte{}},
	} {
		var err error
		if slice, err = rule.Fold(nil, slice, &e, log.At(int64(offset))); err != nil {
			t.Fatal(err)
		}
	}
	const want = "01" + "02" + "01" + "026575" + "01" + "ac02" + "02" +
		"01" + "0000000000000101" + "00" + "0162" + "02797a" +
		"02" + "0000000000000003" + "00" + "00" + "00"
	if got := hex.EncodeToString(slice); got != want {
		t.Errorf("slice %s, want %s", got, want)
	}
}

// A slice holds 64 values; then somebody has to choose.
func TestSiblingsAreBounded(t *testing.T) {
	log := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	blind := events.Context{{Origin: log.Origin, Next: 1}}
	var slice []byte
	put := func(offset int64, e events.Event) error {
		now, err := rule.Fold(nil, slice, &e, log.At(offset))
		if err == nil {
			slice = now
		}
		return err
	}
	for offset := range int64(64) {
		if err := put(offset+1, events.Event{Op: events.OpPut, Value: []byte("v"), Deps: blind}); err != nil {
			t.Fatal(err)
		}
	}
	err := put(65, events.Event{Op: events.OpPut, Value: []byte("v"), Deps: blind})
	var noMeaning *merge.NoMeaningError
	if !errors.As(err, &noMeaning) || err.Error() != "merge rule multivalue: 64 values that this one does not replace are enough; resolve them first" {
		t.Errorf("one more: %v", err)
	}
	view, err := rule.Join([]merge.Slice{{Log: log, Data: slice}})
	if err != nil || len(view.Siblings) != 64 {
		t.Errorf("%d siblings, %v", len(view.Siblings), err)
	}
	if err := put(66, events.Event{Op: events.OpDelete, Deps: blind}); err != nil {
		t.Errorf("a delete that covers nothing: %v", err)
	}
	if err := put(67, events.Event{Op: events.OpResolve, Value: []byte("one")}); err != nil {
		t.Errorf("resolve: %v", err)
	}
	if view, err := rule.Join([]merge.Slice{{Log: log, Data: slice}}); err != nil || string(view.Value) != "one" || view.Siblings != nil {
		t.Errorf("resolved, and seen as %+v, %v", view, err)
	}
}

func TestBytesAreBounded(t *testing.T) {
	log := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	blind := events.Context{{Origin: log.Origin, Next: 1}}
	var slice []byte
	big := make([]byte, events.MaxValueBytes)
	var err error
	for offset := int64(1); err == nil && offset < 9; offset++ {
		var now []byte
		if now, err = rule.Fold(nil, slice, &events.Event{Op: events.OpPut, Value: big, Deps: blind}, log.At(offset)); err == nil {
			slice = now
		}
	}
	var noMeaning *merge.NoMeaningError
	if !errors.As(err, &noMeaning) || len(slice) > 64<<20 || len(slice) < 48<<20 {
		t.Errorf("%d bytes, then %v", len(slice), err)
	}
}

// A context can name only so many origins, in one event or in several.
func TestOriginsAreBounded(t *testing.T) {
	log := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	context := func(prefix string) (c events.Context) {
		for i := range 200 {
			c = append(c, events.Seen{Origin: events.FirstOrigin(events.Region(fmt.Sprintf("%s%03d", prefix, i))), Next: 1})
		}
		return c
	}
	first, err := rule.Fold(nil, nil, &events.Event{Op: events.OpPut, Value: []byte("v"), Deps: context("a")}, log.At(0))
	if err != nil {
		t.Fatal(err)
	}
	_, err = rule.Fold(nil, first, &events.Event{Op: events.OpPut, Value: []byte("v"), Deps: context("b")}, log.At(1))
	var noMeaning *merge.NoMeaningError
	if !errors.As(err, &noMeaning) {
		t.Errorf("400 origins: %v", err)
	}
	if _, err := rule.Fold(nil, first, &events.Event{Op: events.OpPut, Value: []byte("v"), Deps: context("a")}, log.At(1)); err != nil {
		t.Errorf("the same 200 origins: %v", err)
	}
}

func TestSlicesThatCannotBe(t *testing.T) {
	us := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	for name, text := range map[string]string{
		"nothing":                      "",
		"another version":              "020000" + "00",
		"no count":                     "010500",
		"65 values":                    "010500" + "41" + strings.Repeat("00", 65*12),
		"something behind":             "01050000" + "00",
		"value after the last event":   "010500" + "01" + "06" + "0000000000000001" + "000000",
		"values at one offset":         "010500" + "02" + strings.Repeat("04"+"0000000000000001"+"000000", 2),
		"context of the own log":       "0105" + "01" + "027573" + "01" + "01" + "00",
		"context out of order":         "0105" + "02" + "026575" + "01" + "01" + "026170" + "01" + "01" + "00",
		"context of no origin":         "0105" + "01" + "00" + "01" + "01" + "00",
		"context of no incarnation":    "0105" + "01" + "026575" + "00" + "01" + "00",
		"context that has seen naught": "0105" + "01" + "026575" + "01" + "00" + "00",
		"257 origins":                  "0105" + "8102" + "00",
	} {
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if view, err := rule.Join([]merge.Slice{{Log: us, Data: data}}); err == nil || !strings.Contains(err.Error(), "multivalue slice") {
			t.Errorf("%s: seen as %+v, %v", name, view, err)
		}
	}
	if view, err := rule.Join([]merge.Slice{{Log: us, Data: []byte{1, 5, 0, 0}}}); err != nil || !reflect.DeepEqual(view, merge.View{}) {
		t.Errorf("nothing left: seen as %+v, %v", view, err)
	}
}

func BenchmarkFold(b *testing.B) {
	log := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "s"}
	deps := events.Context{{Origin: events.FirstOrigin("eu-central-1"), Next: 300}, {Origin: events.FirstOrigin("us-west-1"), Next: 9}}
	for name, e := range map[string]events.Event{
		"bare":    {Op: events.OpPut, Value: make([]byte, 300)},
		"context": {Op: events.OpPut, Value: make([]byte, 300), Deps: deps, Type: "erlmcp.config.set.v1"},
	} {
		b.Run(name, func(b *testing.B) {
			prev, err := rule.Fold(nil, nil, &e, log.At(0))
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 0, 1<<10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rule.Fold(dst, prev, &e, log.At(1)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkJoin(b *testing.B) {
	var all []merge.Slice
	for i, region := range []events.Region{"eu-central-1", "us-east-1", "us-west-1"} {
		log := events.Log{Origin: events.FirstOrigin(region), Stream: "s"}
		deps := events.Context{{Origin: events.FirstOrigin("ap-south-1"), Next: int64(i + 1)}}
		slice, err := rule.Fold(nil, nil, &events.Event{Op: events.OpPut, Value: make([]byte, 300), Deps: deps}, log.At(0))
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, merge.Slice{Log: log, Data: slice})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rule.Join(all); err != nil {
			b.Fatal(err)
		}
	}
}
