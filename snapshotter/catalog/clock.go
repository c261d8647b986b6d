package catalog

import "time"

// ClockSlack is by how much two clocks may differ before one of them is taken to be wrong.
const ClockSlack = 5 * time.Minute

// Ahead says whether a time is still to come, by more than clocks may differ: whoever wrote it
// had a clock that was wrong, or the reader has.
func Ahead(at, now time.Time) bool { return at.Sub(now) > ClockSlack }
