package api

import (
	"cmp"
	"context"
	"strconv"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/replicator"
)

// Software names this program in statuses and manifests.
const Software = "evenkeel 0.1.0"

// Node is what the API serves.
type Node interface {
	Put(ctx context.Context, p PutParams) (*PutResult, error)
	Load(ctx context.Context, p LoadParams) (*LoadResult, error)
	Landed(ctx context.Context, p LandedParams) (*LandedResult, error)
	Outcome(ctx context.Context, p OutcomeParams) (*Outcome, error)
	Get(ctx context.Context, p GetParams) (*Entry, error)
	Scan(ctx context.Context, p ScanParams) (*ScanResult, error)

	// Watch emits changes until the context ends, or the node ends it with an error.
	// The first change has a context alone. An error of emit ends it too.
	Watch(ctx context.Context, p WatchParams, emit func(Change) error) error

	History(ctx context.Context, p HistoryParams) (*HistoryPart, error)
	Status(ctx context.Context) (*Status, error)
	Lag(ctx context.Context) (*Lag, error)
	CreateBackup(ctx context.Context) (*Backup, error)
	RestoreNode
	BackupsNode
	DrillsNode
	LinksNode
	ModelsNode
	CheckNode
	PeerNode

	// Ready is nil if the node can serve, else says why not.
	Ready(ctx context.Context) error
}

// PutParams ask for one event to be written. A null value deletes the key.
type PutParams struct {
	Stream      events.Stream `json:"stream"`
	Key         Bytes         `json:"key"`
	Value       Bytes         `json:"value"`
	ContentType string        `json:"content_type,omitempty"`
	Type        string        `json:"type,omitempty"` // CloudEvents type; empty: an opaque put or delete

	// Context is what the writer had read: that of the answer of a get or a scan. It
	// may not claim more than the node has. nil: the writer is taken to know all that
	// the node has.
	Context *events.Vector `json:"context,omitempty"`
}

// PutResult says where the event was written. It is acknowledged by all
// in-sync replicas of the region's log.
type PutResult struct {
	Position events.Position `json:"position"`
	Clock    events.HLC      `json:"clock"`
	ID       string          `json:"id"`

	// AtLeast lets a read, in any region, wait for this event. It is no context: the
	// writer may not have seen what was written just before.
	AtLeast events.Vector `json:"at_least"`
}

// OutcomeParams ask what the node's region has made of an event that was written. The
// call waits until the region has folded its log so far, as a read with at_least does.
type OutcomeParams struct {
	Position events.Position `json:"position"`

	// TimeoutSeconds is how long it waits, at most MaxWait; 0: DefaultWait.
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"`
}

// Outcome is what has become of an event. What one region has made of it they all make.
type Outcome struct {
	Parked string `json:"parked,omitempty"` // why it was set aside, and has no effect; empty: it was not
}

// LoadParams ask for a batch of events to be written in order. One batch of a
// source at a time: a later batch is sent when the one before is answered.
type LoadParams struct {
	Stream events.Stream `json:"stream"`
	Source string        `json:"source"` // CloudEvents source: the load
	Events []LoadEvent   `json:"events"`

	// Turn, if not empty, is that of the newest LandedResult of the source. Under
	// another one the batch is refused as not ready: somebody has asked since what
	// has landed, and was told that this batch has not.
	Turn string `json:"turn,omitempty"`
}

// LoadEvent is one event of a load.
type LoadEvent struct {
	ID          string      `json:"id"` // unique within the source
	Key         Bytes       `json:"key"`
	Value       Bytes       `json:"value"`           // null deletes
	Clock       *events.HLC `json:"clock,omitempty"` // missing: the node's own
	ContentType string      `json:"content_type,omitempty"`
}

// LoadResult says up to where the logs reach after the batch.
type LoadResult struct {
	Written int           `json:"written"`
	Ends    events.Vector `json:"ends"`
}

// LandedParams ask which events of a source are in the region's logs of a
// stream, from the cut After on. It waits for a batch of that source that is
// still being written. Without After nothing is searched; only the ends of the
// logs are told.
type LandedParams struct {
	Stream events.Stream  `json:"stream"`
	Source string         `json:"source"`
	After  *events.Vector `json:"after"`
}

// LandedResult are the ids found, the ends of the logs, the turn under which batches
// can be written from now on, and what they may be.
type LandedResult struct {
	IDs    []string      `json:"ids"`
	Ends   events.Vector `json:"ends"`
	Turn   string        `json:"turn"`
	Limits *LoadLimits   `json:"limits,omitempty"` // nil: the node is of an earlier version
}

// LoadLimits are what a node takes: it refuses a whole batch with an event beyond them.
type LoadLimits struct {
	MaxValueBytes       int64   `json:"max_value_bytes"`
	MaxClockSkewSeconds float64 `json:"max_clock_skew_seconds"`
	MaxBodyBytes        int64   `json:"max_body_bytes"` // of a request
}

// GetParams name a key.
type GetParams struct {
	Stream events.Stream `json:"stream"`
	Key    Bytes         `json:"key"`
	Freshness
}

