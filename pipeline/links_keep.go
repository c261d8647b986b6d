package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/replicator"
)

// linkKeeper runs the links whose home this node is: each link has a shard, and the
// node that is assigned the shard claims the link. Until it does, the node that had
// it before goes on; two instances at a time do no harm.
type linkKeeper struct {
	claims     *claims.Log
	member     *claims.Member
	partitions int32
	links      []keptLink
	log        *slog.Logger

	mu      sync.Mutex
	running map[events.Origin]*runningLink
	errs    map[events.Origin]error // why it could not be claimed the last time
}

// keptLink is how a link is made.
type keptLink struct {
	origin events.Origin
	make   func() *replicator.Link
}

// runningLink is a link that runs on this node.
type runningLink struct {
	*replicator.Link
	epoch events.Epoch
	stop  context.CancelFunc
}

// tend runs one link whenever it is this node's, until the context ends.
func (k *linkKeeper) tend(ctx context.Context, kept keptLink) {
	home := claims.HomeOf(kept.origin.String(), k.partitions)
	for !ended(ctx) {
		if !k.member.Has(home) {
			k.note(kept.origin, nil)
			pause.For(ctx, keepInterval)
			continue
		}
		epoch, err := k.claims.Take(ctx, claims.LinkKey(kept.origin), home, 0)
		k.note(kept.origin, err)
		if err != nil {
			pause.For(ctx, openRetryLeast)
			continue
		}
		k.run(ctx, kept, epoch)
		pause.For(ctx, claims.ReclaimPause)
	}
}

func (k *linkKeeper) note(origin events.Origin, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.errs[origin] = err
}

// run runs a link until it is claimed by another node.
func (k *linkKeeper) run(ctx context.Context, kept keptLink, epoch events.Epoch) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	link := kept.make()
	k.mu.Lock()
	k.running[kept.origin] = &runningLink{link, epoch, stop}
	k.mu.Unlock()
	if c, _ := k.claims.Of(claims.LinkKey(kept.origin)); c.Epoch > epoch {
		stop()
	}
	k.log.Info("link runs on this node", "origin", kept.origin.String(), "epoch", uint64(epoch))
	link.Run(ctx)
	k.mu.Lock()
	delete(k.running, kept.origin)
	k.mu.Unlock()
}

// claimed takes in a claim, in the order of the log.
func (k *linkKeeper) claimed(key string, c claims.Claim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for origin, l := range k.running {
		if key == claims.LinkKey(origin) && l.epoch < c.Epoch {
			l.stop()
		}
	}
}

// here is the link from an origin if it runs on this node, else nil.
func (k *linkKeeper) here(origin events.Origin) *replicator.Link {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l, ok := k.running[origin]; ok {
		return l.Link
	}
	return nil
}

// all are the links that run on this node, in the order of the configuration.
func (k *linkKeeper) all() (links []*replicator.Link) {
	for _, kept := range k.links {
		if l := k.here(kept.origin); l != nil {
			links = append(links, l)
		}
	}
	return links
}

// where is the node that runs the link from an origin, or why none does.
func (k *linkKeeper) where(origin events.Origin) (claims.Claim, error) {
	k.mu.Lock()
	err := k.errs[origin]
	k.mu.Unlock()
	c, ok := k.claims.Of(claims.LinkKey(origin))
	switch {
	case ok && !k.claims.IsOwn(c):
		return c, nil
	case err != nil:
		return claims.Claim{}, events.Errorf(events.KindNotReady, "the link from %s runs on no node: %w", origin, err)
	case !ok:
		return claims.Claim{}, events.Errorf(events.KindNotReady, "the link from %s runs on no node yet", origin)
	}
	return claims.Claim{}, events.Errorf(events.KindNotReady, "the link from %s is starting, or moving to another node", origin)
}

// atRest is what is known of a link that runs nowhere.
func (r *Region) atRest(origin events.Origin, why error) replicator.Details {
	return replicator.Details{Status: replicator.Status{
		Origin: origin, Destination: r.cfg.Region, Error: why.Error(), Since: r.started.UTC(), Stopped: []string{},
	}}
}

// onLink asks the link from an origin, on this node or on the one that runs it.
func onLink[R any](ctx context.Context, r *Region, name string,
	here func(*replicator.Link) (*R, error), there func(context.Context, *api.Client) (*R, error),
) (result *R, err error) {
	origin, err := r.linkOrigin(name)
	if err != nil {
		return nil, err
	}
	var did error // here: what it says of itself is no reason to ask again
	err = peers.WhileMoving(ctx, func() error {
		if l := r.links.here(origin); l != nil {
			result, did = here(l)
			return nil
		}
		if err := peers.RefuseForward(ctx, fmt.Sprintf("link from %s", origin)); err != nil {
			return err
		}
		c, err := r.links.where(origin)
		if err != nil {
			return err
		}
		client, err := r.peers.At(c.Node, c.Address)
		if err != nil {
			return err
		}
		result, err = there(ctx, client)
		return err
	})
	if err != nil {
		return nil, err
	}
	return result, did
}

// linkDetailsOf are the details of every link of the region, from the nodes that run
// them. Each node is waited for as long as peers.Patience.
func (r *Region) linkDetailsOf(ctx context.Context) []replicator.Details {
	details := make([]replicator.Details, len(r.links.links))
	var asked sync.WaitGroup
	for i, kept := range r.links.links {
		if l := r.links.here(kept.origin); l != nil {
			details[i] = linkDetails(l)
			continue
		}
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, peers.Patience)
			defer cancel()
			d, err := r.remoteLink(ctx, kept.origin)
			if err != nil {
				d = r.atRest(kept.origin, err)
			}
			details[i] = d
		})
	}
	asked.Wait()
	return details
}

func (r *Region) remoteLink(ctx context.Context, origin events.Origin) (replicator.Details, error) {
	c, err := r.links.where(origin)
	if err != nil {
		return replicator.Details{}, err
	}
	client, err := r.peers.At(c.Node, c.Address)
	if err != nil {
		return replicator.Details{}, err
	}
	d, err := client.ShowLink(ctx, api.ShowLinkParams{Origin: origin.String()})
	if err != nil {
		return replicator.Details{}, fmt.Errorf("node %s, which runs it: %w", c.Node, err)
	}
	return d.Details, nil
}
