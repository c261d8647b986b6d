// Package mapping relates the offsets of a log to those of its mirror.
//
// A mirror holds the records of its log in their order and without holes of its
// own, but not always at their offsets: markers of transactions, aborted
// records, compaction and retention leave offsets in the log that no record has.
// A Map notes where the difference between the two changes, one Run of 16 bytes for
// each hole, and translates exactly in both directions for the offset of every
// record that was mirrored.
//
// The package does no I/O. A Map may be read from any number of goroutines while
// nothing appends to it. Clone costs nothing, and what is appended to a clone or
// to its origin afterwards does not show in the other.
package mapping
