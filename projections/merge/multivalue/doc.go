// Package multivalue is the merge rule "multivalue": a key holds every value
// whose writer no later writer knew of. Concurrent values stay side by side, as
// siblings, until a write whose context covers them all replaces them; a resolve
// is such a write, a put that says what it is for.
//
// It is the dotted version vectors of Preguiça, Baquero and others ("Dotted
// Version Vectors", 2010), with one slice per origin. A value's dot is its
// position. A put or resolve takes away what its context covers (merge.Covered)
// and adds its own value; a delete takes away and adds nothing; patch and append
// have no meaning. A value is in the view unless the context of some event, of
// whatever origin, covers its dot. Since logs are not delivered in causal order,
// an event may cover what has not arrived yet: so a slice remembers, for other
// origins, the join of the contexts of all its events.
//
// Several values in a view are its Siblings, ascending by position; its Value is
// that with the newest effective clock, then the larger position (origin first,
// then partition). A value's effective clock is at least one more than that of
// each value that it replaced in its own log, so that a replaced value never
// wins.
//
// Contexts speak of one partition. If producers put a key into different
// partitions of a log, what they wrote stays until it is replaced from the same
// partition.
//
// A writer that gives no context, of a bare record for one, has seen nothing of
// other origins: its put is a sibling of their values, and its delete leaves them.
//
// A burial takes the values away and leaves the context. If all values of all slices are covered, and the
// last event of each slice is known everywhere, the slices can go: what their contexts
// cover was written before what is known, so it is in the slices, or was; and a writer who
// did not know of them has a dot that no context covers, with them and without.
//
// # What grows
//
// A slice has one context entry for each other origin, up to
// events.MaxContextOrigins, and the values written at its origin that were not
// seen by its later writers: at most 64, and no second one beyond 64 MiB in all.
// An event that would go beyond has no meaning here and is parked; a resolve or a
// delete makes room. Writers that give no context, or one without their own
// origin, leave one value in a slice.
//
// A context that claims more than there is covers what is written later, too:
// contexts are what writers say, and nobody can check them.
//
// # A slice
//
// In the words of package codec:
//
//	1 byte    version, 1
//	offset    of the last event
//	context   joined from the contexts of all events, without the own origin:
//	          what they covered of the own log is gone
//	1 byte    number of values, up to 64
//	values, ascending by offset:
//	  offset  of the event
//	  clock   effective
//	  text    type
//	  text    content type
//	  text    value
package multivalue
