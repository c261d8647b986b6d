package mapping

import "slices"

// Drop removes the runs that begin behind the mirror's end: they were planned, and
// what they were for has not been written. One that begins at the end stays: it
// says where to go on.
func (m *Map) Drop(end int64) {
	keep := len(m.runs)
	for keep > 0 && m.runs[keep-1].Dest > end {
		keep--
	}
	m.runs = slices.Clip(m.runs[:keep])
}

// Begun is how many runs begin before an offset of the mirror.
func (m *Map) Begun(dest int64) int {
	return after(m.runs, func(r Run) int64 { return r.Dest }, dest-1)
}
