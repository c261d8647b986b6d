package format

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
)

// doc is FORMAT.md.
func doc(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// row is the row of a table of FORMAT.md that begins with a cell.
func row(t *testing.T, first string) string {
	t.Helper()
	for line := range strings.Lines(doc(t)) {
		if strings.HasPrefix(line, "| "+first+" |") {
			return line
		}
	}
	t.Fatalf("FORMAT.md has no row %q", first)
	return ""
}

// quoted are the words in backquotes.
func quoted(text string) (words []string) {
	for _, match := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(text, -1) {
		words = append(words, match[1])
	}
	return words
}

// fields are the names of a type's fields in JSON.
func fields(v any) (names []string) {
	for i := range reflect.TypeOf(v).NumField() {
		name, _, _ := strings.Cut(reflect.TypeOf(v).Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

func TestDocNamesObjects(t *testing.T) {
	m := sample()
	tab := m.Shards[1].Tables[1]
	id := m.ID
	fill := strings.NewReplacer(
		"REGION", m.Region.String(), "ID", m.ID, "PPPP", "0001", "NNNNNN", "000001", "HHHHHHHHHHHHHHHH", tab.SHA256[:16],
	)
	if got := fill.Replace(quoted(row(t, "table"))[0]); got != tab.Name || quoted(row(t, "sealed table"))[0] != quoted(row(t, "table"))[0]+sealedSuffix {
		t.Errorf("table: FORMAT.md says %s, it is %s", got, tab.Name)
	}
	if got := fill.Replace(quoted(row(t, "manifest"))[0]); got != ManifestName(m.Region, m.ID) {
		t.Errorf("manifest: FORMAT.md says %s, it is %s", got, ManifestName(m.Region, m.ID))
	}
	for first, want := range map[string]string{
		"floor": FloorName(m.Region, 1), "plan": PlanName(m.Region, 1), "pin": PinName(m.Region, id, "0123456789abcdef"),
		"segment": SegmentName(m.Region, 1, 1), "drill": DrillName(m.Region, id),
	} {
		fill := strings.NewReplacer("REGION", m.Region.String(), "NNNNNNNNNN", "0000000001", "ID", id, "RRRRRRRRRRRRRRRR", "0123456789abcdef", "PPPP", "0001")
		if got := fill.Replace(quoted(row(t, first))[0]); got != want {
			t.Errorf("%s: FORMAT.md says %s, it is %s", first, got, want)
		}
	}
	if !slices.Contains(quoted(doc(t)), m.ID) {
		t.Errorf("FORMAT.md does not show the id %s", m.ID)
	}
}

func TestDocListsFields(t *testing.T) {
	var listed []string
	for line := range strings.Lines(doc(t)) {
		if strings.HasPrefix(line, "| `") {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "| `"), "`")
			listed = append(listed, name)
		}
	}
	want := fields(Manifest{})
	for _, name := range fields(Shard{}) {
		want = append(want, "shards[]."+name)
	}
	for _, name := range want {
		if !slices.Contains(listed, name) {
			t.Errorf("FORMAT.md does not list %s", name)
		}
	}
	if len(listed) != len(want) {
		t.Errorf("FORMAT.md lists %q, there are %q", listed, want)
	}
	for place, fields := range map[string][]string{"`shards[].states`": fields(events.LogState{}), "`shards[].tables`": fields(Table{}), "`groups`": fields(Groups{}), "offset:": fields(GroupOffset{}),
		"floor:": fields(Floor{}), "plan:": fields(Plan{}), "pin:": fields(Pin{}),
		"segment:": fields(Segment{}), "end:": fields(LogEnd{}), "part:": fields(SegmentPart{}), "mark:": fields(events.Mark{}),
		"gap:": fields(Gap{}), "range:": fields(Range{}), "block:": fields(Block{}), "drill:": fields(Drill{}), "trial:": fields(Trial{}), "proof:": fields(Proof{})} {
		for _, name := range fields {
			if !slices.Contains(quoted(row(t, place)), name) {
				t.Errorf("FORMAT.md does not list %s of %s", name, place)
			}
		}
	}
}

func TestDocNumbers(t *testing.T) {
	for what, want := range map[string]string{
		"version": fmt.Sprintf("# Format of backups, version %d\n", Version),
		"limit":   fmt.Sprintf("at most %d MiB", MaxManifestBytes>>20),
		"parents": fmt.Sprintf("1 to %d ids", MaxParents),
	} {
		if !strings.Contains(doc(t), want) {
			t.Errorf("%s: FORMAT.md does not say %q", what, want)
		}
	}
}
