// Package replicator copies logs between regions.
//
// A Link mirrors all logs of one origin into one destination region, where it
// runs: topic T of origin O becomes topic "O.T", partition by partition, record
// by record, with the same keys, values, headers, timestamps and offsets. Only
// the link writes a mirror.
//
// Progress lives in the destination: the next offset to fetch is the end of the
// mirror, so there is nothing else to lose or to disagree with. The last record
// of every mirror is compared with the source's before anything is appended, and
// every ack's offset is checked against the source's. Whatever does not fit (a
// foreign writer, a hole in the source's log, a truncated or re-created source,
// retention that overtook the link, a record that cannot be copied) stops that
// one partition with an error that names topic, partition and offsets, and never
// resets anything by itself. DESIGN.md goes through what can fail.
//
// This link consumes and produces records by way of an ordinary client, and
// therefore needs logs that are dense: no transactions, no compaction, nothing
// expired before it was mirrored. What breaks that rule is refused, not skipped.
// It cannot prevent that a write which it has given up lands after all; it sees
// that and stops.
//
// Run belongs to one goroutine; Status may be called from any.
package replicator
