package timeline

import (
	"context"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// Groups names the newest backup with offsets of consumer groups that is not further than a
// vector, of the logs that are wanted; empty: there is none.
func (t *Timeline) Groups(ctx context.Context, vector events.Vector, wanted func(events.Log) bool) (id string, err error) {
	shards, err := t.shards(Request{})
	if err != nil {
		return "", err
	}
	i, err := t.newestBackup(ctx, func(m *format.Manifest) bool { _, is := ahead(m, vector, shards, wanted); return !is })
	if err != nil {
		return "", err
	}
	for m, err := range t.backwards(ctx, i) {
		if err != nil {
			return "", err
		}
		if m.Groups != nil {
			return m.ID, nil
		}
	}
	return "", nil
}
