// Package archive keeps the continuous backup: it reads the logs of a node's shards,
// and mirrors, and appends what comes to the archive of each shard in the bucket
// (package snapshotter/segment).
//
// It has a Kafka client of its own and knows nothing of the fold: a log whose fold has
// stopped, a fold that is slow and a disk that is full hold nothing up. Where it
// goes on is said by the bucket alone: where the newest segment ends, else at the
// state of the newest backup, else at the beginning of the log. Nothing is kept on
// disk.
//
// # Guarantees
//
//   - A log is archived without a hole and without a repetition, whatever is killed
//     when, and whoever archives at the same time: a segment is created once, under
//     the next number, and beginning where the one before ends. Who finds the place
//     taken reads the newest segment and goes on behind it.
//   - What a log has lost before it was archived is a gap: written down in the segment
//     behind it, counted and told. A log that ends before its archive does, or has
//     another record where the archive ends, was truncated or made anew: its archive
//     stops, and says so.
//   - A newest segment that is damaged is read again for a minute. Then the archive goes on
//     behind the last that is whole, with what the logs have, and tells of it.
//   - A segment is closed at the latest when the oldest record in it was read as
//     long ago as its stream's limit says, or when it is large.
//   - Memory is bounded, for each shard and for the node. What cannot be appended is not read:
//     it stays in the logs.
//   - A bucket that does not answer is tried for ever, with the same bytes. That is
//     told (Problems), and nothing is lost as long as the logs have it.
//
// # Goroutines
//
// Run has one that polls the client, one for each shard and one for each upload that is
// under way; all have ended when it returns. Other methods may be called from any
// goroutine.
package archive
