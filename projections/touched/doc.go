// Package touched remembers which keys of a shard's logs were written, and where, so
// that a backup of what has changed since an earlier vector finds it without
// searching the state.
//
// A slice is a pure function of a prefix of one log, so what has changed of a log
// between two offsets is at most what the records between them are about. Whoever
// reads all records of the logs, in order, gives them to Note; the fold has nothing to
// do with it. A Set never says less than there is: where it does not reach
// back, or has come no further, it says so. It may say more, such as the keys of
// records that turn out to mean nothing.
//
// Memory is bounded (New). A Set that is full lets go of what was written longest
// ago, and reaches back less far.
//
// All methods may be called from any goroutine; Note for one log from one at a time.
package touched
