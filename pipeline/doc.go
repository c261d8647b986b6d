// Package pipeline is the running region: it wires links, shards, backups and
// the API together and starts and stops them in order.
//
// A Region is one node of one region. On Start it checks its parts (Kafka,
// bucket, topics, state), opens its shards, then lets in records: a Worker, a
// member of the region's consumer group, reads logs and mirrors and has the
// shards fold them; a link per other region keeps the mirrors. What a shard's own
// vector says is where reading begins, whatever offsets the group has committed.
// An attester says what became of the region's own logs, and a checker compares
// what all regions say with the shards (package replicator/divergence).
//
// Stop ends it in the reverse order: no new calls, links, worker, producer,
// shards; what was acknowledged is in the logs, what was folded is flushed.
//
// What is written through the API is stamped (stamp.go) with a clock that never
// repeats, a causal context, and the partition that Kafka's own hash gives. Reads
// wait for a cut that they ask for (wait.go), watches follow what changes
// (watch.go), histories read the logs (history.go). All of them come to shards by
// way of owners.go. What a shard's time goes into is measured in pace.go.
//
// Several Regions live in one process without sharing anything: collaborators
// come in through Parts, metrics through the registry in it.
package pipeline
