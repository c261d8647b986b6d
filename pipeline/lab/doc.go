// Package lab runs whole regions in one process, for trying things out, for
// drills and for tests: each region has its own embedded Kafka cluster with a
// data directory and its own pipeline node, and one S3 server has a bucket for
// each. Any Kafka and any S3 client can talk to them.
//
// A lab lives in a directory. What it was made with (regions, ports, partitions)
// is written there, so that it comes back the same after a stop, a crash or
// kill -9. One process at a time may run it. Each region can be stopped, started,
// stripped of its state and restored by itself, by method or over HTTP
// (control.go).
//
// The embedded Kafka keeps what it acknowledged when its process is killed, and
// may lose the last of it when the machine loses power; it is not for production.
package lab
