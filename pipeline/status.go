package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/replicator"
)

// shownParked is how many parked records a status shows.
const shownParked = 10

// localStatus is what this node is and does.
func (r *Region) localStatus() (*api.Status, error) {
	s := &api.Status{
		Region: r.cfg.Region, Node: r.name, Software: api.Software, Started: r.started.UTC(),
		Problems: r.problems(), Backups: r.parts.Bucket != nil,
		Nodes: []api.NodeStatus{}, Logs: []events.LogState{}, Shards: []api.ShardStatus{}, Links: []replicator.Status{},
		Examples: []api.ParkedRecord{},
		Regions:  map[events.Region]string{},
	}
	s.Ready = r.notReady() == nil
	for _, p := range r.cfg.Shards() {
		if err := r.addShard(s, p); err != nil {
			return nil, err
		}
	}
	for _, l := range r.links.Running() {
		s.Links = append(s.Links, l.Status())
	}
	for name, region := range r.cfg.Regions {
		s.Regions[name] = region.API
	}
	s.Backup, s.Archive = r.backups.status(), r.archivePoints()
	return s, nil
}

// addShard adds what this node knows of a shard, if it has anything to do with it.
func (r *Region) addShard(s *api.Status, p int32) error {
	at := r.keeper.stateOf(p)
	shards, release, err := r.useOwn([]int32{p})
	if err != nil {
		if at.state == shardOpen { // another node has it, and it is about to be closed, or has been meanwhile
			at.state = shardClosing
		}
		if at.state != shardClosed || at.err != nil {
			row := api.ShardStatus{Partition: p, Node: r.name, State: at.state, Restoring: r.renewals.status(p, nil)}
			if at.err != nil {
				row.Error = at.err.Error()
			}
			s.Shards = append(s.Shards, row)
		}
		return nil
	}
	defer release()
	shard := shards[0]
	logs := shard.Logs()
	row := shardStatus(p, shard.Shard, logs)
	row.Load, row.InPlace, row.Restoring = r.load(p, shard.Shard), inPlaceStatus(shard), r.renewals.status(p, shard)
	row.Node, row.Epoch, row.State, row.Began = r.name, shard.Epoch(), shardOpen, at.began
	row.Read = r.worker.readFurther(p, shard.Shard)
	if err := r.worker.waitsFor(p); err != nil {
		row.Waits = err.Error()
	}
	s.Shards, s.Logs = append(s.Shards, row), append(s.Logs, logs...)
	left := shownParked - len(s.Examples)
	if *row.Parked == 0 || left <= 0 {
		return nil
	}
	parked, err := shard.Parked(left)
	for _, p := range parked {
		s.Examples = append(s.Examples, api.ParkedRecord{Position: p.Position, Reason: p.Reason})
	}
	return err
}

func shardStatus(p int32, shard *projections.Shard, logs []events.LogState) api.ShardStatus {
	row := api.ShardStatus{
		Partition: p, Lineage: shard.Lineage().ID, Blocked: blockedTexts(shard),
		Events: new(int64), Keys: new(int64), Parked: new(int64), Digest: new(digest.Total(logs)),
	}
	for _, l := range logs {
		*row.Events, *row.Keys, *row.Parked = *row.Events+l.Events, *row.Keys+l.Keys, *row.Parked+l.Parked
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

// problems lists everything on this node that needs an eye, whether or not it can
// serve.
func (r *Region) problems() []string {
	problems := []string{}
	if err := r.Failure(); err != nil {
		problems = append(problems, err.Error())
	}
	if err := r.trouble(); err != nil {
		problems = append(problems, err.Error())
	}
	open, release := r.shards.use(r.cfg.Shards())
	defer release()
	parked := int64(0)
	for _, p := range slices.Sorted(maps.Keys(open)) {
		problems = append(problems, blockedTexts(open[p])...)
		for _, st := range open[p].Logs() {
			parked += st.Parked
		}
	}
	problems = append(problems, r.shards.inPlaceProblems()...)
	problems = append(problems, r.renewals.problems()...)
	problems = append(problems, r.modelProblems()...)
	problems = append(problems, r.divergences()...)
	if err := r.checks.Problem(); err != nil {
		problems = append(problems, err.Error())
	}
	for _, l := range r.links.Running() {
		problems = append(problems, linkProblems(l.Status())...)
	}
	problems = append(problems, r.backups.problems()...)
	if r.archiver != nil {
		problems = append(problems, r.archiver.Problems()...)
	}
	if parked > 0 {
		problems = append(problems, fmt.Sprintf("%d records are parked", parked))
	}
	return problems
}

func linkProblems(s replicator.Status) (problems []string) {
	if !s.Running {
		problems = append(problems, fmt.Sprintf("link from %s: %s", s.Origin, s.Error))
	}
	return append(problems, s.Stopped...)
}

// trouble says why this node does not do all that it has to do.
func (r *Region) trouble() error {
	for _, err := range []error{r.worker.problem(), r.member.Problem(), r.claims.Lapsed(), r.keeper.problem()} {
		if err != nil {
			return err
		}
	}
	return nil
}

// notReady says why the node's answers cannot be relied on. A peer that cannot
// be reached makes them stale, not wrong, and is no reason.
func (r *Region) notReady() error {
	if err := r.Failure(); err != nil {
		return events.Errorf(events.KindFailed, "the region cannot go on: %w", err)
	}
	if err := r.trouble(); err != nil {
		return events.Errorf(events.KindNotReady, "not ready: %w", err)
	}
	for _, p := range r.cfg.Shards() {
		if _, ok := r.claims.Of(claims.ShardKey(p)); !ok {
			return events.Errorf(events.KindNotReady, "not ready: shard %d has no owner yet", p)
		}
	}
	open, release := r.shards.use(r.cfg.Shards())
	defer release()
	for _, shard := range open {
		if blocked := blockedTexts(shard); len(blocked) > 0 {
			return events.Errorf(events.KindNotReady, "not ready: %s", strings.Join(blocked, "; "))
		}
	}
	return nil
}

// Ready implements api.Node.
func (r *Region) Ready(context.Context) error { return r.notReady() }
