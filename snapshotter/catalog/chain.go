package catalog

import (
	"context"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Chain is what a backup consists of: a full, and the deltas up to the backup itself,
// which is the last.
type Chain []*format.Manifest

// LoadChain reads what a backup consists of, whose manifest has been read. A parent that
// is missing or does not fit is of kind events.KindInconsistent.
func LoadChain(ctx context.Context, bucket objstore.Reader, m *format.Manifest) (Chain, error) {
	chain, errs := ReadAll(ctx, bucket, m.Region, m.Parents, nil)
	for i, id := range m.Parents {
		err := errs[i]
		if events.KindOf(err) == events.KindNotFound {
			return nil, missingParent(ctx, bucket, m, id)
		}
		if err != nil {
			return nil, fmt.Errorf("backup %s builds on another: %w", m.ID, err)
		}
	}
	chain = append(chain, m)
	for i, m := range chain[1:] {
		if err := m.Follows(chain[i]); err != nil {
			return nil, err
		}
	}
	if chain[0].Kind == format.Delta {
		return nil, events.Errorf(events.KindInconsistent, "backup %s builds on %s as a full, which is none", m.ID, chain[0].ID)
	}
	return chain, nil
}

// missingParent tells a backup that was pruned from one that is damaged.
func missingParent(ctx context.Context, bucket objstore.Reader, m *format.Manifest, id string) error {
	plan, err := NewestPlan(ctx, bucket, m.Region)
	if err != nil {
		return err
	}
	if !plan.Has(m) {
		return NotFound(m.Region, m.ID)
	}
	return events.Errorf(events.KindInconsistent, "backup %s builds on %s, and object %s is missing", m.ID, id, format.ManifestName(m.Region, id))
}

// Newest is the backup itself.
func (c Chain) Newest() *format.Manifest { return c[len(c)-1] }

// Bytes is the size of all tables of all its parts.
func (c Chain) Bytes() (n int64) {
	for _, m := range c {
		n += m.Bytes()
	}
	return n
}

// StoredBytes is the size of all objects that hold them.
func (c Chain) StoredBytes() (n int64) {
	for _, m := range c {
		n += m.StoredBytes()
	}
	return n
}

// Layers are the tables of a shard: those of the full, and those of each delta above.
func (c Chain) Layers(partition int32) (layers [][]format.Table) {
	for _, m := range c {
		layers = append(layers, m.Shards[partition].Tables)
	}
	return layers
}
