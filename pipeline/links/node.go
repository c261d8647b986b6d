package links

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/replicator"
)

// Parts are what links are built of.
type Parts struct {
	Own     []kgo.Opt                              // of clients of the region's own cluster
	Opts    func(events.Region) ([]kgo.Opt, error) // of clients of another's
	Admin   func(context.Context, events.Region, ...kgo.Opt) (*kadm.Client, error)
	Claims  *claims.Log
	Member  *claims.Member
	Peers   *peers.Peers
	Metrics *replicator.Metrics
	Log     *slog.Logger
}

// Links are the links of a region as one of its nodes has them. It runs those whose home the node
// is: each link has a shard, and the node that is assigned the shard claims the link. Until it does,
// the node that had it before goes on; two instances at a time do no harm.
type Links struct {
	cfg    *config.Config
	claims *claims.Log
	member *claims.Member
	peers  *peers.Peers
	admin  func(context.Context, events.Region, ...kgo.Opt) (*kadm.Client, error)
	kept   []keptLink
	since  time.Time
	log    *slog.Logger

	mu      sync.Mutex
	running map[events.Origin]*runningLink
	errs    map[events.Origin]error // why it could not be claimed the last time
}

var _ api.LinksNode = (*Links)(nil)

// New prepares the links from all peers; Run runs them. All their clients end with life.
func New(life context.Context, cfg *config.Config, parts Parts) (*Links, error) {
	k := &Links{
		cfg: cfg, claims: parts.Claims, member: parts.Member, peers: parts.Peers, admin: parts.Admin, since: time.Now().UTC(), log: parts.Log,
		running: map[events.Origin]*runningLink{}, errs: map[events.Origin]error{},
	}
	return k, k.prepare(life, parts)
}
