package load

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// sender writes one region's batches, one at a time.
type sender struct {
	*loader
	region events.Region
	node   Node
	limits limits          // of the node
	turn   string          // under which batches are written
	landed map[string]bool // ids behind the noted progress that were in the logs when the turn began
}

func (s *sender) run(ctx context.Context, queue <-chan *batch) error {
	for b := range queue {
		if err := s.write(ctx, b); err != nil {
			return fmt.Errorf("region %s: %w", s.region, err)
		}
	}
	return ctx.Err()
}

// begin finds out where an earlier run came to, or notes where this one starts; and what the
// node takes.
func (s *sender) begin(ctx context.Context) error {
	s.mu.Lock()
	find := s.search
	if s.state.Regions[s.region] == nil {
		find = s.start
	}
	s.mu.Unlock()
	err := s.retry(ctx, func() error {
		res, err := find(ctx)
		if err == nil {
			s.limits = limitsOf(res.Limits, restBytes+len(s.cfg.Stream)+len(s.source))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("region %s: %w", s.region, err)
	}
	return nil
}

// start notes where the logs end before anything is written.
func (s *sender) start(ctx context.Context) (*api.LandedResult, error) {
	res, err := s.node.Landed(ctx, api.LandedParams{Stream: s.cfg.Stream, Source: s.source})
	if err != nil {
		return nil, err
	}
	s.turn = res.Turn
	return res, s.note(func(state *state) {
		state.Regions[s.region] = &regionsState{Ends: res.Ends}
	})
}

// search asks which events behind the noted progress are in the logs. No batch
// that was sent before can land after it.
func (s *sender) search(ctx context.Context) (*api.LandedResult, error) {
	s.mu.Lock()
	after := s.state.Regions[s.region].Ends.Clone()
	s.mu.Unlock()
	res, err := s.node.Landed(ctx, api.LandedParams{Stream: s.cfg.Stream, Source: s.source, After: &after})
	if err != nil {
		return nil, err
	}
	s.turn, s.landed = res.Turn, map[string]bool{}
	for _, id := range res.IDs {
		s.landed[id] = true
	}
	return res, nil
}

// write writes what is not written yet of a batch, and notes the progress.
func (s *sender) write(ctx context.Context, b *batch) error {
	if len(b.events) == 0 {
		return nil
	}
	s.mu.Lock()
	place, ends := s.state.Regions[s.region].Place, s.state.Regions[s.region].Ends.Clone()
	s.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(b.events), func(e api.LoadEvent) bool { return placeOf(e) <= place })
	fresh := len(left)
	asked := false
	err := s.retry(ctx, func() error {
		if asked { // the last try failed: some of it may have been written
			if _, err := s.search(ctx); err != nil {
				return err
			}
		}
		left = slices.DeleteFunc(left, func(e api.LoadEvent) bool { return s.landed[e.ID] })
		if len(left) == 0 {
			return nil
		}
		asked = true
		res, err := s.node.Load(ctx, api.LoadParams{Stream: s.cfg.Stream, Source: s.source, Events: left, Turn: s.turn})
		if err != nil {
			return err
		}
		ends = ends.Join(res.Ends)
		return nil
	})
	if err != nil {
		return err
	}
	if s.cfg.Written != nil && fresh > 0 {
		s.cfg.Written(s.region, fresh)
	}
	return s.note(func(state *state) {
		rs := state.Regions[s.region]
		rs.Place, rs.Written, rs.Ends = max(place, placeOf(b.events[len(b.events)-1])), rs.Written+fresh, ends
		s.written[s.region] += fresh
	})
}

func placeOf(e api.LoadEvent) int {
	n, _ := strconv.Atoi(e.ID) // made by Itoa
	return n
}

func (s *sender) note(change func(*state)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.state)
	return s.state.save(s.cfg.Progress)
}

// retry tries until it works, the input is refused, or patience ends.
func (s *sender) retry(ctx context.Context, try func() error) error {
	pause := retryLeast
	deadline := time.Now().Add(s.cfg.Patience)
	for {
		err := try()
		kind := events.KindOf(err)
		if err == nil || kind == events.KindInvalid || kind == events.KindRefused || kind == events.KindNotFound {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().Add(pause).After(deadline) {
			return fmt.Errorf("%w; the same command goes on from here", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		pause = min(2*pause, retryMost)
	}
}
