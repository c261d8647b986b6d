package projections

import (
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/appendonly"
	"github.com/evenkeel/evenkeel/projections/merge/fieldmap"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	"github.com/evenkeel/evenkeel/projections/merge/multivalue"
)

// Rules lists every merge rule, one line each.
func Rules() []merge.Rule {
	return []merge.Rule{
		appendonly.Rule{},
		fieldmap.Rule{},
		lww.Rule{},
		multivalue.Rule{},
	}
}

// LookupRule finds a rule by its name.
func LookupRule(name string) (merge.Rule, error) {
	var names []string
	for _, r := range Rules() {
		if r.Name() == name {
			return r, nil
		}
		names = append(names, r.Name())
	}
	slices.Sort(names)
	return nil, events.Errorf(events.KindInvalid, "merge rule %q is unknown; there is %s", name, strings.Join(names, ", "))
}
