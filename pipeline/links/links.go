package links

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/replicator"
)

// origin finds the origin that a link is named by.
func (k *Links) origin(name string) (events.Origin, error) {
	var names []string
	for _, kept := range k.kept {
		if kept.origin.String() == name {
			return kept.origin, nil
		}
		names = append(names, kept.origin.String())
	}
	if len(names) == 0 {
		return events.Origin{}, events.Errorf(events.KindNotFound, "%s has no links: no other regions are configured", k.cfg.Region)
	}
	return events.Origin{}, events.Errorf(events.KindNotFound, "%s has no link from %q; there are links from %s", k.cfg.Region, name, strings.Join(names, ", "))
}

// Details are a link's details. While a partition waits, or is paused or
// stopped, nobody asks the source, so its lag is not known, however short it was a
// moment ago.
func Details(l *replicator.Link) replicator.Details {
	d := l.Details()
	d.Partitions = slices.Clone(d.Partitions)
	for i, p := range d.Partitions {
		if p.State == replicator.Waiting || p.State == replicator.Paused || p.State.Stopped() {
			d.Partitions[i].Lag = replicator.Lag{}
		}
	}
	return d
}

// ListLinks implements api.LinksNode.
func (k *Links) ListLinks(ctx context.Context) (*api.LinkList, error) {
	list := &api.LinkList{Links: []api.LinkRow{}}
	for _, d := range k.All(ctx) {
		list.Links = append(list.Links, rowOf(k.cfg, d))
	}
	return list, nil
}

// rowOf sums up a link.
func rowOf(cfg *config.Config, d replicator.Details) api.LinkRow {
	row := api.LinkRow{Status: d.Status, Partitions: map[replicator.State]int{}, Failing: []replicator.TaskStatus{}, Memory: d.Memory}
	for _, p := range d.Partitions {
		row.Partitions[p.State]++
	}
	for _, t := range d.Tasks {
		if t.State == "failing" && t.Task != replicator.TaskData { // that is told of its partitions
			row.Failing = append(row.Failing, t)
		}
	}
	lags := Lags(cfg, d)
	row.Lag = replicator.Lag{Records: new(int64), Bytes: new(int64), Seconds: new(float64)}
	for _, l := range lags {
		if l.Records == nil {
			row.Unknown++
		}
		row.Lag.Records = api.Combine(row.Lag.Records, l.Records, func(a, b int64) int64 { return a + b })
		row.Lag.Bytes = api.Combine(row.Lag.Bytes, l.Bytes, func(a, b int64) int64 { return a + b })
		row.Lag.Seconds = api.Combine(row.Lag.Seconds, l.Seconds, func(a, b float64) float64 { return max(a, b) })
	}
	if len(d.Lacking) > 0 {
		row.Lag = replicator.Lag{} // what has no mirror is behind by nobody knows how much
	}
	return row
}

// ShowLink implements api.LinksNode.
func (k *Links) ShowLink(ctx context.Context, p api.ShowLinkParams) (*api.LinkDetails, error) {
	return onLink(ctx, k, p.Origin,
		func(l *replicator.Link) (*api.LinkDetails, error) { return k.showLink(ctx, l, p) },
		func(ctx context.Context, c *api.Client) (*api.LinkDetails, error) { return c.ShowLink(ctx, p) })
}

func (k *Links) showLink(ctx context.Context, l *replicator.Link, p api.ShowLinkParams) (_ *api.LinkDetails, err error) {
	if p.Topic == "" && p.Partition != nil {
		return nil, events.Errorf(events.KindInvalid, "partition %d of which topic?", *p.Partition)
	}
	d := &api.LinkDetails{Details: Details(l)}
	if p.Topic == "" {
		return d, nil
	}
	num := int32(replicator.All)
	if p.Partition != nil {
		num = *p.Partition
	}
	if d.Partitions, err = scope(d.Details, p.Topic, num); err != nil {
		return nil, err
	}
	if p.Partition != nil {
		runs, err := l.Runs(ctx, p.Topic, num)
		if err != nil {
			return nil, err
		}
		d.Runs = &runs
	}
	return d, nil
}

