package pipeline

import "testing"

// However many shards a node has, their memtables together stay within what was
// set aside, down to the smallest that is worth having.
func TestMemTableBytes(t *testing.T) {
	for _, c := range []struct {
		shards int32
		want   uint64
	}{{0, 64 << 20}, {1, 64 << 20}, {2, 64 << 20}, {4, 32 << 20}, {32, 4 << 20}, {1000, 4 << 20}} {
		if got := memTableBytes(c.shards); got != c.want {
			t.Errorf("%d shards: %d bytes each, want %d", c.shards, got, c.want)
		}
	}
}
