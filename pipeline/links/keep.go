package links

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/replicator"
)

const (
	lookInterval = 500 * time.Millisecond // between looks whether a link is to run here
	retryPause   = 500 * time.Millisecond // before a claim is tried again
)

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

// Run runs links whenever they are this node's, until the context ends.
func (k *Links) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, kept := range k.kept {
		running.Go(func() { k.tend(ctx, kept) })
	}
	running.Wait()
}

// tend runs one link whenever it is this node's, until the context ends.
func (k *Links) tend(ctx context.Context, kept keptLink) {
	home := claims.HomeOf(kept.origin.String(), k.cfg.Partitions)
	for ctx.Err() == nil {
		if !k.member.Has(home) {
			k.note(kept.origin, nil)
			pause.For(ctx, lookInterval)
			continue
		}
		epoch, err := k.claims.Take(ctx, claims.LinkKey(kept.origin), home, 0)
		k.note(kept.origin, err)
		if err != nil {
			pause.For(ctx, retryPause)
			continue
		}
		k.run(ctx, kept, epoch)
		pause.For(ctx, claims.ReclaimPause)
	}
}

func (k *Links) note(origin events.Origin, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.errs[origin] = err
}

// run runs a link until it is claimed by another node.
func (k *Links) run(ctx context.Context, kept keptLink, epoch events.Epoch) {
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

// Claimed takes in a claim, in the order of the log.
func (k *Links) Claimed(key string, c claims.Claim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for origin, l := range k.running {
		if key == claims.LinkKey(origin) && l.epoch < c.Epoch {
			l.stop()
		}
	}
}

// here is the link from an origin if it runs on this node, else nil.
func (k *Links) here(origin events.Origin) *replicator.Link {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l, ok := k.running[origin]; ok {
		return l.Link
	}
	return nil
}

// Running are the links that run on this node, in the order of the configuration.
func (k *Links) Running() (links []*replicator.Link) {
	for _, kept := range k.kept {
		if l := k.here(kept.origin); l != nil {
			links = append(links, l)
		}
	}
	return links
}

// where is the node that runs the link from an origin, or why none does.
func (k *Links) where(origin events.Origin) (claims.Claim, error) {
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
func (k *Links) atRest(origin events.Origin, why error) replicator.Details {
	return replicator.Details{Status: replicator.Status{
		Origin: origin, Destination: k.cfg.Region, Error: why.Error(), Since: k.since, Stopped: []string{},
	}}
}

// onLink asks the link from an origin, on this node or on the one that runs it.
func onLink[R any](ctx context.Context, k *Links, name string,
	here func(*replicator.Link) (*R, error), there func(context.Context, *api.Client) (*R, error),
) (result *R, err error) {
	origin, err := k.origin(name)
	if err != nil {
		return nil, err
	}
	var did error // here: what it says of itself is no reason to ask again
	err = peers.WhileMoving(ctx, func() error {
		if l := k.here(origin); l != nil {
			result, did = here(l)
			return nil
		}
		if err := peers.RefuseForward(ctx, fmt.Sprintf("link from %s", origin)); err != nil {
			return err
		}
		c, err := k.where(origin)
		if err != nil {
			return err
		}
		client, err := k.peers.At(c.Node, c.Address)
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

// All are the details of every link of the region, from the nodes that run
// them. Each node is waited for as long as peers.Patience.
func (k *Links) All(ctx context.Context) []replicator.Details {
	details := make([]replicator.Details, len(k.kept))
	var asked sync.WaitGroup
	for i, kept := range k.kept {
		if l := k.here(kept.origin); l != nil {
			details[i] = Details(l)
			continue
		}
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, peers.Patience)
			defer cancel()
			d, err := k.remote(ctx, kept.origin)
			if err != nil {
				d = k.atRest(kept.origin, err)
			}
			details[i] = d
		})
	}
	asked.Wait()
	return details
}

func (k *Links) remote(ctx context.Context, origin events.Origin) (replicator.Details, error) {
	c, err := k.where(origin)
	if err != nil {
		return replicator.Details{}, err
	}
	client, err := k.peers.At(c.Node, c.Address)
	if err != nil {
		return replicator.Details{}, err
	}
	d, err := client.ShowLink(ctx, api.ShowLinkParams{Origin: origin.String()})
	if err != nil {
		return replicator.Details{}, fmt.Errorf("node %s, which runs it: %w", c.Node, err)
	}
	return d.Details, nil
}

// Complete puts the links that nodes have told of in order, and adds those that none has told of;
// missing are these.
func (k *Links) Complete(told []replicator.Status) (all, missing []replicator.Status) {
	all = []replicator.Status{}
	for _, kept := range k.kept {
		if i := slices.IndexFunc(told, func(l replicator.Status) bool { return l.Origin == kept.origin }); i >= 0 {
			all = append(all, told[i])
			continue
		}
		why := errUnknown
		if _, err := k.where(kept.origin); err != nil {
			why = err
		}
		l := k.atRest(kept.origin, why).Status
		all, missing = append(all, l), append(missing, l)
	}
	return all, missing
}

var errUnknown = events.Errorf(events.KindNotReady, "the node that runs it does not answer")
