// Package linkbench measures links between two real Kafka clusters: Evenkeel's
// own beside MirrorMaker 2 and a plain consume-and-produce loop, on the same
// logs, clusters and machine.
//
// Every system mirrors in a process of its own, so that its processor time and
// its memory are its own. The log is complete before the process is
// started, and clock and counters run from when a quarter of it has arrived to
// when four fifths have: start-up and the warming of caches and just-in-time
// compilers do not count, and nobody gains by reading far ahead. A system that is
// done too soon to tell mirrors the log again, at most three times in all, and its
// figures are of all that was measured. Afterwards the
// mirror must hold as many records as the log; what the records say is for the
// tests of each system, not looked at here.
//
// A distant source is one behind a Proxy which delays every byte by half the
// round-trip time, each way. It models distance alone: no loss, no limit of
// bandwidth, no slow start of connections.
//
// Ratios between systems travel to other machines, absolute figures do not: both
// brokers, the mirroring process and the measuring one share the processors.
//
// Linux only: processes are read from /proc. Run is for one goroutine; so is
// everything else, but for Proxy.Close.
package linkbench
