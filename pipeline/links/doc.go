// Package links runs the links of a region (package replicator), each on one of its nodes, and
// answers what is asked of them, on whatever node (api.LinksNode).
//
// Each link has a home shard, by the hash of its origin. The node that is assigned that shard claims
// the link, runs it, and ends it when it reads a later claim (package claims). The link follows the
// assignment, not the open shard, so that a restore of an hour holds up no mirror. Two instances at a
// time append to a mirror by compare-and-swap.
//
// Whoever is asked of a link that runs elsewhere asks the node that runs it, and says so if there is
// none. What is not known of a lag has no number.
//
// Claimed is called in the order of the claims; everything else may be called from any goroutine.
package links
