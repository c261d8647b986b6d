package mapping

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Runs is a list of runs. Its JSON is [[source,dest],…].
type Runs []Run

// MarshalJSON writes pairs; no runs are an empty list.
func (rs Runs) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, r := range rs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendInt(b, r.Source, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, r.Dest, 10)
		b = append(b, ']')
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads pairs. It does not check that they make a map: New and Append do.
func (rs *Runs) UnmarshalJSON(b []byte) error {
	var pairs [][]int64
	if err := json.Unmarshal(b, &pairs); err != nil {
		return fmt.Errorf("runs: %w", err)
	}
	*rs = make(Runs, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return fmt.Errorf("run %d has %d numbers, want a source and a mirror offset", i, len(p))
		}
		(*rs)[i] = Run{Source: p[0], Dest: p[1]}
	}
	return nil
}