// scope are the partitions of a topic, or the one.
func scope(d replicator.Details, topic string, num int32) ([]replicator.PartitionStatus, error) {
	var found []replicator.PartitionStatus
	topics := map[string]bool{}
	for _, p := range d.Partitions {
		topics[p.Topic] = true
		if p.Topic == topic && (num == replicator.All || p.Partition == num) {
			found = append(found, p)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case topics[topic]:
		return nil, events.Errorf(events.KindNotFound, "topic %s of %s has no partition %d", topic, d.Origin, num)
	case len(topics) == 0:
		return nil, events.Errorf(events.KindNotReady, "the link from %s does not know its topics yet: %s", d.Origin, cmp.Or(d.Error, "starting"))
	}
	return nil, events.Errorf(events.KindNotFound, "the link from %s does not mirror topic %q; it mirrors %s",
		d.Origin, topic, strings.Join(slices.Sorted(maps.Keys(topics)), ", "))
}

// PauseLink implements api.LinksNode.
func (k *Links) PauseLink(ctx context.Context, p api.PauseLinkParams) (*api.LinkPaused, error) {
	return onLink(ctx, k, p.Origin,
		func(l *replicator.Link) (*api.LinkPaused, error) { return setPause(ctx, l, p, true) },
		func(ctx context.Context, c *api.Client) (*api.LinkPaused, error) { return c.PauseLink(ctx, p) })
}

// UnpauseLink implements api.LinksNode.
func (k *Links) UnpauseLink(ctx context.Context, p api.PauseLinkParams) (*api.LinkPaused, error) {
	return onLink(ctx, k, p.Origin,
		func(l *replicator.Link) (*api.LinkPaused, error) { return setPause(ctx, l, p, false) },
		func(ctx context.Context, c *api.Client) (*api.LinkPaused, error) { return c.UnpauseLink(ctx, p) })
}

func setPause(ctx context.Context, l *replicator.Link, p api.PauseLinkParams, paused bool) (*api.LinkPaused, error) {
	d := Details(l)
	what, concerned, err := pauseScope(d, p.What)
	if err != nil {
		return nil, err
	}
	for _, w := range what {
		if err := l.SetPause(ctx, w, paused); err != nil {
			return nil, err
		}
	}
	result := &api.LinkPaused{Origin: d.Origin, What: what, Paused: paused, Partitions: []replicator.PartitionStatus{}}
	for _, p := range Details(l).Partitions {
		if concerned(p) && (p.State == replicator.Paused || p.State.Stopped()) {
			result.Partitions = append(result.Partitions, p)
		}
	}
	return result, nil
}

// pauseScope reads what is to be paused: as the link calls it, and which
// partitions that concerns.
func pauseScope(d replicator.Details, text string) (what []string, concerned func(replicator.PartitionStatus) bool, err error) {
	const link = "link"
	switch text = cmp.Or(text, link); text {
	case link, string(replicator.TaskData):
		return []string{text}, func(replicator.PartitionStatus) bool { return true }, nil
	case string(replicator.TaskTopics), string(replicator.TaskGroups), string(replicator.TaskACLs):
		return []string{text}, func(replicator.PartitionStatus) bool { return false }, nil
	}
	topic, num, err := parseTopicPause(text)
	if err != nil {
		return nil, nil, err
	}
	parts, err := scope(d, topic, num)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range parts {
		what = append(what, fmt.Sprintf("topic/%s/%d", p.Topic, p.Partition))
	}
	return what, func(p replicator.PartitionStatus) bool {
		return p.Topic == topic && (num == replicator.All || p.Partition == num)
	}, nil
}

func parseTopicPause(text string) (topic string, num int32, err error) {
	rest, isTopic := strings.CutPrefix(text, "topic/")
	topic, partition, one := strings.Cut(rest, "/")
	num = replicator.All
	if one {
		n, err := strconv.ParseInt(partition, 10, 32)
		if num = int32(n); err != nil || n < 0 {
			isTopic = false
		}
	}
	if !isTopic || topic == "" {
		return "", 0, events.Errorf(events.KindInvalid, "pause of %q: want link, data, topics, groups, acls, topic/TOPIC or topic/TOPIC/PARTITION", text)
	}
	return topic, num, nil
}

// VerifyLink implements api.LinksNode.
func (k *Links) VerifyLink(ctx context.Context, p api.VerifyLinkParams) (*replicator.Verified, error) {
	return onLink(ctx, k, p.Origin,
		func(l *replicator.Link) (*replicator.Verified, error) { return verifyLink(ctx, l, p) },
		func(ctx context.Context, c *api.Client) (*replicator.Verified, error) { return c.VerifyLink(ctx, p) })
}

func verifyLink(ctx context.Context, l *replicator.Link, p api.VerifyLinkParams) (*replicator.Verified, error) {
	if p.From < 0 {
		return nil, events.Errorf(events.KindInvalid, "verify from offset %d: want 0 or more", p.From)
	}
	if _, err := scope(Details(l), p.Topic, p.Partition); err != nil {
		return nil, err
	}
	if p.Partition < 0 {
		return nil, events.Errorf(events.KindInvalid, "verify partition %d: want one partition", p.Partition)
	}
	return l.Verify(ctx, p.Topic, p.Partition, p.From)
}
