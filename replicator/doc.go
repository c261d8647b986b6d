// Package replicator copies logs between regions.
//
// A Link mirrors all logs of one origin into one destination region, where it
// runs: topic T of origin O becomes topic "O.T", partition by partition, record
// by record, with the same keys, values, headers, timestamps and offsets. Only
// the link writes a mirror.
//
// Progress lives in the destination: the next offset to fetch is the end of the
// mirror, so there is nothing else to lose or to disagree with. Every ack's
// offset is checked against the source's; whatever does not fit (a foreign
// writer, a hole in the source's log, a truncated or re-created source,
// retention that overtook the link) stops that one partition with an error that
// names topic, partition and offsets, and never resets anything by itself.
//
// This link consumes and produces records by way of an ordinary client, and
// therefore needs logs that are dense: no transactions, no compaction, nothing
// expired before it was mirrored. What breaks that rule is refused, not skipped.
//
// Run belongs to one goroutine; Status may be called from any.
package replicator
