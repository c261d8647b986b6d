// Package inflate bounds the memory that a Kafka client's fetches take once they are
// decompressed. The client itself bounds what it fetches as it is compressed; a log of
// which a thousandth is left by compression, as of zeros, would take a thousand times that.
//
// A Room belongs to one client. What brokers have answered is decompressed as long as there
// is room for it. When there is none the rest of an answer is left undone: the client has
// what came before it, and fetches the rest again, as much at a time as fits. The first batch of each answer is
// always decompressed, so that each brings the client further; a client has one answer at most
// of each broker. Nothing waits for room: only a poll makes it, and the client cannot give to a poll
// what it has not worked through, nor stop reading a partition meanwhile.
//
// A batch that is too large by itself can never be read. That is told in each poll (TooLargeError) until
// the partition is paused. The client's own error for it (kgo.ErrDecompressTooLarge) ends the reading
// of the partition and is told once: not at all if the partition is paused by then, or another one is removed.
package inflate
