// Package sim runs whole regions in simulated time, for tests: inside a
// testing/synctest bubble, Kafka is kfake behind a virtual network, Pebble writes
// to crashable memory, and the bucket is in memory and asserts its contract. Ten
// simulated minutes take a few seconds.
//
// A World is made of one to three regions, with one or more nodes each, which talk to
// each other and to Kafka over a network that can hold everything back. Scenarios do
// things to it (Put, PowerLoss, Freeze, Cut, Start); checkers, in check.go, stand apart
// from them and hold for every scenario: nothing acknowledged is lost, nothing is folded
// twice, mirrors equal their logs, regions at equal vectors have equal digests, no region
// has found a divergence where there is none, every node sees what the logs mean (meaning.go), and every shard is open on the one node whose claim is the newest.
//
// A world of all rules has, besides a stream of the rule lww, one each of multivalue, fieldmap and append, and a
// Writer writes to all of them: with what it has read as its context, with what its region knows, and
// without any.
//
// Where a world prunes (Shape.Keep), nodes die of calls of the bucket (Node.DieAt): of one that was not done, of
// one that was, and of one that leaves the beginning of an object. After each prune all that exists is restored
// and compared with logs that are folded anew, and what is gone with what was to stay (prunes.go). A Vault does the
// same to a bucket alone, for weeks: there are logs, shards, segments and backups, and neither Kafka nor nodes.
//
// A scenario may also do one thing wrong, in faults.go: a byte of a mirror is flipped, a record is
// skipped by a fold or folded twice. Then exactly that has to be found (AwaitFindings).
//
// Every random choice comes from the World's seed. Goroutine scheduling does
// not, so a seed narrows a failure down rather than replaying it instruction by
// instruction.
//
// Only tests import this package.
package sim
