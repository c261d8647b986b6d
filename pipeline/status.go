package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/replicator"
)

// shownParked is how many parked records a status shows.
const shownParked = 10

// Status implements api.Node.
func (r *Region) Status(context.Context) (*api.Status, error) {
	s := &api.Status{
		Region: r.cfg.Region, Software: Software, Started: r.started.UTC(),
		Problems: r.problems(), Backups: r.parts.Bucket != nil,
		Logs: []events.LogState{}, Shards: []api.ShardStatus{}, Links: []replicator.Status{},
		Examples: []api.ParkedRecord{},
		Regions:  map[events.Region]string{},
	}
	s.Ready = r.notReady() == nil
	for p, shard := range r.shards.all {
		logs := shard.Logs()
		row := shardStatus(int32(p), shard, logs)
		row.Load = r.load(int32(p))
		s.Shards, s.Logs = append(s.Shards, row), append(s.Logs, logs...)
		s.Events, s.Keys, s.Parked = s.Events+row.Events, s.Keys+row.Keys, s.Parked+row.Parked
		if left := shownParked - len(s.Examples); row.Parked > 0 && left > 0 {
			parked, err := shard.Parked(left)
			if err != nil {
				return nil, err
			}
			for _, p := range parked {
				s.Examples = append(s.Examples, api.ParkedRecord{Position: p.Position, Reason: p.Reason})
			}
		}
	}
	slices.SortFunc(s.Logs, func(a, b events.LogState) int { return a.Log.Compare(b.Log) })
	s.Digest = digest.Total(s.Logs)
	for _, l := range r.links {
		s.Links = append(s.Links, l.Status())
	}
	for name, region := range r.cfg.Regions {
		s.Regions[name] = region.API
	}
	s.Backup = r.backups.status()
	return s, nil
}

func shardStatus(p int32, shard *projections.Shard, logs []events.LogState) api.ShardStatus {
	row := api.ShardStatus{Partition: p, Lineage: shard.Lineage().ID, Digest: digest.Total(logs), Blocked: blockedTexts(shard)}
	for _, l := range logs {
		row.Events, row.Keys, row.Parked = row.Events+l.Events, row.Keys+l.Keys, row.Parked+l.Parked
	}
	return row
}

func blockedTexts(shard *projections.Shard) []string {
	blocked := shard.Blocked()
	var texts []string
	for _, l := range slices.SortedFunc(maps.Keys(blocked), events.Log.Compare) {
		texts = append(texts, blocked[l].Error())
	}
	return texts
}

// problems lists everything that needs an eye, whether or not the node can
// serve.
func (r *Region) problems() []string {
	problems := []string{}
	if err := r.Failure(); err != nil {
		problems = append(problems, err.Error())
	}
	if err := r.worker.problem(); err != nil {
		problems = append(problems, err.Error())
	}
	parked := int64(0)
	for _, shard := range r.shards.all {
		problems = append(problems, blockedTexts(shard)...)
		for _, st := range shard.Logs() {
			parked += st.Parked
		}
	}
	problems = append(problems, r.modelProblems()...)
	problems = append(problems, r.divergences()...)
	for _, l := range r.links {
		s := l.Status()
		if !s.Running {
			problems = append(problems, fmt.Sprintf("link from %s: %s", s.Origin, s.Error))
		}
		problems = append(problems, s.Stopped...)
	}
	problems = append(problems, r.backups.problems()...)
	if parked > 0 {
		problems = append(problems, fmt.Sprintf("%d records are parked", parked))
	}
	return problems
}

// notReady says why the node's answers cannot be relied on. A peer that cannot
// be reached makes them stale, not wrong, and is no reason.
func (r *Region) notReady() error {
	if err := r.Failure(); err != nil {
		return events.Errorf(events.KindFailed, "the region cannot go on: %w", err)
	}
	if err := r.worker.problem(); err != nil {
		return events.Errorf(events.KindNotReady, "not ready: %w", err)
	}
	for _, shard := range r.shards.all {
		if blocked := blockedTexts(shard); len(blocked) > 0 {
			return events.Errorf(events.KindNotReady, "not ready: %s", strings.Join(blocked, "; "))
		}
	}
	return nil
}

// Ready implements api.Node.
func (r *Region) Ready(context.Context) error { return r.notReady() }
