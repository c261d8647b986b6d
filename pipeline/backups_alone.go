package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// StatusAlone is Status for whoever has no node to ask: with what the bucket itself tells of the
// continuous backup, and how the copies are. What the bucket lacks only a node knows.
func (b Backups) StatusAlone(ctx context.Context) (*api.BackupStatus, error) {
	s, err := b.Status(ctx)
	if err != nil {
		return nil, err
	}
	if s.Archive, err = b.archiveAlone(ctx); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(b.Copies)) {
		seen := api.CopyStatus{Copy: name, Began: s.Checked, DrillEvery: copyTurn(b.Config.Backup, len(b.Copies)).Seconds()}
		err := b.lookAtCopy(ctx, b.Copies[name], nil, &seen)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			seen.Error = err.Error()
		}
		s.Copies = append(s.Copies, seen)
	}
	return s, nil
}

// archiveAlone says of each stream when the newest segments with an event of it were closed, as
// far as the newest one of each shard tells. One that cannot be read takes nothing from what the others tell.
func (b Backups) archiveAlone(ctx context.Context) ([]api.ArchivePoint, error) {
	unknown := "nobody says where the logs end: ask a node (without --config); how far they are archived: evenkeel backup list"
	points := []api.ArchivePoint{}
	limits := b.Config.SegmentLimits()
	if limits == nil {
		return points, nil
	}
	closed, unread := b.newestSegments(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(unread) > 0 {
		unknown += fmt.Sprintf("; of %d shards not even the newest segment can be read: %v", len(unread), unread[0])
	}
	for _, stream := range slices.Sorted(maps.Keys(limits)) {
		points = append(points, api.ArchivePoint{Stream: stream, Limit: limits[stream].Seconds(), Newest: closed[stream], Error: unknown})
	}
	return points, nil
}

// newestSegments tells when the newest segments of all shards were closed, by the streams that they have
// events of, and what could not be read.
func (b Backups) newestSegments(ctx context.Context) (closed map[events.Stream]time.Time, unread []error) {
	closed = map[events.Stream]time.Time{}
	shards, err := segment.Shards(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return closed, []error{err}
	}
	for _, shard := range shards {
		newest, err := segment.Newest(ctx, b.Bucket, b.Config.Region, shard)
		if err != nil {
			unread = append(unread, err)
		}
		if newest == nil {
			continue
		}
		for _, part := range newest.Parts {
			if stream := part.Log.Stream; newest.Created.After(closed[stream]) {
				closed[stream] = newest.Created
			}
		}
	}
	return closed, unread
}
