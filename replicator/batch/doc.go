// Package batch reads and writes Kafka's record batches (format v2) as bytes.
//
// A link passes most batches on as they are: Read cuts a fetched answer into
// batches without looking inside, Verify checks the bytes, Stamp makes a batch
// fit to be produced under the link's own producer id. What cannot pass, or
// would pass too slowly, goes through a Recoder: Merge makes one batch of many
// small ones or of batches with holes, Split makes several of one that is too
// large, Old lifts the formats before v2.
//
// Whatever a Recoder makes holds the same records in the same order: key,
// value, headers and attributes byte for byte, and the timestamps that a
// consumer of the source sees. Only the framing is new; Dense says where each
// record came from.
//
// Input may be anything. What makes no sense is a *CorruptError that names the
// batch's offset; nothing panics, and a batch that would decompress to more
// than 256 MiB is refused. Neither Stamp nor Merge, Split and Records compare
// checksums, and the first three write new ones: whoever skips Verify makes
// corrupt bytes look sound. Old checks the checksums of what it reads.
//
// The package knows nothing of transactions: which batches were aborted is for
// the caller to decide. Batches of control records are refused.
//
// All functions are pure. A Recoder belongs to one goroutine at a time; what it
// returns belongs to the caller and does not change with later calls.
package batch
