package refill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/mapping"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// noteMirrors tells the links what lies where in the mirrors that were written, so that
// they go on behind it, and readers find offsets translated.
func (r *refilling) noteMirrors(ctx context.Context) error {
	cfg := r.job.Config
	rebuilt := map[events.Origin]map[string]map[int32]*mapping.Map{}
	for l, log := range r.logs {
		if l.Origin.Region == cfg.Region || log.count == 0 {
			continue
		}
		runs, err := log.mapping()
		if err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
		topic := cfg.Streams[l.Stream].Topic
		if rebuilt[l.Origin] == nil {
			rebuilt[l.Origin] = map[string]map[int32]*mapping.Map{}
		}
		if rebuilt[l.Origin][topic] == nil {
			rebuilt[l.Origin][topic] = map[int32]*mapping.Map{}
		}
		rebuilt[l.Origin][topic][l.Partition] = runs
	}
	for origin, mirrors := range rebuilt {
		if err := replicator.NoteRebuilt(ctx, r.opts, origin, cfg.Region, mirrors); err != nil {
			return err
		}
	}
	return nil
}

// mapping is where the records of the log lie in its topic.
func (l *refilledLog) mapping() (*mapping.Map, error) {
	runs := &mapping.Map{}
	for _, run := range l.runs {
		if run.Records == 0 {
			continue
		}
		if err := runs.Append(mapping.Run{Source: run.Log, Dest: run.Topic}); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// inTopic is the offset in the topic of the first record from an offset of the log on, or
// of the next one to come.
func (l *refilledLog) inTopic(next int64) int64 {
	for _, run := range l.runs {
		if next < run.Log+run.Records {
			return run.Topic + max(0, next-run.Log)
		}
	}
	return l.count
}

// giveBackGroups gives consumer groups the offsets that they had when the newest backup was
// made that is not further than what was written back. Groups with members, and
// offsets that are there, are left alone.
func (r *refilling) giveBackGroups(ctx context.Context, done *api.Refilled) error {
	offsets, err := r.archivedGroups(ctx, done)
	if err != nil || len(offsets) == 0 {
		return err
	}
	listed, err := r.admin.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("consumer groups of %s: %w", r.job.Config.Region, err)
	}
	byGroup := map[string][]format.GroupOffset{}
	for _, o := range offsets {
		byGroup[o.Group] = append(byGroup[o.Group], o)
	}
	for _, name := range slices.Sorted(maps.Keys(byGroup)) {
		var given []api.RefilledGroup
		if at := listed[name]; at.State != "" && at.State != "Empty" && at.State != "Dead" {
			given = skipGroup(r.toGive(byGroup[name]), "the group is active ("+at.State+")")
		} else if given, err = r.giveBack(ctx, name, byGroup[name]); err != nil {
			return err
		}
		done.Groups = append(done.Groups, given...)
	}
	return nil
}

// archivedGroups are the offsets of groups for logs that were written back.
func (r *refilling) archivedGroups(ctx context.Context, done *api.Refilled) ([]format.GroupOffset, error) {
	done.Groups = []api.RefilledGroup{}
	if r.note.Groups == "" {
		return nil, nil
	}
	m, err := catalog.Manifest(ctx, r.job.Bucket, r.job.Config.Region, r.note.Groups)
	if events.KindOf(err) == events.KindNotFound {
		r.job.Log.Warn("the backup is gone that had the offsets of consumer groups", "backup", r.note.Groups)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	done.GroupsOf, done.GroupsTime = m.ID, m.Created
	offsets, err := r.src.Groups(m)
	return slices.DeleteFunc(offsets, func(o format.GroupOffset) bool { return r.logs[o.Log] == nil }), err
}

// toGive are offsets as they are to be in the topics.
func (r *refilling) toGive(offsets []format.GroupOffset) (list []api.RefilledGroup) {
	for _, o := range offsets {
		log := r.logs[o.Log]
		list = append(list, api.RefilledGroup{Group: o.Group, Log: o.Log, Next: o.Next, Topic: log.topic, Offset: log.inTopic(o.Next)})
	}
	return list
}

func skipGroup(list []api.RefilledGroup, why string) []api.RefilledGroup {
	for i := range list {
		list[i].Skipped = why
	}
	return list
}

// giveBack commits the offsets of a group.
func (r *refilling) giveBack(ctx context.Context, group string, offsets []format.GroupOffset) ([]api.RefilledGroup, error) {
	list := r.toGive(offsets)
	there, err := r.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return skipGroup(list, "its offsets cannot be read: "+err.Error()), ctx.Err()
	}
	commit := kadm.Offsets{}
	for i, g := range list {
		if o, ok := there.Lookup(g.Topic, g.Log.Partition); ok && o.At >= 0 && o.At != g.Offset {
			list[i].Skipped = fmt.Sprintf("the group has committed offset %d already", o.At)
			continue
		}
		commit.Add(kadm.Offset{Topic: g.Topic, Partition: g.Log.Partition, At: g.Offset, LeaderEpoch: -1, Metadata: offsets[i].Metadata})
	}
	if len(commit) == 0 {
		return list, nil
	}
	answers, err := r.admin.CommitOffsets(ctx, group, commit)
	for i, g := range list {
		if g.Skipped != "" {
			continue
		}
		a, ok := answers.Lookup(g.Topic, g.Log.Partition)
		switch {
		case err != nil:
			list[i].Skipped = "not committed: " + err.Error()
		case !ok:
			list[i].Skipped = "not committed: no answer"
		case a.Err != nil:
			list[i].Skipped = "not committed: " + a.Err.Error()
		}
	}
	return list, ctx.Err()
}

// Plan says what Run would write back, and does nothing.
func Plan(ctx context.Context, job Job) (*api.RefillPlan, error) {
	r := &refilling{job: job, logs: map[events.Log]*refilledLog{}}
	var err error
	if r.src, err = source(job); err != nil {
		return nil, err
	}
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	plan := &api.RefillPlan{Region: job.Config.Region, Target: r.note.Target, Vector: r.note.Vector, Topics: []string{}, Peers: []api.PlannedTail{}, GroupsOf: r.note.Groups, Groups: []api.PlannedGroup{}}
	topics := map[string]bool{}
	for l := range r.note.Vector {
		topics[job.Config.TopicOf(l)] = true
		r.logs[l] = &refilledLog{}
	}
	for _, l := range slices.SortedFunc(maps.Keys(r.note.Peers), events.Log.Compare) {
		topics[job.Config.TopicOf(l)] = true
		plan.Peers = append(plan.Peers, api.PlannedTail{Log: l, Archived: r.note.Vector[l], Mirrored: r.note.Peers[l]})
	}
	plan.Topics = slices.Sorted(maps.Keys(topics))
	for _, s := range r.note.Spans {
		plan.Segments, plan.Bytes, plan.Records = plan.Segments+s.Segments(), plan.Bytes+s.Bytes, plan.Records+s.Records
	}
	var found api.Refilled
	offsets, err := r.archivedGroups(ctx, &found)
	if err != nil {
		return nil, err
	}
	for _, o := range offsets {
		if n := len(plan.Groups); n == 0 || plan.Groups[n-1].Group != o.Group {
			plan.Groups = append(plan.Groups, api.PlannedGroup{Group: o.Group})
		}
		plan.Groups[len(plan.Groups)-1].Offsets++
	}
	return plan, nil
}
