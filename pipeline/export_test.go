package pipeline

import "github.com/evenkeel/evenkeel/events"

// LastSlot is lastSlot, for tests.
var LastSlot = lastSlot

// PruneSlot is pruneSlot, for tests.
var PruneSlot = pruneSlot

// HasSeen is hasSeen, for tests.
var HasSeen = hasSeen

// ForgetTouched has a region forget which keys were written below a vector.
func (r *Region) ForgetTouched(below events.Vector) {
	for p := range r.cfg.Partitions {
		r.touched.of(p).Forget(below)
	}
}
