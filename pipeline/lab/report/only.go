package report

import (
	"regexp"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
)

// CheckOnly refuses a pattern that none of the cases' names matches; nil matches all.
func CheckOnly(only *regexp.Regexp, names []string) error {
	if only == nil || slices.ContainsFunc(names, only.MatchString) {
		return nil
	}
	return events.Errorf(events.KindInvalid, "nothing that is measured matches --only %s; there are %s", only, strings.Join(names, ", "))
}
