package api

import (
	"context"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// RestoreShardsParams ask the owners of shards of the running region to give up their
// state, to begin with that of a backup, and to replay their logs from there.
type RestoreShardsParams struct {
	Request timeline.Request `json:"request,omitzero"` // without a target: the newest backup that is whole

	// AcceptDiverged takes a state also if it is not the one that other regions have attested.
	AcceptDiverged bool `json:"accept_diverged,omitempty"`
}

// RestoringShards are shards whose restore was begun, or goes on.
type RestoringShards struct {
	Shards []RestoringShard `json:"shards"`
}

// RestoringShard is one of them.
type RestoringShard struct {
	Partition int32  `json:"partition"`
	Node      string `json:"node"`
	ShardRestore
}

// What a shard that is restored is waiting for.
const (
	RestoreFetching  = "fetching"  // the new state is made; the old one serves, if it can
	RestoreOpening   = "opening"   // it is put in the place of the old one
	RestoreProving   = "proving"   // it serves, and is brought here out of its backup
	RestoreReplaying = "replaying" // it is here and proved, and not yet where the old one was
	RestoreFailed    = "failed"    // and the shard is as it was
)

// ShardRestore says how far the restore of a shard is.
type ShardRestore struct {
	Target  string        `json:"target"`
	Backup  string        `json:"backup,omitempty"` // that it begins with, once that is known
	Lineage string        `json:"lineage"`          // of the new state
	Began   time.Time     `json:"began"`
	Step    string        `json:"step"`              // one of the words above
	Bytes   int64         `json:"bytes,omitempty"`   // to be fetched
	Fetched int64         `json:"fetched,omitempty"` // of them
	Until   events.Vector `json:"until,omitempty"`   // where the old state was
	Left    int64         `json:"left,omitempty"`    // records to be replayed up to there
	Error   string        `json:"error,omitempty"`   // why it does not go on at present, or at all
	Damaged []string      `json:"damaged,omitempty"` // backups that could not be used
	Agrees  *Agreement    `json:"agrees,omitempty"`  // with what other regions have attested; nil: that is not known yet
}

// RestoreShards has shards of the node's region restored while it runs.
func (c *Client) RestoreShards(ctx context.Context, p RestoreShardsParams) (*RestoringShards, error) {
	return call[RestoringShards](ctx, c, "restore.shards", p)
}
