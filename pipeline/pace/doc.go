// Package pace measures what the time of a worker and its shards goes into, and says in a word what
// holds a shard up: records that do not come, its fold, its disk, a log that is blocked.
//
// All methods may be called from any goroutine. What is told is of the last seconds, the sums are
// since the shard came.
package pace
