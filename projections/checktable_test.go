package projections_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// Any byte of a table changed, and any end lost, is found by its checksums.
func TestCheckTable(t *testing.T) {
	fs := vfs.NewMem()
	tables, _ := backup(t, fs, 0, smallWorld(0), 300)
	f, err := fs.Open(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(f)
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	given := bytes.Clone(whole)
	if err := projections.CheckTable(t.Context(), given); err != nil || !bytes.Equal(given, whole) {
		t.Errorf("whole: %v", err)
	}
	for at := range whole {
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << (at % 8)
		for what, damaged := range map[string][]byte{"changed": flipped, "cut": whole[:at]} {
			if err := projections.CheckTable(t.Context(), damaged); events.KindOf(err) != events.KindInconsistent {
				t.Errorf("%s at %d of %d: %v", what, at, len(whole), err)
			}
		}
	}
}
