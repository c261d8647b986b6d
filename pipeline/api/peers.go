package api

import (
	"context"
	"net"
	"net/http"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// PeerNode is what the nodes of a region ask of each other. None of it is asked of
// a third node.
type PeerNode interface {
	Slices(ctx context.Context, p SlicesParams) (*SlicesPage, error)
	Applied(ctx context.Context, p AppliedParams) (*Applied, error)
	ParkedReasons(ctx context.Context, p ParkedParams) (*Parked, error)
	BackupShards(ctx context.Context, p BackupShardsParams) (*ShardBackups, error)
	ModelShards(ctx context.Context, p ModelShardsParams) (*ModelShards, error)
	RebuildShards(ctx context.Context, p RebuildShardsParams) (*ModelShards, error)
	ModelPage(ctx context.Context, p ModelPageParams) (*ModelPage, error)
}

// SlicesParams ask for the slices of keys, as they are, in some of the node's
// shards: of one key, of some, or of those that begin with Prefix and come after the key
// After.
type SlicesParams struct {
	Stream events.Stream `json:"stream"`
	Shards []int32       `json:"shards"`
	Key    Bytes         `json:"key,omitempty"`
	Prefix Bytes         `json:"prefix,omitempty"`
	After  Bytes         `json:"after,omitempty"`
	Limit  int           `json:"limit,omitempty"` // of keys; needed without Key

	// Keys are some keys, ascending. Nodes of before this parameter refuse it as invalid.
	Keys []Bytes `json:"keys,omitempty"`

	// AtLeast is a cut that the shards must have folded: the one who asks has been told
	// of it by whoever had them before. What does not reach it is not ready. Nodes of
	// before this parameter refuse it as invalid.
	AtLeast events.Vector `json:"at_least,omitempty"`
}

// SlicesPage is one page of slices, in the order of keys.
type SlicesPage struct {
	Entities []Entity `json:"entities"`
	More     bool     `json:"more"` // ask on with After = the last key
}

// Entity is a key with its slices; whether they hold anything is not known here.
type Entity struct {
	Key    Bytes   `json:"key"`
	Slices []Slice `json:"slices"`
}

// Slice is one slice of a key, with the log whose fold it is.
type Slice struct {
	Log  events.Log `json:"log"`
	Data []byte     `json:"data"`
}

// AppliedParams ask how far some of the node's shards have folded the logs of a stream,
// once they have folded everything before the cut AtLeast.
type AppliedParams struct {
	Stream  events.Stream `json:"stream"`
	Shards  []int32       `json:"shards"`
	AtLeast events.Vector `json:"at_least,omitempty"`

	// TimeoutSeconds is how long to wait for AtLeast; then the error says what is
	// missing.
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"`
}

// Applied is a cut.
type Applied struct {
	Cut events.Vector `json:"cut"`

	// Clock is a reading that no clock in what was folded before the cut is above, but those that
	// are too far ahead. Whoever writes a key of these shards writes it with a later one. Nodes
	// of before this field do not say it.
	Clock events.HLC `json:"clock,omitzero"`
}

// ParkedParams ask why records were set aside.
type ParkedParams struct {
	Positions []events.Position `json:"positions"`

	// AtLeast is a cut that the shards must have folded, as in SlicesParams.
	AtLeast events.Vector `json:"at_least,omitempty"`
}

// MaxParkedAsked bounds the positions of one ParkedParams.
const MaxParkedAsked = 20_000

// Parked is why, for each of the positions; empty if a record was not set aside.
type Parked struct {
	Reasons []string `json:"reasons"`
}

// BackupShardsParams ask a node to copy some of its shards into the region's bucket
// for a backup that the asking node publishes.
type BackupShardsParams struct {
	Backup string  `json:"backup"` // id
	Shards []int32 `json:"shards"`

	// Since are the vectors of what the copies build on, one for each shard: what has
	// changed since is copied. None: everything is.
	Since []events.Vector `json:"since,omitempty"`
}

// ShardBackups is what was copied.
type ShardBackups struct {
	Shards []format.Shard `json:"shards"`
}

// forwardHeader marks the calls of another node of the region; it holds its name.
const forwardHeader = "Evenkeel-Forwarded-By"

type forwardKey struct{}

// ForwardedFrom names the node of the region that has forwarded a call. Such a call
// is about what the node itself has, and is never forwarded again.
func ForwardedFrom(ctx context.Context) (node string, ok bool) {
	node, ok = ctx.Value(forwardKey{}).(string)
	return node, ok
}

func withForwarder(ctx context.Context, r *http.Request) context.Context {
	if node := r.Header.Get(forwardHeader); node != "" {
		return context.WithValue(ctx, forwardKey{}, node)
	}
	return ctx
}

// NewPeerClient makes a client with which the node self asks another one of its
// region. Dial, if not nil, makes its connections.
func NewPeerClient(server, self string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Client, error) {
	c, err := NewClient(server)
	if err != nil {
		return nil, err
	}
	c.self = self
	if dial != nil {
		c.http.Transport.(*http.Transport).DialContext = dial
	}
	return c, nil
}

// Close lets go of connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Slices asks another node for the slices of keys.
func (c *Client) Slices(ctx context.Context, p SlicesParams) (*SlicesPage, error) {
	return call[SlicesPage](ctx, c, "slices", p)
}

// Applied asks another node how far it has folded logs.
func (c *Client) Applied(ctx context.Context, p AppliedParams) (*Applied, error) {
	return call[Applied](ctx, c, "applied", p)
}

// ParkedReasons asks another node why records were set aside.
func (c *Client) ParkedReasons(ctx context.Context, p ParkedParams) (*Parked, error) {
	return call[Parked](ctx, c, "parked", p)
}

// BackupShards asks another node to copy shards for a backup.
func (c *Client) BackupShards(ctx context.Context, p BackupShardsParams) (*ShardBackups, error) {
	return call[ShardBackups](ctx, c, "backup.shards", p)
}
