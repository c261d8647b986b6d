package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
)

// await waits until this region has folded what a read asks for, or says which log
// is how far behind.
func (r *Region) await(ctx context.Context, f api.Freshness) error {
	if f.TimeoutSeconds < 0 || f.TimeoutSeconds > api.MaxWait.Seconds() {
		return events.Errorf(events.KindInvalid, "timeout of %g seconds: want 0 (for %s) to %g", f.TimeoutSeconds, api.DefaultWait, api.MaxWait.Seconds())
	}
	if len(f.AtLeast) == 0 {
		return nil
	}
	if err := r.checkCut(ctx, f.AtLeast); err != nil {
		return err
	}
	wait := time.Duration(f.TimeoutSeconds * float64(time.Second))
	if wait == 0 {
		wait = api.DefaultWait
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := api.Aside(ctx, func() error { return r.awaitCut(waiting, f.AtLeast) })
	if err == nil || errors.Is(err, api.ErrBusy) {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var behind *projections.BehindError
	if errors.As(err, &behind) && errors.Is(behind.Err, context.DeadlineExceeded) {
		behind.Err = fmt.Errorf("waited for %s", wait)
	}
	return events.Errorf(events.KindNotReady, "%s is behind: %w", r.cfg.Region, err)
}

// Outcome implements api.Node.
func (r *Region) Outcome(ctx context.Context, p api.OutcomeParams) (*api.Outcome, error) {
	cut := events.Vector{p.Position.Log: p.Position.Offset + 1}
	if err := r.await(ctx, api.Freshness{AtLeast: cut, TimeoutSeconds: p.TimeoutSeconds}); err != nil {
		return nil, err
	}
	reasons, err := r.parkedAt(ctx, []events.Position{p.Position}, cut)
	if err != nil {
		return nil, err
	}
	return &api.Outcome{Parked: reasons[0]}, nil
}

// checkCut refuses a cut through logs that are none of this region's: it would
// never be reached.
func (r *Region) checkCut(ctx context.Context, cut events.Vector) error {
	known := map[config.Route]bool{}
	for _, rt := range r.cfg.Routes() {
		known[rt] = true
	}
	for _, p := range cut.Positions() {
		if known[config.Route{Origin: p.Origin, Stream: p.Stream}] && p.Partition < r.cfg.Partitions {
			continue
		}
		if have, err := r.applied(ctx, p.Stream, p.Partition); err == nil && have[p.Log] >= p.Offset {
			continue // of an incarnation that is over
		}
		return events.Errorf(events.KindInvalid, "at least %s: %s has no such log", p, r.cfg.Region)
	}
	return nil
}

// awaitCut waits until the shards have folded everything before a cut. One that
// cannot come to it ends the waiting for the others.
func (r *Region) awaitCut(ctx context.Context, cut events.Vector) error {
	partitions := map[int32]bool{}
	for log := range cut {
		partitions[log.Partition] = true
	}
	g, ctx := errgroup.WithContext(ctx)
	for p := range partitions {
		g.Go(func() error { return r.awaitShard(ctx, p, cut) })
	}
	return g.Wait()
}
