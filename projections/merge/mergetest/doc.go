// Package mergetest is the suite of laws that every merge rule passes: the
// package comment of merge as tests. Together with the rule goes its model: what
// the rule means, said again as naively as possible, over everything that was
// ever written of a key (those of the registered rules are Models). The suite draws what four origins in three regions
// wrote, into two partitions, with honest, stale and wrong contexts, lets regions
// receive it in any interleaving with repetitions, and compares.
//
//	func TestLaws(t *testing.T) {
//		mergetest.Suite{Rule: mine.Rule{}, Events: genEvents(), Model: model}.Run(t)
//	}
package mergetest
