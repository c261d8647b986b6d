package pipeline

import "github.com/evenkeel/evenkeel/projections"

// What a node's shards have of memory, all together: memTablesBytes for what they
// have not yet written to tables, twice that under load, and the rest of
// cacheBytes for blocks of tables.
const (
	memTablesBytes   = 128 << 20
	blockCacheBytes  = 128 << 20
	cacheBytes       = blockCacheBytes + 2*memTablesBytes
	memTableMinBytes = 4 << 20
)

// touchedBytes is what a node remembers of the keys that were written, so that deltas
// find them, in all shards of the region together. It is for a minute of 10,000
// writes a second to different keys, or an hour of less than 200.
const touchedBytes = 128 << 20

// memTableBytes is the share of one of a node's shards.
func memTableBytes(shards int32) uint64 {
	share := uint64(memTablesBytes) / uint64(max(shards, 1))
	return min(max(share, memTableMinBytes), projections.DefaultMemTableBytes)
}
