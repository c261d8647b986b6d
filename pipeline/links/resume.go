package links

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator"
)

// planTimeout bounds how long a source is asked for what a choice would mean.
const planTimeout = 10 * time.Second

// ResumeLink implements api.LinksNode.
func (k *Links) ResumeLink(ctx context.Context, p api.ResumeLinkParams) (*api.LinkResumed, error) {
	return onLink(ctx, k, p.Origin,
		func(l *replicator.Link) (*api.LinkResumed, error) { return k.resumeLink(ctx, l, p) },
		func(ctx context.Context, c *api.Client) (*api.LinkResumed, error) { return c.ResumeLink(ctx, p) })
}

func (k *Links) resumeLink(ctx context.Context, l *replicator.Link, p api.ResumeLinkParams) (*api.LinkResumed, error) {
	choice, err := replicator.ParseChoice(p.From)
	if err != nil {
		return nil, err
	}
	d := Details(l)
	parts, err := scope(d, p.Topic, p.Partition)
	if err != nil {
		return nil, err
	}
	stopped, err := stoppedOf(d, parts, p)
	if err != nil {
		return nil, err
	}
	result := &api.LinkResumed{Origin: d.Origin, From: p.From, DryRun: p.DryRun, Partitions: stopped}
	if p.DryRun {
		return result, k.planResume(ctx, d.Origin.Region, p, stopped)
	}
	_, err = l.Resume(ctx, p.Topic, p.Partition, choice)
	return result, err
}

// stoppedOf are those of a topic's partitions that are stopped; there must be one.
// A topic that was created again goes on as a whole, as the link has it.
func stoppedOf(d replicator.Details, parts []replicator.PartitionStatus, p api.ResumeLinkParams) (stopped []api.ResumedPartition, err error) {
	for _, s := range parts {
		if s.State.Stopped() {
			stopped = append(stopped, api.ResumedPartition{Topic: s.Topic, Partition: s.Partition, Stop: s.Stop, Next: s.SourceNext})
		}
	}
	if len(stopped) == 0 {
		return nil, events.Errorf(events.KindRefused, "nothing of topic %s of %s is stopped, so there is nothing to choose", p.Topic, d.Origin)
	}
	for _, s := range d.Partitions {
		if p.Partition != replicator.All && s.Topic == p.Topic && recreated(s.State) {
			return nil, events.Errorf(events.KindRefused, "topic %s was created again: it goes on with all of its partitions, or not at all; leave out the partition", p.Topic)
		}
	}
	return stopped, nil
}

func recreated(s replicator.State) bool {
	return s == replicator.SourceRecreated || s == replicator.MirrorRecreated
}

// planResume says of stopped partitions of a topic where they would go on.
func (k *Links) planResume(ctx context.Context, source events.Region, p api.ResumeLinkParams, parts []api.ResumedPartition) error {
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	admin, err := k.admin(ctx, source)
	if err != nil {
		return err
	}
	defer admin.Close()
	starts, err := admin.ListStartOffsets(ctx, p.Topic)
	if err != nil {
		return fmt.Errorf("offsets of %s: %w", source, err)
	}
	ends, err := admin.ListEndOffsets(ctx, p.Topic)
	if err != nil {
		return fmt.Errorf("offsets of %s: %w", source, err)
	}
	for i := range parts {
		planPart(&parts[i], p.From, starts, ends)
	}
	return nil
}

// planPart says of one partition what a choice would mean. A choice that is none of
// the names is an offset.
func planPart(p *api.ResumedPartition, from string, starts, ends kadm.ListedOffsets) {
	start, okStart := starts.Lookup(p.Topic, p.Partition)
	end, okEnd := ends.Lookup(p.Topic, p.Partition)
	for _, o := range []struct {
		kadm.ListedOffset
		ok bool
	}{{start, okStart}, {end, okEnd}} {
		if !o.ok || o.Err != nil {
			p.Refused = fmt.Sprintf("the source does not tell the partition's offsets: %v", o.Err)
			if !o.ok {
				p.Refused = "the source does not have the partition"
			}
			return
		}
	}
	p.SourceStart, p.SourceEnd = &start.Offset, &end.Offset
	switch from {
	case "retry":
		return
	case "earliest":
		p.GoesOn = &start.Offset
	case "latest":
		p.GoesOn = &end.Offset
	case "next", "same":
		p.GoesOn = p.Next
	default:
		if n, err := strconv.ParseInt(from, 10, 64); err == nil {
			p.GoesOn = &n
		}
	}
	if p.GoesOn == nil {
		return
	}
	if *p.GoesOn < start.Offset || *p.GoesOn > end.Offset {
		p.Refused = fmt.Sprintf("the source has offsets %d to %d, and %d is none of them", start.Offset, end.Offset, *p.GoesOn)
		return
	}
	if p.Next != nil && (p.Stop == nil || p.Stop.State != replicator.SourceRecreated) {
		skipped := *p.GoesOn - *p.Next
		p.Skipped = &skipped
	}
}
