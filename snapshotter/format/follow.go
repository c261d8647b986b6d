package format

import (
	"fmt"
	"maps"
	"slices"

	"github.com/evenkeel/evenkeel/events"
)

// Follows is nil if the manifest is that of a delta whose parent is the other: it builds
// on the same backups and on that one, its shards are the same, and none of its logs
// stands before where the parent has it. An error is of kind events.KindInconsistent.
func (m *Manifest) Follows(parent *Manifest) error {
	if err := m.follows(parent); err != nil {
		return events.Errorf(events.KindInconsistent, "backup %s does not build on %s: %w", m.ID, parent.ID, err)
	}
	return nil
}

func (m *Manifest) follows(parent *Manifest) error {
	switch {
	case !slices.Equal(m.Parents, parent.Path()):
		return fmt.Errorf("its parents are %q, the other's %q", m.Parents, parent.Parents)
	case m.Region != parent.Region:
		return fmt.Errorf("it is of region %s, the other of %s", m.Region, parent.Region)
	case !maps.Equal(m.Merge, parent.Merge):
		return fmt.Errorf("its merge rules are %v, the other's %v", m.Merge, parent.Merge)
	case len(m.Shards) != len(parent.Shards):
		return fmt.Errorf("it has %d shards, the other %d", len(m.Shards), len(parent.Shards))
	}
	for i, s := range m.Shards {
		if err := s.follows(parent.Shards[i]); err != nil {
			return fmt.Errorf("shard %d: %w", s.Partition, err)
		}
	}
	return nil
}

func (s Shard) follows(parent Shard) error {
	byLog := map[events.Log]events.LogState{}
	for _, st := range s.States {
		byLog[st.Log] = st
	}
	for _, was := range parent.States {
		is := byLog[was.Log]
		if was.Chain == (events.Digest{}) {
			is.Chain = was.Chain // not known then
		}
		if is.Next < was.Next || is.Next == was.Next && is != was {
			return fmt.Errorf("%s stands at %d with digest %s, and stood at %d with %s", was.Log, is.Next, is.Digest, was.Next, was.Digest)
		}
	}
	return nil
}
