package checks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// Attested is what origins have attested of their logs, as far as the region's topics still
// have it: by log, in the order in which it was said. A backup that was made while the region had diverged proves
// itself: its digests are those of the wrong state. Others' word shows it.
type Attested struct {
	peers []events.Region
	marks map[events.Log][]events.Mark
}

// ReadAttested reads all attestations that are in the region's Kafka. The options are those of its clients; nil: as
// they are configured.
func ReadAttested(ctx context.Context, cfg *config.Config, opts []kgo.Opt) (*Attested, error) {
	if opts == nil {
		var err error
		if opts, err = cfg.KafkaOpts(cfg.Region); err != nil {
			return nil, err
		}
	}
	a := &Attested{peers: cfg.Peers(), marks: map[events.Log][]events.Mark{}}
	topics := cfg.AttestationTopics()
	client, err := kgo.NewClient(append(slices.Clone(opts),
		kgo.ConsumeTopics(slices.Sorted(maps.Keys(topics))...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", cfg.Region, err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, attestedPatience)
	defer cancel()
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, slices.Sorted(maps.Keys(topics))...)
	if err != nil {
		return nil, fmt.Errorf("attestations in %s: %w", cfg.Region, err)
	}
	left := map[string]int64{} // topics that are not read yet, and their ends
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && o.Offset > 0 {
			left[o.Topic] = o.Offset
		}
	})
	judge, epochs := divergence.NewJudge(judgeConfig(cfg), nil, time.Now()), map[events.Log]events.Epoch{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("attestations in %s: %w", cfg.Region, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Topic] {
				delete(left, r.Topic)
			}
			said, err := divergence.Read(r)
			if err != nil || judge.Attested(topics[r.Topic], said, time.Now()) != nil || said.Format != formatVersion(cfg.Streams[said.Log.Stream].Merge) {
				return // it is not heeded, or cannot be compared
			}
			if said.Epoch > epochs[said.Log] {
				// Its origin may have been restored, and its log be another one from there on.
				epochs[said.Log], a.marks[said.Log] = said.Epoch, nil
			}
			if !slices.Contains(a.marks[said.Log], said.Mark) {
				a.marks[said.Log] = append(a.marks[said.Log], said.Mark)
			}
		})
	}
	return a, nil
}

// attestedPatience is how long attestations are read.
const attestedPatience = 30 * time.Second

// compare compares states with what was attested: at says what the state of a log was at an
// offset, or that it does not know. One that others contradict is in Differs.
func (a *Attested) compare(states []events.LogState, at func(l events.Log, offset int64) (events.Mark, error)) (*api.Agreement, error) {
	g := newAgreement()
	compared := map[events.Region]int{}
	for _, r := range a.peers {
		compared[r] = 0
	}
	differs := map[events.Region]bool{}
	for _, st := range slices.SortedFunc(slices.Values(states), func(x, y events.LogState) int { return x.Log.Compare(y.Log) }) {
		if !slices.Contains(a.peers, st.Log.Origin.Region) {
			continue // nobody else attests it, and one's own word was given by the state that is in question
		}
		var equal api.Match
		for _, theirs := range a.marks[st.Log] {
			if theirs.Next > st.Next || theirs.Next == 0 {
				continue
			}
			ours, err := at(st.Log, theirs.Next)
			if errors.Is(err, projections.ErrMarkGone) || errors.Is(err, projections.ErrMarkAhead) {
				continue
			}
			if err != nil {
				return nil, err
			}
			compared[st.Log.Origin.Region]++
			if theirs == ours {
				equal = api.Match{Log: st.Log, Mark: theirs}
				continue
			}
			if !slices.Contains(a.marks[st.Log], ours) { // an origin that contradicts itself proves nothing
				differs[st.Log.Origin.Region] = true
				g.Differs = append(g.Differs, api.Disagreement{Log: st.Log, Theirs: theirs, Ours: ours})
				break // what comes behind differs, too
			}
		}
		if equal.Mark.Next > 0 {
			g.Equal = append(g.Equal, equal)
		}
	}
	for _, region := range slices.Sorted(maps.Keys(compared)) {
		switch {
		case differs[region]:
		case compared[region] > 0:
			g.Agrees = append(g.Agrees, region)
		default:
			g.Unknown = append(g.Unknown, region)
		}
	}
	return g, nil
}

func newAgreement() *api.Agreement {
	return &api.Agreement{Agrees: []events.Region{}, Unknown: []events.Region{}, Differs: []api.Disagreement{}, Equal: []api.Match{}}
}

// OfStates compares states of which nothing else is known, such as those in a manifest.
func (a *Attested) OfStates(states []events.LogState) *api.Agreement {
	at := map[events.Log]events.LogState{}
	for _, st := range states {
		at[st.Log] = st
	}
	g, _ := a.compare(states, func(l events.Log, offset int64) (events.Mark, error) {
		if st := at[l]; st.Next == offset && st.Chain != (events.Digest{}) {
			return events.Mark{Next: st.Next, Chain: st.Chain, Digest: st.Digest, Keys: st.Keys, Bytes: st.Bytes}, nil
		}
		return events.Mark{}, projections.ErrMarkGone
	})
	return g
}

// OfShards compares shards that are opened for it, one after the other.
func (a *Attested) OfShards(partitions []int32, open func(p int32) (*projections.Shard, error)) (*api.Agreement, error) {
	all := newAgreement()
	for _, p := range partitions {
		shard, err := open(p)
		if err != nil {
			return nil, err
		}
		g, err := a.compare(shard.Logs(), shard.At)
		if err := errors.Join(err, shard.Close()); err != nil {
			return nil, err
		}
		all.Add(g)
	}
	return all, nil
}
