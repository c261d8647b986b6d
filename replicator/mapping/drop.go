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

// Replan is Drop, with another run for the mirror's end: what was planned there is
// not there any more.
func (m *Map) Replan(r Run) error {
	m.Drop(r.Dest)
	if last := len(m.runs) - 1; last >= 0 && m.runs[last].Dest == r.Dest {
		m.runs = slices.Clip(m.runs[:last])
	}
	return m.Append(r)
}
