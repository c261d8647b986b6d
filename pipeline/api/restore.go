package api

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// RestoreNode is what the API serves of restores.
type RestoreNode interface {
	PlanRestore(ctx context.Context, p PlanRestoreParams) (*timeline.Plan, error)
	Restore(ctx context.Context, p RestoreParams) (*Restored, error)
	RestoreShards(ctx context.Context, p RestoreShardsParams) (*RestoringShards, error)
	RestoreKeys(ctx context.Context, p RestoreKeysParams) (*RestoredKeys, error)
}

// PlanRestoreParams ask how the region could be brought back to where it was.
type PlanRestoreParams struct {
	Request timeline.Request `json:"request"`
}

// RestoreParams ask for a point to be restored beside the running state, into the node's
// data directory under restores/Name.
type RestoreParams struct {
	Backup  string           `json:"backup,omitempty"` // id: short for a request of this backup
	Request timeline.Request `json:"request,omitzero"` // zero: the newest
	Name    string           `json:"name"`             // letters, digits, dashes
	Anew    bool             `json:"anew,omitempty"`   // forget what a restore that was broken off has done

	// AcceptDiverged takes a state also if it is not the one that other regions have attested.
	AcceptDiverged bool `json:"accept_diverged,omitempty"`
}

// Restored says what a restore did and proved.
type Restored struct {
	Region   events.Region            `json:"region"`
	Software string                   `json:"software"`
	Target   string                   `json:"target"`            // as it was asked for
	Vector   events.Vector            `json:"vector"`            // that it meant
	Streams  []events.Stream          `json:"streams,omitempty"` // none: all
	Shards   []int32                  `json:"shards"`
	Merge    map[events.Stream]string `json:"merge"`
	Lineage  string                   `json:"lineage"`
	Dir      string                   `json:"dir"`

	Backup  string        `json:"backup"`           // that it began with; empty: with nothing
	Created time.Time     `json:"created,omitzero"` // of that backup
	From    events.Vector `json:"from"`             // of that backup
	Pinned  bool          `json:"pinned"`           // the backup, against deletion meanwhile; false: the bucket may only be read
	Tables  int           `json:"tables"`           // of that backup
	Bytes   int64         `json:"bytes"`            // of those tables

	Replayed restore.Replayed `json:"replayed"` // of segments
	Resumed  bool             `json:"resumed"`  // an earlier run had done a part of it; what it replayed is counted only where a shard was done
	Lacks    []string         `json:"lacks"`    // what is not there, as far as is known

	Attested   *Agreement `json:"attested,omitempty"`   // how it compares with what other regions have attested; nil: it was not compared
	Unattested string     `json:"unattested,omitempty"` // why that could not be had

	Digest   events.Digest     `json:"digest"` // over all logs, recomputed from what was restored
	States   []events.LogState `json:"states"`
	Began    time.Time         `json:"began"`
	Served   time.Time         `json:"served,omitzero"`  // when it could be, out of the bucket, before it was here; States are then those of each shard when it was proved
	Duration float64           `json:"duration_seconds"` // until it was proved
}

// PlanRestore asks how the node's region could be brought back to where it was.
func (c *Client) PlanRestore(ctx context.Context, p PlanRestoreParams) (*timeline.Plan, error) {
	return call[timeline.Plan](ctx, c, "restore.plan", p)
}

// Restore restores beside the running state.
func (c *Client) Restore(ctx context.Context, p RestoreParams) (*Restored, error) {
	return call[Restored](ctx, c, "restore.run", p)
}

// Text is the report for people.
func (r *Restored) Text() string {
	var b strings.Builder
	line := func(name, text string, args ...any) { fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(text, args...)) }
	line("region", "%s", r.Region)
	line("target", "%s", r.Target)
	line("vector", "%s", r.Vector)
	if r.Backup == "" {
		line("begun with", "nothing: all of it is archived")
	} else {
		line("begun with", "backup %s of %s: %d tables, %d bytes", r.Backup, r.Created.Format(time.RFC3339), r.Tables, r.Bytes)
	}
	line("replayed", "%d records of %d segments", r.Replayed.Records, r.Replayed.Segments)
	if r.Replayed.Segments > 0 {
		line("compared", "%d chains and %d digests that the region itself had, all equal", r.Replayed.Chains, r.Replayed.Marks)
	}
	line("attested", "compared with what other regions have attested it %s", r.AttestedText())
	line("digest", "%s, recomputed from what is at rest", r.Digest)
	line("lineage", "%s", r.Lineage)
	if !r.Served.IsZero() {
		line("served", "out of the bucket, from %s on", r.Served.Format(time.RFC3339))
	}
	line("took", "%.2f s from %s, by %s", r.Duration, r.Began.Format(time.RFC3339), r.Software)
	for _, l := range r.Lacks {
		line("lacks", "%s", l)
	}
	b.WriteString("\n")
	for _, st := range r.States {
		fmt.Fprintf(&b, "%s at offset %d: chain %s, digest %s, %d keys, %d bytes, %d events, %d parked\n",
			st.Log, st.Next, st.Chain, st.Digest, st.Keys, st.Bytes, st.Events, st.Parked)
	}
	if r.Attested != nil {
		for _, m := range r.Attested.Equal {
			fmt.Fprintf(&b, "%s at offset %d: its origin has attested chain %s, digest %s, which are equal\n", m.Log, m.Mark.Next, m.Mark.Chain, m.Mark.Digest)
		}
	}
	return b.String()
}

// AttestedText says how the state compares with what other regions have attested. A state that was backed up while
// the region had diverged proves itself: what else is compared is the region's own word.
func (r *Restored) AttestedText() string { return AttestedText(r.Attested, r.Unattested) }

// AttestedText is an agreement for people, or why there is none.
func AttestedText(g *Agreement, unattested string) string {
	if g != nil {
		return g.String()
	}
	return "is unknown: " + cmp.Or(unattested, "nobody was asked")
}
