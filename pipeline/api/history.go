package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// HistoryParams ask for the events of a key from the logs and mirrors of the node's
// region, and from the region's archive what these do not have any more, a stretch of them
// at a time.
type HistoryParams struct {
	Stream events.Stream `json:"stream"`
	Key    Bytes         `json:"key"`
	Since  *time.Time    `json:"since,omitempty"` // leave out what came before it; nil: nothing
	Until  *time.Time    `json:"until,omitempty"` // leave out what came after it; nil: nothing

	// Logs are those of the answer before, to go on from there; none: begin.
	Logs []HistoryLog `json:"logs,omitempty"`
}

// HistoryLog is how much of a log was looked at. Offsets are those of the origin.
type HistoryLog struct {
	Log   events.Log `json:"log"`
	Start int64      `json:"start"` // first offset that the region still has, in its log or in the archive
	From  int64      `json:"from"`  // first offset looked at
	Next  int64      `json:"next"`  // next offset to look at
	End   int64      `json:"end"`   // where the log ended when it was begun

	// What lies below Archived comes out of the archive, and Segment is the number of the
	// next segment to look at; the rest comes out of the log.
	Archived int64        `json:"archived,omitzero"`
	Segment  int64        `json:"segment,omitzero"`
	Gaps     []HistoryGap `json:"gaps,omitempty"` // what neither has
}

// HistoryGap are offsets of which nothing is known.
type HistoryGap struct {
	From int64  `json:"from"`
	To   int64  `json:"to"` // the first behind them
	Why  string `json:"why"`
}

// HistoryPart is what was found in a stretch: those of each log in order.
type HistoryPart struct {
	Events []HistoryEvent `json:"events"`
	Logs   []HistoryLog   `json:"logs"`
	Done   bool           `json:"done"` // everything up to the ends was looked at
}

// HistoryEvent is one event of a key, or a record of it that is none.
type HistoryEvent struct {
	Position    events.Position `json:"position"`
	Op          string          `json:"op"`
	Type        string          `json:"type,omitempty"`
	ID          string          `json:"id,omitempty"`
	Source      string          `json:"source,omitempty"`
	Clock       events.HLC      `json:"clock"`     // its writer's
	Effective   events.HLC      `json:"effective"` // what it counts as: later than those before it in its log, as far as these were looked at
	Context     string          `json:"context,omitempty"`
	Written     time.Time       `json:"written"` // the record's timestamp
	ContentType string          `json:"content_type,omitempty"`
	Value       Bytes           `json:"value"`
	Parked      string          `json:"parked,omitempty"` // why it has no effect
}

// History is all that was found out about a key.
type History struct {
	Stream events.Stream  `json:"stream"`
	Key    Bytes          `json:"key"`
	Events []HistoryEvent `json:"events"` // oldest first: by effective clock, then position

	// Omitted events are older than those and were left out for the limit.
	Omitted int          `json:"omitted"`
	Logs    []HistoryLog `json:"logs"`

	// Complete: nothing is missing from the logs' beginnings on, or of the time that was
	// asked for.
	Complete bool `json:"complete"`
}

// Lacks reports whether events may be missing that are not left out for the limit. Where there
// are gaps nobody knows how old what was in them is, so that the limit is no excuse.
func (h *History) Lacks() bool {
	return !h.Complete && h.Omitted == 0 || slices.ContainsFunc(h.Logs, func(l HistoryLog) bool { return len(l.Gaps) > 0 })
}

// Limits of a history that a client gathers; older events beyond them are left out.
const (
	DefaultHistoryEvents = 1_000
	MaxHistoryEvents     = 100_000
	maxHistoryBytes      = 128 << 20
)

// HistoryPart asks for a stretch of a key's history.
func (c *Client) HistoryPart(ctx context.Context, p HistoryParams) (*HistoryPart, error) {
	return call[HistoryPart](ctx, c, "history", p)
}

// History gathers the newest events of a key, at most limit. It tells progress how
// many offsets of how many were looked at.
func (c *Client) History(ctx context.Context, p HistoryParams, limit int, progress func(done, total int64)) (*History, error) {
	return GatherHistory(ctx, p, limit, progress, c.HistoryPart)
}

// GatherHistory is Client.History of parts that come from anywhere.
func GatherHistory(ctx context.Context, p HistoryParams, limit int, progress func(done, total int64), next func(context.Context, HistoryParams) (*HistoryPart, error)) (*History, error) {
	if limit < 1 || limit > MaxHistoryEvents {
		return nil, events.Errorf(events.KindInvalid, "history: limit %d: want 1 to %d", limit, MaxHistoryEvents)
	}
	g := gathered{limit: limit, last: map[events.Log]events.HLC{}}
	for {
		part, err := next(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, e := range part.Events {
			g.add(e)
		}
		var done, total int64
		for _, l := range part.Logs {
			done, total = done+l.Next-l.From, total+l.End-l.From
		}
		progress(done, total)
		if part.Done {
			g.prune(limit)
			return g.history(p, part.Logs), nil
		}
		p.Logs = part.Logs
	}
}

// gathered keeps the newest events of a key.
type gathered struct {
	limit   int
	events  []HistoryEvent
	bytes   int
	omitted int
	last    map[events.Log]events.HLC // effective clocks
}

func (g *gathered) add(e HistoryEvent) {
	log := e.Position.Log
	if e.Parked == "" {
		if last, ok := g.last[log]; ok {
			e.Effective = max(e.Clock, last.Next())
		}
		g.last[log] = e.Effective
	}
	g.events, g.bytes = append(g.events, e), g.bytes+len(e.Value)
	if len(g.events) > 2*g.limit || g.bytes > maxHistoryBytes {
		g.prune(g.limit)
	}
}

// prune sorts and leaves out the oldest.
func (g *gathered) prune(limit int) {
	slices.SortStableFunc(g.events, func(a, b HistoryEvent) int {
		return cmp.Or(cmp.Compare(a.Effective, b.Effective), a.Position.Compare(b.Position))
	})
	drop := max(0, len(g.events)-limit)
	for i, e := range g.events {
		if i >= drop && g.bytes <= maxHistoryBytes {
			break
		}
		drop, g.bytes = max(drop, i+1), g.bytes-len(e.Value)
	}
	g.omitted += drop
	g.events = slices.Delete(g.events, 0, drop)
}

func (g *gathered) history(p HistoryParams, logs []HistoryLog) *History {
	h := &History{Stream: p.Stream, Key: p.Key, Events: g.events, Omitted: g.omitted, Logs: logs, Complete: g.omitted == 0}
	if h.Events == nil {
		h.Events = []HistoryEvent{}
	}
	for _, l := range logs {
		h.Complete = h.Complete && len(l.Gaps) == 0 && (l.Start == 0 || p.Since != nil && l.From > l.Start)
	}
	return h
}
