// Package mirrors says which offsets the records of a region's mirrors have in their logs. A
// mirror has no holes, but a log has one wherever a transaction ended or was aborted, and wherever
// it was compacted: what links have written down of that is read here, and nothing is written.
//
// What a link has appended a moment ago may lie in a mirror before it is known where in the log it
// is. No offset is guessed: such records are waited for shortly, and then told apart (ErrNotSaid).
//
// Of the region's own logs all offsets are what they are. All methods may be called from any
// goroutine; they ask the region's cluster, and end with their context.
package mirrors
