package restore

import (
	"bytes"
	"fmt"
	"io"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// Groups are the offsets of consumer groups that go with a backup.
func (src Source) Groups(m *format.Manifest) ([]format.GroupOffset, error) {
	if m.Groups == nil {
		return nil, nil
	}
	r, err := src.Opener.Open(bytes.NewReader(m.Groups.Data), m.Groups.Keys)
	if err != nil {
		return nil, fmt.Errorf("consumer groups in backup %s: %w", m.ID, err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, events.Errorf(events.KindInconsistent, "consumer groups in backup %s: %w", m.ID, err)
	}
	offsets, err := format.DecodeGroups(text, m.Groups.Offsets)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", m.ID, err)
	}
	return offsets, nil
}
