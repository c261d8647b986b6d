// Package pipeline is the running region: it wires links, shards, backups and
// the API together and starts and stops them in order.
//
// A Region is one node of one region; several nodes share the region's shards. On
// Start it checks its parts (Kafka, bucket, topics, state) and joins the region's
// consumer group, which assigns it shards (claims.Member). The keeper claims each of them in
// the claims topic (claims.Log), brings its directory to where it begins (beginnings) and opens it
// under the epoch of the claim; the worker then reads its logs and mirrors and has it
// fold them, from where the shard's own vector says; which offset a mirror's record has in its log
// is known to package mirrors. A later claim of another node fences the shard and closes it. The
// links whose home is here keep the mirrors (package links).
// The archiver (package archive) keeps the continuous backup. An attester says what became of the region's own logs, and a checker compares
// what all regions say with the shards (package checks).
//
// A call is about the whole region: what the node does not have itself it asks the
// owners for (package peers, gather). DESIGN.md says why it is made like this.
//
// Stop ends it all: no new calls, membership, links, worker, archiver, producer, shards; what
// was acknowledged is in the logs, what was folded is flushed.
//
// What is written through the API is stamped (stamp.go) with a clock that never
// repeats, a causal context, and the partition that Kafka's own hash gives. Reads
// wait for a cut that they ask for (wait.go), watches follow what changes
// (watch.go), histories read the logs (history.go). They come to shards by way of
// owners.go, peers.go and gather.go. What a shard's time goes into is measured by package pace.
//
// Several Regions live in one process without sharing anything: collaborators
// come in through Parts, metrics through the registry in it.
package pipeline
