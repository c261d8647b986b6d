package report_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

func TestCheckOnly(t *testing.T) {
	names := []string{"full", "delta"}
	for _, only := range []*regexp.Regexp{nil, regexp.MustCompile("^d"), regexp.MustCompile("")} {
		if err := report.CheckOnly(only, names); err != nil {
			t.Errorf("%v: %v", only, err)
		}
	}
	err := report.CheckOnly(regexp.MustCompile("^deltas"), names)
	if events.KindOf(err) != events.KindInvalid || !strings.Contains(err.Error(), "--only ^deltas; there are full, delta") {
		t.Error(err)
	}
}
