package main

import (
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/api"
)

// A copy that could not be read may have what is needed: only of one that was read it is said that it has nothing.
func TestCopiesTable(t *testing.T) {
	var b strings.Builder
	now := time.Now()
	if err := copiesTable(&b, []api.CopyStatus{{Copy: "east", Error: "it lacks some", Checked: &now}, {Copy: "west", Error: "it is away"}}); err != nil {
		t.Fatal(err)
	}
	_, east, _ := strings.Cut(b.String(), "east")
	east, west, _ := strings.Cut(east, "west")
	west, _, _ = strings.Cut(west, "\n")
	if !strings.Contains(east, "NONE") || strings.Contains(west, "NONE") || !strings.Contains(west, "unknown") {
		t.Errorf("%s", b.String())
	}
}
