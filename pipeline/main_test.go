package pipeline_test

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestMain has the collector of garbage work less often: simulated time makes little else, and little
// of it at a time.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(4 << 30) // and more often from there on
	os.Exit(m.Run())
}
