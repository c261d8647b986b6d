// Package fieldmap is the merge rule "fieldmap": a key holds an object of named
// fields, each merged by itself, so that writers in different regions who change
// different things do not undo each other's work. Sessions are the first use.
//
// # Operations
//
// A patch is JSON (content type JSON or none) and may have these members, all
// optional:
//
//	{"set":       {field: value},     any JSON value
//	 "unset":     [field],
//	 "increment": {field: integer},   64 bits, may be negative
//	 "add":       {field: [element]}, elements are strings, numbers, booleans, null
//	 "remove":    {field: [element]}}
//
// A field is used in one way within a patch; elements may be both removed and
// added. A put is a JSON object (content type JSON or none), or the protobuf
// payload of a type in package schemas, which becomes its JSON form: fields in
// lowerCamelCase, those with default values and those unknown to the contract
// left out. What the put's context covers (merge.Covered) goes away, then its
// members are set. A delete takes away what its context covers. Everything else
// has no meaning: append, resolve (there are no siblings to resolve), other
// members, other types, a name twice in one object, invalid UTF-8.
//
// # How fields merge
//
// A put or delete is a reset: of whatever origin, it takes away what has a dot (a
// position) that its context covers, and never what its writer had not seen.
//
//   - Registers (set, unset, members of a put): of those that no reset covers the
//     one with the largest effective clock counts, then the larger position (origin
//     first, then partition). If that is an unset, there is no value.
//   - Counters: each origin has a contribution, the sum of its increments since the
//     last reset in its own log that covered all of them. It counts unless a reset of
//     another origin covers its last increment. A counter's value is the sum of what
//     counts, of any size.
//   - Sets: an element is in if some origin's newest add of it is covered neither by
//     a reset nor by a remove of that element. So adds win over concurrent removes.
//
// The three kinds are kept apart. If one name is used as several, the view shows
// the set, else the counter, else the register: use a name in one way.
//
// Logs are not delivered in causal order: a reset or remove may arrive before what
// it had seen. So a slice remembers what the resets of its log and the removes of
// each element cover of other origins' logs. Of the own log it needs to remember
// nothing: what was covered is gone.
//
// An event's effective clock is at least one more than that of the event before
// it in its log. A view's clock, position and type are those of the newest event
// of the key, by effective clock, then position, whatever it did; so also where
// nothing is left. The view's value is one canonical JSON object with all fields:
// members sorted by their UTF-8 bytes, no space, strings with no escapes but \" \\
// \b \f \n \r \t and \u00xx for other control characters. Numbers keep their text:
// 1 and 1.0 are different elements. Sets are arrays, sorted by their elements'
// bytes.
//
// A burial leaves of a slice what hides something of others: its clock, its resets, remembered
// removes, and of registers that they are unset, each at the place and clock that it had.
//
// # What is surprising
//
// A writer that gives no context, of a bare record for one, has seen nothing of
// other origins: its put or delete takes away what its own origin wrote and nothing
// else. Who is to delete what another region wrote must say what it has seen.
//
// A counter is one contribution per origin. A reset in region B takes back A's
// contribution only as long as A does not increment again: A's next increment
// brings back all that A counted since its own last reset, because A's slice is a
// function of A's log alone. For an increment that was concurrent to the reset this is how
// embedded counters are elsewhere (Riak's): an increment beats a reset that had not
// seen it, and takes along what its origin had counted before. Baquero, Almeida and Lerche
// ("The problem with embedded CRDT counters and a solution", 2016) give each increment that
// others may have seen a place of its own instead; here any record of a log may have been
// seen by anybody, so that would be a place for every increment, for ever.
//
// An increment whose region knows of the reset must not bring anything back. Its writer sees
// to that by writing a delete before it which covers of A's own log what B's reset covers, and
// nothing else (Rule.Revives): it takes away only what does not count. Evenkeel's API
// does; producers that increment by themselves have to.
//
// What was buried does not count any more, whatever comes: an increment that was written without knowledge of the
// reset, and comes to its log only behind the burial, begins at 0, and an unset that goes away by
// itself (by a later reset that had not seen the value) leaves nothing to be seen again.
//
// What is covered by a context that claims more than there is goes away as soon as
// it is written. Contexts are what writers say, and nobody can check them.
//
// # What grows, and what bounds it
//
// A slice has the fields that its origin wrote since its own last reset that
// covered them; unset registers stay, because they hold down older values of other
// origins. It has one remembered remove for each element that was removed by
// writers who gave a context; such is dropped once a later reset of the same slice
// covers as much. Bounds of a slice: 1,024 fields, 4,096 elements and remembered
// removes in all, 4 MiB; of a name 256 bytes, of an element 1 KiB, of a payload 1 MiB and
// 32 levels; events.MaxContextOrigins other origins per context. An event that
// would go beyond is parked; a put or delete makes room.
//
// # A slice
//
// In the words of package codec:
//
//	1 byte    version, 1
//	1 byte    flags: 1 if it holds a value, a counter or an element
//	clock     effective, of the last event
//	offset    of the last event
//	text      type of the last event
//	context   joined from those of all resets, without the own origin
//	2 bytes   number of fields, big-endian
//	fields, ascending by name:
//	  text    name
//	  1 byte  kinds: 1 register, 2 counter, 4 set, or a sum of them
//	  register, if there is one:
//	    offset  of its event
//	    clock   effective
//	    text    value, canonical JSON; empty if unset
//	  counter, if there is one:
//	    offset  of the last increment
//	    signed  contribution
//	  set, if there is one:
//	    2 bytes  number of elements, big-endian, not 0
//	    elements, ascending by text:
//	      text     canonical JSON
//	      number   0, or 1 + offset of the newest add
//	      context  joined from those of all removes, without the own origin and
//	               without what the resets cover anyway; not empty if there is no add
package fieldmap
