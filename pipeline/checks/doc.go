// Package checks keeps comparing what the regions say of their logs (package replicator/divergence).
//
// An Attester says of the region's own logs, in the shards that this node has, what became of them:
// at least once a second while there is something new. A Checker reads what all origins have attested,
// and compares each word with the shard once that has come so far. What it finds is told until another
// node owns the shard, or it is over. What cannot be compared has a reason, and is never equal.
//
// Attested is the same words for those who compare something else with them: a backup, or a state that
// was restored and is not open yet. A region's own word does not count there.
//
// Read, Compare and Run each need a goroutine of their own, and end with their context. Everything
// else may be called from any.
package checks
