package divergence

import "time"

const (
	// ActiveInterval is how often a log that is written to is attested at least.
	ActiveInterval = time.Second

	// LookInterval is how often to ask whether it is time.
	LookInterval = 200 * time.Millisecond

	// soonest is how soon a log is attested again. At the look before, which may come late, it is not time
	// yet; at the one after it would be too late.
	soonest = ActiveInterval - LookInterval - LookInterval/4

	// IdleInterval is how often one is that is not, so that newcomers have
	// something to compare with and silence means something.
	IdleInterval = 20 * time.Second
)

// Pace decides when an origin attests one log, and at which offset. Its zero value
// is that of a log that was not attested yet.
type Pace struct {
	begun bool
	at    int64 // offset attested last
	when  time.Time
}

// Due tells whether the log, folded up to next, is to be attested now, and at
// which offset. Every is the distance of the offsets at which all regions keep a
// mark for long.
//
// Such an offset is preferred whenever one was passed since the last attestation:
// a region that is far ahead of the origin's fold, or behind with attestations,
// has no other marks any more. Otherwise it is next itself, so a log that falls
// idle is attested once more, at its end.
func (p *Pace) Due(next, every int64, now time.Time) (offset int64, due bool) {
	switch {
	case !p.begun || next < p.at:
		return next, true
	case next == p.at:
		return next, now.Sub(p.when) >= IdleInterval
	case now.Sub(p.when) < soonest:
		return 0, false
	}
	if kept := next - next%every; kept > p.at {
		return kept, true
	}
	return next, true
}

// Attested notes that the log was attested at an offset.
func (p *Pace) Attested(offset int64, now time.Time) { *p = Pace{begun: true, at: offset, when: now} }
