package prune_test

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestMain has the collector of garbage work less often: weeks of backups are little else,
// and little of it at a time.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}
