// Package applybench measures projections.Shard.Apply beside a bare Pebble
// database on which the same keys are read and the same keys and values written, in
// batches of the same size and under the same options: Get of each key that the
// batch touches, Set of each, a commit that is not synced. The bare loop decodes
// nothing, folds nothing, hashes nothing and keeps no vector; what it writes
// was worked out before. In the end both must hold as many keys and bytes.
//
// Each of the two is a process of its own, so that processor time, background
// work and memory are its own. They take turns: a slice of the events goes to one,
// then to the other, the next one the other way round, and who has no turn is
// stopped (SIGSTOP), its compactions too. So other programs and the disk hit
// both alike, and nobody works on the other's time.
//
// Events are prepared between the batches, off the clock. Processor time is that of
// the whole process, compactions and garbage collection included, without the
// preparing thread. The share of digests is read from a processor profile
// that is taken all the while.
//
// Keys are drawn uniformly at random, unless a case says otherwise. Before it is
// measured, off the clock, a shard is filled in the order of its keys, and the bare
// database begins as a copy of it; catching up begins with nothing.
//
// Linux only. Ratios travel to other machines, absolute figures do not.
package applybench
