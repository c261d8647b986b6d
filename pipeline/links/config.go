package links

import (
	"context"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/follow"
)

// prepare says how the links from all peers are made. Their clients end with life, at the latest.
func (k *Links) prepare(life context.Context, parts Parts) error {
	for _, source := range k.cfg.Peers() {
		sourceOpts, err := parts.Opts(source)
		if err != nil {
			return err
		}
		sourceOpts = slices.Clip(append(sourceOpts, kgo.WithContext(life)))
		linkCfg, err := linkConfig(k.cfg, source)
		if err != nil {
			return err
		}
		if linkCfg.Relays, err = k.relays(life, parts, source); err != nil {
			return err
		}
		k.kept = append(k.kept, keptLink{k.cfg.Origin(source), func() *replicator.Link {
			return replicator.NewLink(sourceOpts, parts.Own, linkCfg, parts.Metrics, k.log)
		}})
	}
	return nil
}

// relays are the peers that have mirrors of an origin besides this region.
func (k *Links) relays(life context.Context, parts Parts, origin events.Region) ([]replicator.Relay, error) {
	var relays []replicator.Relay
	for _, peer := range k.cfg.Peers() {
		if peer == origin {
			continue
		}
		opts, err := parts.Opts(peer)
		if err != nil {
			return nil, err
		}
		relays = append(relays, replicator.Relay{Region: peer, Opts: append(opts, kgo.WithContext(life))})
	}
	return relays, nil
}

// linkConfig is what the link from a region does.
func linkConfig(cfg *config.Config, source events.Region) (replicator.Config, error) {
	l := cfg.Links
	always := append(cfg.LogTopics(), cfg.AttestationTopic())
	topics, err := follow.NewPatterns(append(always, l.Include...), l.Exclude)
	if err != nil {
		return replicator.Config{}, err
	}
	groups, err := follow.NewPatterns(l.Groups, l.GroupsExclude)
	if err != nil {
		return replicator.Config{}, err
	}
	internal := follow.Internal(slices.Sorted(maps.Keys(cfg.Regions))...)
	return replicator.Config{
		Origin:      cfg.Origin(source),
		Destination: cfg.Region,
		Topics:      topics.Sparing(internal),
		// The source's own nodes read its logs and mirrors, which are others here.
		Groups:             groups.Sparing(func(group string) bool { return group == cfg.Group }),
		Internal:           internal,
		Overrides:          l.Overrides,
		Principal:          l.Principal,
		WindowBytes:        l.WindowBytes,
		RateBytesPerSecond: l.RateBytesPerSecond,
	}, nil
}
