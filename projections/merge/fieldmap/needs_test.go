package fieldmap_test

import (
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge/fieldmap"
)

// Only what is added to something else may have no room there.
func TestNeedsSlice(t *testing.T) {
	own, other := events.FirstOrigin("us"), events.FirstOrigin("eu")
	at := events.Log{Origin: own, Stream: "s"}.At(10)
	some, all := events.Context{{Origin: own, Next: 9}}, events.Context{{Origin: own, Next: 10}}
	for name, c := range map[string]struct {
		op   events.Op
		deps events.Context
		want bool
	}{
		"put of one who knows all":                          {events.OpPut, nil, false},
		"put that names another alone":                      {events.OpPut, events.Context{{Origin: other, Next: 3}}, false},
		"put of one who has read some":                      {events.OpPut, some, true},
		"resolve of one who has read some":                  {events.OpResolve, some, true},
		"delete":                                            {events.OpDelete, nil, false},
		"delete of one who has read some":                   {events.OpDelete, some, false},
		"put of one whose context may lack what others add": {events.OpPut, all, true},
		"patch": {events.OpPatch, nil, true},
	} {
		if got := (fieldmap.Rule{}).NeedsSlice(&events.Event{Op: c.op, Deps: c.deps}, at); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