// Freshness is how new the state must be that a read answers from.
type Freshness struct {
	// AtLeast is a cut that must have been folded: of a PutResult, of an answer's
	// context, or of a status. The call waits for it.
	AtLeast events.Vector `json:"at_least,omitempty"`

	// TimeoutSeconds is how long it waits, at most MaxWait; 0: DefaultWait.
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"`
}

// How long reads wait for what they ask for.
const (
	DefaultWait = 10 * time.Second
	MaxWait     = 60 * time.Second
)

// Entry is a key and its view.
type Entry struct {
	Stream      events.Stream   `json:"stream"`
	Key         Bytes           `json:"key"`
	Value       Bytes           `json:"value"`
	ContentType string          `json:"content_type,omitempty"`
	Type        string          `json:"type,omitempty"`
	Clock       events.HLC      `json:"clock"`
	Position    events.Position `json:"position"` // of the event that the value is of

	// Siblings are the values of writers who did not know of each other, if there are
	// several; Value is one of them. A resolve event whose context is this answer's
	// replaces them all.
	Siblings []Sibling `json:"siblings,omitempty"`

	// Context says up to where each log of the key's partition had been folded when
	// the key was read. Only of get; a scan has one for all its entries.
	Context events.Vector `json:"context,omitempty"`
}

// Sibling is one of several concurrent values of a key.
type Sibling struct {
	Value       Bytes           `json:"value"`
	ContentType string          `json:"content_type,omitempty"`
	Type        string          `json:"type,omitempty"`
	Clock       events.HLC      `json:"clock"`
	Position    events.Position `json:"position"`
}

// EntryOf is what a shard has of a key, as the API tells it.
func EntryOf(e projections.Entry) Entry {
	entry := Entry{
		Stream: e.Stream, Key: []byte(e.Key), Value: e.Value,
		ContentType: e.ContentType, Type: e.Type, Clock: e.Clock, Position: e.Position,
	}
	for _, s := range e.Siblings {
		entry.Siblings = append(entry.Siblings, Sibling{
			Value: s.Value, ContentType: s.ContentType, Type: s.Type, Clock: s.Clock, Position: s.Position,
		})
	}
	return entry
}

// ScanParams ask for the keys of a stream, in order.
type ScanParams struct {
	Stream events.Stream `json:"stream"`
	Prefix Bytes         `json:"prefix,omitempty"`
	After  Bytes         `json:"after,omitempty"` // begin behind this key
	Limit  int           `json:"limit,omitempty"` // 1 to MaxScanEntries; 0: DefaultScanEntries
	Freshness
}

// Limits of one scan's answer; a longer one is continued with After.
const (
	DefaultScanEntries = 1_000
	MaxScanEntries     = 10_000
	MaxScanBytes       = 8 << 20
)

// Limit is how many entries are asked for, byDefault if none are, or why that is not possible.
func Limit(what string, asked, byDefault, most int) (int, error) {
	limit := cmp.Or(asked, byDefault)
	if limit < 1 || limit > most {
		return 0, events.Errorf(events.KindInvalid, "%s: limit %d: want 1 to %d", what, limit, most)
	}
	return limit, nil
}

// ScanResult is one page of a scan.
type ScanResult struct {
	Entries []Entry       `json:"entries"`
	More    bool          `json:"more"`    // ask on with After = the last key
	Context events.Vector `json:"context"` // up to where each log of the stream had been folded, at least
}

// Status is what a region is and does, as one of its nodes sees it. Of what no node
// answers for nothing is known, and so sums over it are null.
type Status struct {
	Region   events.Region            `json:"region"`
	Node     string                   `json:"node"` // that was asked
	Software string                   `json:"software"`
	Started  time.Time                `json:"started"`
	Ready    bool                     `json:"ready"`
	Problems []string                 `json:"problems"` // why it is not, and what else needs an eye
	Events   *int64                   `json:"events"`   // folded, of all origins
	Keys     *int64                   `json:"keys"`     // slices that hold something
	Parked   *int64                   `json:"parked"`
	Digest   *events.Digest           `json:"digest"`
	Nodes    []NodeStatus             `json:"nodes"`
	Shards   []ShardStatus            `json:"shards"` // all of the region
	Logs     []events.LogState        `json:"logs"`   // of the shards that are known
	Links    []replicator.Status      `json:"links"`
	Examples []ParkedRecord           `json:"parked_records"` // the first few
	Regions  map[events.Region]string `json:"regions"`        // their APIs' addresses
	Backups  bool                     `json:"backups"`        // a bucket is configured
	Backup   *BackupStatus            `json:"backup"`         // as the node last read its bucket; null: not yet, or none
	Archive  []ArchivePoint           `json:"archive"`        // the continuous backup, by stream; empty: there is none
}

// Vector is the cut at which the region's state stands, as far as it is known.
func (s *Status) Vector() events.Vector { return events.VectorOf(s.Logs) }

