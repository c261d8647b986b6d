// Package ledger keeps the little that mirrors cannot tell about themselves, in
// the link topic: a compacted topic of one partition in the destination cluster,
// shared by all links into it. Keys and values are JSON.
//
// For every partition it holds the producer id that writes the mirror, the runs
// that map the log's offsets to the mirror's, those that are planned, and the leader epochs at which the log
// was read; for every topic the origin of its mirror; and an operator's pauses.
//
// Several instances of a link may run at once by mistake: after a long pause
// nobody is told that another has taken over. The topic is the arbiter. Whatever is
// decided between instances, every reader decides alike, whenever it reads and
// whatever compaction has removed by then:
//
//   - A contest (producer, chunk of runs, epoch) is won by the first record in the
//     topic. Every record of a contest has a key of its own, so none replaces another
//     and the first one stays at its offset. The others are void and are removed by
//     whoever writes next.
//   - Runs are numbered chunks: chunk 5 says what follows chunk 4. Whoever loses
//     chunk 5 has been superseded. Full blocks of chunks are written again as one record
//     with a key that does not depend on the writer, because whoever writes it writes the
//     same; then the chunks are void. A crash between the two leaves both.
//   - A reset begins a new generation of a partition's runs and epochs, or of its
//     producers. The generation is one more than the offset of the reset, so no two are
//     the same, and what was written under another one is void, even if it arrives later.
//   - A plan says what the next chunk would be if a certain batch landed in the
//     mirror. There may be several; none counts before somebody has seen that its batch
//     has landed, and writes the chunk. Then all of them are void.
//   - Facts about topics and pauses are ordinary keys: the last write wins.
//
// A reader that sees every offset sees every contest as it was. One that finds
// offsets missing may have been overtaken by compaction, and may have seen a loser
// whose winner is gone because its block is further on. So after holes it asks
// for the topic's end again, and decides nothing before it has seen all of it.
//
// What is not guaranteed: the ledger stops nobody. An instance learns that it was
// superseded when it writes or refreshes, so what must not be done twice has to be
// protected where it is done. A write that returns an error other than ErrSuperseded may
// have been done or may yet be done; Refresh, look, and decide anew.
//
// A Ledger may be used from any goroutine.
package ledger
