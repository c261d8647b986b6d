package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/claims"
)

// Retention may take away of a log of the region what was read and is nothing to fold, such as the marker at its
// end, while no node has the shard open. The log then begins behind the state, which lacks nothing. What was read
// so far is in the group's offsets, and beside each where the state was then: a state that is there, or further,
// has all that counts up to the offset, whichever node has committed it and whoever folds. A state that is
// less far, as after a crash, does not.

// isOf reports whether a stretch bridges what is gone of a log: it goes from before where the log begins at least to
// there. One that ends behind the log is of another, or of one that was truncated.
func (s stretch) isOf(start, end int64) bool {
	return s.from < start && start <= s.to && s.to <= end
}

// emptied finds out, of those of the region's own logs that begin behind a vector, what is known to be nothing to
// fold before they do. It asks only if there are any.
func (b *beginnings) emptied(ctx context.Context, partition int32, vector, starts events.Vector) (passed, error) {
	gone := maps.Clone(starts)
	maps.DeleteFunc(gone, func(l events.Log, start int64) bool { return b.mirrors.IsMirror(l) || vector[l] >= start })
	if len(gone) == 0 {
		return nil, nil
	}
	read, err := b.committed(ctx, gone)
	if err != nil || len(read) == 0 {
		return nil, err
	}
	ends, err := b.topicOffsets(ctx, partition, "end", b.admin.ListEndOffsets) // after that, or more might be read than there is
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(read, func(l events.Log, s stretch) bool { return !s.isOf(gone[l], ends[l].N) })
	return read, nil
}

// committed asks the group how far logs were read where nothing was to be folded any more.
func (b *beginnings) committed(ctx context.Context, logs events.Vector) (passed, error) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	offsets, err := b.admin.FetchOffsets(ctx, b.cfg.Group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("how far group %s of %s has read: %w", b.cfg.Group, b.cfg.Region, err)
	}
	read := passed{}
	for l := range logs {
		o, ok := offsets.Lookup(b.cfg.TopicOf(l), l.Partition)
		if ok && o.Err != nil {
			return nil, fmt.Errorf("how far group %s of %s has read %s: %w", b.cfg.Group, b.cfg.Region, l, o.Err)
		}
		if place, ok := claims.Committed(l, o.Offset); ok {
			read[l] = stretch{place.State, place.Read}
		}
	}
	return read, nil
}

// readBefore is what a shard that is opened need not read, and cannot any more.
func (b *beginnings) readBefore(ctx context.Context, partition int32, vector events.Vector) (passed, error) {
	found, err := b.topicOffsets(ctx, partition, "begin", b.admin.ListStartOffsets)
	if err != nil {
		return nil, err
	}
	starts := events.Vector{}
	for l, o := range found {
		starts[l] = o.N
	}
	return b.emptied(ctx, partition, vector, starts)
}
