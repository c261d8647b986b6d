package mapping

import (
	"fmt"
	"math"
	"slices"
)

// Run says that from source offset Source on, the records follow each other
// without a hole, the first of them at offset Dest of the mirror. It ends where the
// next run begins.
type Run struct {
	Source int64 // offset in the log
	Dest   int64 // offset in the mirror
}

// hole is how many more offsets of the log than of the mirror lie before the run.
func (r Run) hole() int64 { return r.Source - r.Dest }

func (r Run) String() string { return fmt.Sprintf("%d→%d", r.Source, r.Dest) }

// Map is the runs of one partition, strictly increasing in both offsets. The
// zero value is empty and stands for the identity: a log without holes from its
// offset 0 on.
type Map struct {
	runs Runs
}

// New makes a map of runs.
func New(runs ...Run) (*Map, error) {
	m := new(Map)
	for _, r := range runs {
		if err := m.Append(r); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Append adds a run after the last one. A run that merely continues the last one
// changes nothing. The first run may begin anywhere: a mirror may have records from
// before its log was begun anew. Every other one has to leave a hole in the log of
// one offset at least.
func (m *Map) Append(r Run) error {
	if r.Source < 0 || r.Dest < 0 {
		return fmt.Errorf("run %s has a negative offset", r)
	}
	if len(m.runs) == 0 {
		m.runs = append(m.runs, r)
		return nil
	}
	last := m.runs[len(m.runs)-1]
	switch {
	case r.Source <= last.Source || r.Dest <= last.Dest:
		if r == last {
			return nil
		}
		return fmt.Errorf("run %s does not come after the last one, %s", r, last)
	case r.hole() == last.hole():
		return nil
	case r.hole() < last.hole():
		return fmt.Errorf("run %s after %s: the mirror would have more records than its log", r, last)
	}
	m.runs = append(m.runs, r)
	return nil
}

// Truncate keeps the first n runs. Clones keep them all.
func (m *Map) Truncate(n int) error {
	if n < 0 || n > len(m.runs) {
		return fmt.Errorf("keep %d of %d runs", n, len(m.runs))
	}
	m.runs = slices.Clip(m.runs[:n])
	return nil
}

// Runs are the runs in order. They must not be changed.
func (m *Map) Runs() Runs { return slices.Clip(m.runs) }

// Len is the number of runs.
func (m *Map) Len() int { return len(m.runs) }

// Clone is the map as it is now. It shares memory with m, at no cost.
func (m *Map) Clone() *Map { return &Map{runs: m.Runs()} }

// Identity tells whether offsets in the mirror are the log's: the map is empty, or
// has the one run 0→0.
func (m *Map) Identity() bool {
	return len(m.runs) == 0 || len(m.runs) == 1 && m.runs[0] == Run{}
}

// identity is what an empty map stands for.
var identity = Runs{{}}

func (m *Map) effective() Runs {
	if len(m.runs) == 0 {
		return identity
	}
	return m.runs
}

// Dest translates the next source offset to read into the mirror's: the smallest
// offset of the mirror whose record's source offset is at least source. The mirror's
// end is the limit: ok is false, and dest the end, when source lies past what the
// mirror holds. Where it will be is not known then, because the last run may still end
// before it.
func (m *Map) Dest(source, end int64) (dest int64, ok bool) {
	runs := m.effective()
	next := after(runs, func(r Run) int64 { return r.Source }, source)
	if next == 0 {
		dest = runs[0].Dest
	} else {
		r := runs[next-1]
		dest = r.Dest + min(source-r.Source, math.MaxInt64-r.Dest)
		if next < len(runs) {
			dest = min(dest, runs[next].Dest)
		}
	}
	return min(dest, end), dest <= end
}

// Source is the source offset of the record at offset dest of the mirror. For the
// mirror's end it is where to fetch next. ok is false before the first run.
func (m *Map) Source(dest int64) (source int64, ok bool) {
	runs := m.effective()
	next := after(runs, func(r Run) int64 { return r.Dest }, dest)
	if next == 0 {
		return 0, false
	}
	r := runs[next-1]
	return r.Source + min(dest-r.Dest, math.MaxInt64-r.Source), true
}

// Cut is the runs that cover the mirror's offsets from from (included) to to
// (excluded), clipped so that none begins before from.
func (m *Map) Cut(from, to int64) Runs {
	if to <= from {
		return nil
	}
	runs := m.effective()
	first := max(after(runs, func(r Run) int64 { return r.Dest }, from)-1, 0)
	last := after(runs, func(r Run) int64 { return r.Dest }, to-1)
	if last <= first {
		return nil
	}
	cut := slices.Clone(runs[first:last])
	if ahead := from - cut[0].Dest; ahead > 0 {
		cut[0] = Run{Source: cut[0].Source + ahead, Dest: from}
	}
	return cut
}

// after is the index of the first run that begins after an offset.
func after(runs Runs, of func(Run) int64, offset int64) int {
	if offset == math.MaxInt64 {
		return len(runs)
	}
	i, _ := slices.BinarySearchFunc(runs, offset+1, func(r Run, o int64) int {
		switch begin := of(r); {
		case begin < o:
			return -1
		case begin > o:
			return 1
		}
		return 0
	})
	return i
}
