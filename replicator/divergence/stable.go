package divergence

import "github.com/evenkeel/evenkeel/events"

// Stable is the cut that every region has folded: for each log the largest offset
// that all origins' attestations say they have applied. The attestations are the
// newest of each log. A log that some origin says nothing of is not in it.
//
// An event below the cut is known to whoever writes from now on, so it is no
// longer concurrent with anything new.
func Stable(origins []events.Origin, newest []Attestation) events.Vector {
	type family struct {
		stream    events.Stream
		partition int32
	}
	said := map[family]map[events.Origin]events.Context{}
	for _, a := range newest {
		f := family{a.Log.Stream, a.Log.Partition}
		if said[f] == nil {
			said[f] = map[events.Origin]events.Context{}
		}
		said[f][a.Log.Origin] = a.Applied
	}
	v := events.Vector{}
	for f, by := range said {
		for _, of := range origins {
			if next := leastNext(origins, by, of); next > 0 {
				v[events.Log{Origin: of, Stream: f.stream, Partition: f.partition}] = next
			}
		}
	}
	return v
}

// leastNext is the least offset of one origin's log that all say they have applied.
func leastNext(origins []events.Origin, by map[events.Origin]events.Context, of events.Origin) int64 {
	least := int64(-1)
	for _, o := range origins {
		applied, ok := by[o]
		if !ok {
			return 0
		}
		if next := applied.Next(of); least < 0 || next < least {
			least = next
		}
	}
	return least
}

// meet is the largest context that has seen nothing but what both have.
func meet(a, b events.Context) (both events.Context) {
	for _, s := range a {
		if s.Next = min(s.Next, b.Next(s.Origin)); s.Next > 0 {
			both = append(both, s)
		}
	}
	return both
}
