package fieldmap_test

import (
	"testing"

	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/fieldmap"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
)

// A burial leaves what hides something of others, and nothing else; what comes behind it stands alone.
func TestBuried(t *testing.T) {
	for name, story := range map[string]struct {
		lines []string
		value string
	}{
		"a reset has taken all away": {
			[]string{`us/0@0 [] patch {"set":{"f":1},"increment":{"n":2},"add":{"s":["x"]}}`, `eu/0@0 [us@1] delete`, `us/0@1 [] bury`}, ""},
		"an increment begins anew": {
			[]string{`us/0@0 [] patch {"increment":{"n":2}}`, `eu/0@0 [us@1] delete`, `us/0@1 [] bury`, `us/0@2 [eu@1] patch {"increment":{"n":3}}`}, `{"n":3}`},
		"an unset stays hidden when what hides it goes": {
			[]string{`eu/0@0 [] patch {"set":{"f":1}}`, `us/0@0 [] patch {"unset":["f"]}`, `eu/0@1 [] bury`, `us/0@1 [] delete`}, ""},
		"its registers still hold down others": {
			[]string{`ap/0@0 [] patch {"set":{"f":1}}`, `eu/0@0 [] patch {"set":{"f":2}}`, `us/0@0 [] patch {"unset":["f"]}`, `eu/0@1 [] bury`}, ""},
		"its resets still take away": {
			[]string{`eu/0@0 [ap@1] put {"f":2}`, `us/0@0 [eu@1] delete`, `eu/0@1 [] bury`, `ap/0@0 [] patch {"set":{"f":1},"increment":{"n":1}}`}, ""},
		"its removes still remove": {
			[]string{`eu/0@0 [ap@1] patch {"add":{"s":["y"]},"remove":{"s":["x"]}}`, `us/0@0 [eu@1] patch {"remove":{"s":["y"]}}`,
				`eu/0@1 [] bury`, `ap/0@0 [] patch {"add":{"s":["x"]}}`}, ""},
		"a removed element that was added again": {
			[]string{`eu/0@0 [ap@1] patch {"remove":{"s":["x"]}}`, `eu/0@1 [] patch {"add":{"s":["x"]}}`, `us/0@0 [eu@2] delete`,
				`eu/0@2 [] bury`, `ap/0@0 [] patch {"add":{"s":["x","z"]}}`}, `{"s":["z"]}`},
		"what others have, they have": {
			[]string{`eu/0@0 [] put {"f":2}`, `us/0@0 [eu@1] put {"g":1}`, `eu/0@1 [] bury`}, `{"g":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			all := mergetest.Tell(t, fieldmap.Rule{}, story.lines...)
			view, err := fieldmap.Rule{}.Join(all)
			if err != nil || string(view.Value) != story.value {
				t.Errorf("%s, %v, want %q", view.Value, err, story.value)
			}
		})
	}
	if _, err := (fieldmap.Rule{}).Bury(nil, []byte{1, 1, 0}, merge.Slice{}.Log.At(3)); err == nil {
		t.Error("a damaged slice was buried")
	}
}
