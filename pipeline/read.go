package pipeline

import (
	"context"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// Get implements api.Node: the view of one key as this region has it.
func (r *Region) Get(ctx context.Context, p api.GetParams) (*api.Entry, error) {
	if err := r.cfg.CheckStream(p.Stream); err != nil {
		return nil, err
	}
	if len(p.Key) == 0 {
		return nil, events.Errorf(events.KindInvalid, "get: want a key")
	}
	if err := r.await(ctx, p.Freshness); err != nil {
		return nil, err
	}
	// The context is taken first: it may claim less than what is read, never more. The
	// shard may move in between, to a node that has not come so far yet.
	seen, err := r.applied(ctx, p.Stream, r.cfg.PartitionOf(p.Key))
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
	entry := api.EntryOf(e)
	entry.Context = seen
	return &entry, nil
}

// Scan implements api.Node.
func (r *Region) Scan(ctx context.Context, p api.ScanParams) (*api.ScanResult, error) {
	if err := r.cfg.CheckStream(p.Stream); err != nil {
		return nil, err
	}
	limit, err := api.Limit("scan", p.Limit, api.DefaultScanEntries, api.MaxScanEntries)
	if err != nil {
		return nil, err
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
			result.Entries = append(result.Entries, api.EntryOf(e))
			size += len(e.Key) + len(e.Value)
		}
		if !more {
			return result, nil
		}
		after = last
	}
}
