// Package replicator mirrors logs between regions.
//
// A Link mirrors the logs of one origin into one destination region, where it
// runs: topic T of origin O becomes topic "O.T", partition by partition, record
// by record, with the same keys, values, headers, timestamps, order and
// compression, and the same offsets wherever the log has no holes. Only the link
// writes a mirror.
//
// Batches are passed on as they were fetched. Nothing is decompressed unless a
// batch cannot pass (it has holes, is larger than the mirror takes, carries the
// broker's time, or is of an old format), or many tiny ones are waiting, which are
// then merged. Every batch's checksum is verified before it gets a new one.
//
// Appending is compare-and-swap: one producer id per mirror, kept in the link
// topic of the destination, and a sequence that is the offset at which the batch must
// land. A retry is absorbed by the broker, and of several instances of one link that
// run by mistake only one writes each offset. On a log that is being compacted,
// where they may read different records, they write down what they are about to
// append. Progress lives in the destination: the next offset to fetch follows from
// the end of the mirror, through the mapping where the log has holes, and the runs of
// that mapping are written to the link topic before the records that need them.
//
// What is lost or does not fit is loud. Retention that overtook the link, a
// source truncated or created anew, a mirror deleted or written by somebody else, a
// record that the mirror does not take: that one partition stops in a State with
// a name, with the exact offsets; Resume goes on with an operator's explicit choice;
// nothing is ever reset by itself. Everything else is tried again, with pauses.
// DESIGN.md goes through what can fail.
//
// Around the data a link keeps topics, partition counts, configurations, ACLs and
// the offsets of consumer groups in step (package follow), says how far it is
// behind, and compares mirrors with their sources (Verify). What is mirrored of
// logs with transactions is what a consumer sees that reads committed records.
//
// Run belongs to one goroutine; everything else may be called from any.
package replicator