// Known is a number that may not be known, and then -1.
func Known(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

// Combine does something with two values that may not be known; the result is not if either is not.
func Combine[T any](a, b *T, do func(T, T) T) *T {
	if a == nil || b == nil {
		return nil
	}
	sum := do(*a, *b)
	return &sum
}

// NodeStatus is a node of the region.
type NodeStatus struct {
	Node     string     `json:"node"`
	Address  string     `json:"address"`
	Error    string     `json:"error,omitempty"` // why it does not answer; empty: it does
	Ready    bool       `json:"ready"`
	Software string     `json:"software,omitempty"`
	Started  *time.Time `json:"started"` // null if it does not answer
	Shards   []int32    `json:"shards"`  // that are open on it
}

// ShardStatus is the state of one shard, from the node that owns it. What is not
// known is null.
type ShardStatus struct {
	Partition int32          `json:"partition"`
	Node      string         `json:"node"`  // that owns it; empty: none
	Epoch     events.Epoch   `json:"epoch"` // of its claim
	State     string         `json:"state"` // open, or why it is not known
	Began     string         `json:"began,omitempty"`
	Error     string         `json:"error,omitempty"`
	Lineage   string         `json:"lineage,omitempty"`
	Events    *int64         `json:"events"`
	Keys      *int64         `json:"keys"`
	Parked    *int64         `json:"parked"`
	Digest    *events.Digest `json:"digest"`
	Blocked   []string       `json:"blocked,omitempty"`
	Waits     string         `json:"waits,omitempty"`     // why folding waits; empty: it does not
	InPlace   *InPlace       `json:"in_place,omitempty"`  // nil: all of it is here
	Restoring *ShardRestore  `json:"restoring,omitempty"` // nil: it is not, or that is over
	Load      ShardLoad      `json:"load"`

	// Read is how far logs were read where that is further than the state, with nothing
	// to fold in between: over the marker that ends a transaction, say.
	Read events.Vector `json:"read,omitempty"`
}

// InPlace says that tables of a shard still lie in a backup, where they are read until they
// are here. Until then the shard's state is not proved.
type InPlace struct {
	Backup string `json:"backup"`
	Bytes  int64  `json:"bytes"`          // of all tables that were there at first
	Left   int64  `json:"left"`           // of those that are still; 0: the proof is under way
	Error  string `json:"error,omitzero"` // why they are not brought here at present
}

// What holds a shard up, in one word.
const (
	PaceKeepingUp = "keeping-up"
	PaceNetwork   = "network"   // it waits for Kafka
	PaceFold      = "fold"      // folding takes its time
	PacePebble    = "pebble"    // writing the state does
	PaceDiskFull  = "disk-full" // and it waits for room
	PaceBucket    = "bucket"    // it waits for the bucket, which still has a part of it, see InPlace
	PaceBlocked   = "blocked"   // a log has stopped, see Blocked
)

// ShardLoad says whether a shard keeps up with its logs and mirrors, and what its
// time went into since the node's start.
type ShardLoad struct {
	Pace                string  `json:"pace"`           // one of the words above, from the last seconds
	Behind              int64   `json:"behind_records"` // that were not fetched yet, as of the last fetches
	WaitSeconds         float64 `json:"wait_seconds"`   // for records
	FoldSeconds         float64 `json:"fold_seconds"`
	CommitSeconds       float64 `json:"commit_seconds"` // without stalls
	StallSeconds        float64 `json:"stall_seconds"`  // in which Pebble held commits up
	L0Sublevels         int     `json:"l0_sublevels"`   // of Pebble: 0 and 1 are good
	CompactionDebtBytes int64   `json:"compaction_debt_bytes"`
}

// ParkedRecord is a record that is no event: where and why, never what.
type ParkedRecord struct {
	Position events.Position `json:"position"`
	Reason   string          `json:"reason"`
}

// Lag is how far a region is behind: the state by asking its cluster at this
// moment, the mirrors as the links say.
type Lag struct {
	Region events.Region `json:"region"`
	Folds  []LagRow      `json:"folds"` // state behind the logs and mirrors of this region
	Links  []LinkLag     `json:"links"` // mirrors behind their logs
}

// LagRow is the lag of one log. What could not be measured is null, never 0.
type LagRow struct {
	Log     events.Log `json:"log"`
	End     *int64     `json:"end"`     // next offset to be written
	Next    *int64     `json:"next"`    // next offset to be read
	Records *int64     `json:"records"` // from Next on that can be read
	Open    *int64     `json:"open"`    // behind these, which nobody can read before a transaction ends
	Error   string     `json:"error,omitempty"`
}

// Behind sums up the lag of everything in records: a number, or "unknown" if
// any part of it could not be measured.
func (l *Lag) Behind() string {
	sum, known := l.sum()
	if !known {
		return "unknown"
	}
	return strconv.FormatInt(sum, 10)
}

// IsKnown reports whether it is known of all logs and links.
func (l *Lag) IsKnown() bool {
	_, known := l.sum()
	return known
}

func (l *Lag) sum() (sum int64, known bool) {
	all := make([]*int64, 0, len(l.Folds)+len(l.Links))
	for _, row := range l.Folds {
		all = append(all, row.Records)
	}
	for _, row := range l.Links {
		all = append(all, row.Records)
	}
	for _, n := range all {
		if n == nil {
			return 0, false
		}
		sum += *n
	}
	return sum, true
}
