package pipeline

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
)

func joinStreams(cfg *config.Config) string {
	var names []string
	for _, s := range slices.Sorted(maps.Keys(cfg.Streams)) {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

// Get implements api.Node: the view of one key as this region has it.
func (r *Region) Get(ctx context.Context, p api.GetParams) (*api.Entry, error) {
	if _, ok := r.cfg.Streams[p.Stream]; !ok {
		return nil, r.noStream(p.Stream)
	}
	if len(p.Key) == 0 {
		return nil, events.Errorf(events.KindInvalid, "get: want a key")
	}
	if err := r.await(ctx, p.Freshness); err != nil {
		return nil, err
	}
	// The context is taken first: it may claim less than what is read, never more. The
	// shard may move in between, to a node that has not come so far yet.
	seen, err := r.applied(ctx, p.Stream, r.partitionOf(p.Key))
	if err != nil {
		return nil, err
	}
	e, err := r.view(ctx, p.Stream, string(p.Key), seen.Join(p.AtLeast))
	if err != nil {
		return nil, err
	}
	if !e.Exists {
		return nil, events.Errorf(events.KindNotFound, "stream %s of %s has no key %q", p.Stream, r.cfg.Region, p.Key)
	}
	entry := toEntry(e)
	entry.Context = seen
	return &entry, nil
}

// Scan implements api.Node.
func (r *Region) Scan(ctx context.Context, p api.ScanParams) (*api.ScanResult, error) {
	if _, ok := r.cfg.Streams[p.Stream]; !ok {
		return nil, r.noStream(p.Stream)
	}
	limit := cmp.Or(p.Limit, api.DefaultScanEntries)
	if limit < 1 || limit > api.MaxScanEntries {
		return nil, events.Errorf(events.KindInvalid, "scan: limit %d: want 1 to %d", limit, api.MaxScanEntries)
	}
	if err := r.await(ctx, p.Freshness); err != nil {
		return nil, err
	}
	seen, err := r.appliedAll(ctx, p.Stream)
	if err != nil {
		return nil, err
	}
	result := &api.ScanResult{Entries: []api.Entry{}, Context: seen}
	atLeast, size := seen.Join(p.AtLeast), 0
	for after := string(p.After); ; {
		// One more than is wanted tells whether there are more.
		entries, last, more, err := r.views(ctx, p.Stream, string(p.Prefix), after, limit+1-len(result.Entries), atLeast)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if len(result.Entries) == limit || size > api.MaxScanBytes {
				result.More = true
				return result, nil
			}
			result.Entries = append(result.Entries, toEntry(e))
			size += len(e.Key) + len(e.Value)
		}
		if !more {
			return result, nil
		}
		after = last
	}
}

func toEntry(e projections.Entry) api.Entry {
	entry := api.Entry{
		Stream: e.Stream, Key: []byte(e.Key), Value: e.Value,
		ContentType: e.ContentType, Type: e.Type, Clock: e.Clock, Position: e.Position,
	}
	for _, s := range e.Siblings {
		entry.Siblings = append(entry.Siblings, api.Sibling{
			Value: s.Value, ContentType: s.ContentType, Type: s.Type, Clock: s.Clock, Position: s.Position,
		})
	}
	return entry
}
