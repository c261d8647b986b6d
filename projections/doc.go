// Package projections folds logs into the state that readers see, and keeps it
// in Pebble.
//
// # Shards and slices
//
// A Shard is partition i of every stream from every origin, in one Pebble
// database. For each log and key it holds a slice: the fold of that one log for
// that one key, by the stream's merge rule (package merge). A slice is a pure
// function of a prefix of one log. A view, what a reader sees of a key, is the
// join of the key's slices; it is computed on reading and stored nowhere.
//
// The road of an event: Shard.Apply (apply.go) decodes its record, merge.Rule's
// Fold makes the new slice, and one Pebble batch takes slices, vector and
// digests together. So any Pebble snapshot is an exact, self-describing cut:
// Freeze returns one, for backups: of all of it, or of what has changed since an
// earlier vector.
//
// # Guarantees
//
//   - Each record of a log is folded exactly once and in order, whatever is
//     killed when: the vector in the database says what comes next. A record
//     below it is skipped, a gap blocks that log with a named error (GapError)
//     and leaves the others running.
//   - A record that is no event is parked: set aside with position and reason in
//     the same batch, counted, and never in the way of the others.
//   - A tombstone goes only by an event in its own log that says so, so that all
//     regions lose it at the same place; so does what another log's tombstone hides.
//   - Batches are not synced to disk one by one: after a crash the shard may
//     stand at an earlier exact cut and is replayed from the log.
//   - A shard says what a log's state was (events.Mark) after each of its last
//     records and before every MarkEvery-th, so that regions can be compared while
//     they go on.
//   - A shard is opened under an epoch; a lower one than before is refused, and
//     nothing is applied after Fence.
//   - What is at rest can be checked against what the applies left behind
//     (Verify, and at the end of every Restore), tombstones and parked records
//     included. A corrupt file is an error to whoever reads it.
//   - A shard can be made of tables that stay where they are (RestoreInPlace), and does
//     everything at once; Hydrate brings them here while it goes on, and proves it. What
//     is out of reach meanwhile is an error to whoever needs it, and nothing else.
//   - Whoever waits for a cut (Wait) is woken by the step that reaches it. A Feed
//     gives every key that has changed since a cut, or says that it cannot: a
//     shard remembers its last steps only, and its fold waits for nobody.
//   - Read models (Config.Models, package derived) are kept in the same batch. They
//     are in no cut, digest or proof; one that fails is stopped, and nothing else.
//   - A disk that can no longer be written ends the process: Pebble panics.
//
// DESIGN.md says why it is made like this.
//
// # Goroutines
//
// Apply and Close belong to one goroutine, the shard's worker. Everything else
// may be called from any goroutine until Close returns. With read models a shard has two
// of its own, which build those that are new out of the state and out of logs; Close ends them.
//
// # Layout of the database
//
//	'B' log 0x00 number                       digest buckets of the log that changed, or all of them
//	'K' log 0x00 offset                       mark: chain and digest of the log before that offset
//	'L' log                                   LogState of the log, a digest of its tombstones and parked records, name of its rule
//	'M' name                                  database's own facts (lineage, epoch); not part of a backup
//	'P' log 0x00 offset                       parked record
//	'S' stream 0x00 key 0x00 0x01 origin      slice; 0x00 in the key is written 0x00 0xff
//	'V' model 0x00 ...                        read model, see package derived; not part of a backup
package projections
