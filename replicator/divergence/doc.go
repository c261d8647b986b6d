// Package divergence finds out whether regions that have folded the same records
// hold the same state.
//
// An origin attests its logs: "my log at offset N has chain hash C, and its fold
// has digest D". Every other region remembers what its own fold of that log was at
// N, and a Judge compares the two. Unequal chains (LayerLog): the records differ, so
// the mirror is wrong. Equal chains and unequal digests (LayerFold): the records are
// the same and what was made of them is not.
//
// Nothing waits for a comparison and nothing is copied for it, and no region needs
// a third one. What could not be compared is Indeterminate and never counts as
// equal; a log that nobody attests is Indeterminate too, because which logs there
// are comes from the configuration.
//
// # Parts
//
//   - Attestation: the statement, and its record in the topic of that name.
//   - Pace: when an origin attests a log, and at which offset.
//   - Judge: compares, and says how every log stands.
//   - Stable: up to where every region has folded a log. Judge.Known: that, and what some region has.
//
// The package does no I/O, reads no clock and starts no goroutine: time and
// attestations are given to it, and it asks for marks through the interface Local.
// Nothing in it is safe for concurrent use. DESIGN.md says why it raises no false
// alarms, and where the descent to keys, repair and scrub will have their place.
package divergence
