// Package claims says which node of a region owns what, and who is to own it.
//
// The region's consumer group assigns each node shards that it is to claim (Member). Who owns one
// is said by the newest claim of it in a compacted topic (Log): one partition for each shard, which
// also holds the claims of the links whose home the shard is, and what nodes say of themselves. The
// place of a claim in the topic is its epoch, so that epochs of a shard are in one order and there
// before anything is done under them. DESIGN.md in package pipeline has the stages of a move.
//
// What is known here may be old: another node may have claimed something a moment ago. Lapsed
// bounds that: a node that has not made sure of all claims for as long as the group waits for a
// silent one does nothing in the name of what it owned.
//
// Methods may be called from any goroutine. Follow, KeepConfirmed and Watch each need one of their
// own, and end with their context.
package claims
