package follow

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"
)

// GroupsConfig says which groups are followed, and how offsets are translated.
//
// A group that runs in both regions by itself, each for its own work, must not be
// selected: whenever it is idle at the destination, it would be moved past records
// that only its namesake has seen.
type GroupsConfig struct {
	Select   func(group string) bool   // required: groups
	Named    []string                  // of them, those to ask about whether they are listed or not: a source lists only what may be seen
	Selected func(topic string) bool   // required: topics that are mirrored
	Mirror   func(topic string) string // required: the mirror's name

	// Translate gives the mirror's offset for an offset of the source, exactly; ok
	// is false while it is not known. Required; called by the goroutine of the pass.
	Translate func(topic string, partition int32, source int64) (dest int64, ok bool)
}

// GroupsReport is what a pass over consumer groups saw and did.
type GroupsReport struct {
	Groups    int // that are selected and have offsets on mirrored topics
	Committed int // offsets brought forward at the destination
	Unchanged int // offsets at, or behind, what the destination has
	Skipped   []Skip
}

// Skip is an offset, or a whole group, that was not brought forward.
type Skip struct {
	Group     string
	Topic     string // at the source; empty: the whole group
	Partition int32  // -1: the whole group
	Reason    SkipReason
	Detail    string // empty if the reason says it all
}

// SkipReason is why.
type SkipReason string

const (
	// SkipActive means that the group has members at the destination, which decide there.
	SkipActive SkipReason = "group is active at the destination"
	// SkipType means that it is a share or streams group of that name, which has no such offsets.
	SkipType SkipReason = "group is of another type at the destination"
	// SkipUntranslated means that the mirror's offset is not known yet.
	SkipUntranslated SkipReason = "no exact offset of the mirror yet"
	// SkipNoMirror means that the mirror, or that partition of it, cannot be looked at yet.
	SkipNoMirror SkipReason = "mirror is not there"
	// SkipFailed means that a broker refused or did not answer.
	SkipFailed SkipReason = "failed"
)

const (
	groupsPerRequest    = 200 // bounds requests that read the offsets of groups
	commitsInFlightMost = 16  // a commit is a request for each group
)

// Groups brings the offsets of the source's consumer groups to the destination,
// where groups have the same names.
func Groups(ctx context.Context, source, dest *kadm.Client, cfg GroupsConfig) (GroupsReport, error) {
	p := &groupsPass{dest: dest, cfg: cfg}
	if err := p.readSource(ctx, source); err != nil {
		return GroupsReport{}, err
	}
	if len(p.groups) == 0 {
		return p.finish(), nil
	}
	if err := p.readMirrors(ctx); err != nil {
		return GroupsReport{}, err
	}
	there, err := readPresence(ctx, dest)
	if err != nil {
		return GroupsReport{}, err
	}
	for chunk := range slices.Chunk(p.groups, groupsPerRequest) {
		p.advance(ctx, there, chunk)
	}
	return p.finish(), ctx.Err()
}

// groupsPass is one call of Groups.
type groupsPass struct {
	dest       *kadm.Client
	cfg        GroupsConfig
	groups     []*group // in order
	starts     kadm.ListedOffsets
	ends       kadm.ListedOffsets
	unlistable []Skip // groups whose offsets the source did not tell
}

// group is one group and what becomes of it. One goroutine works on it.
type group struct {
	name      string
	offsets   []kadm.Offset // at the source, on mirrored topics, in order
	committed int
	unchanged int
	skipped   []Skip
}

func (g *group) skip(topic string, partition int32, reason SkipReason, detail string) {
	g.skipped = append(g.skipped, Skip{Group: g.name, Topic: topic, Partition: partition, Reason: reason, Detail: detail})
}

func (g *group) skipWhole(reason SkipReason, detail string) { g.skip("", -1, reason, detail) }

// consumers are the types of groups that have committed offsets.
var consumers = []string{"classic", "consumer"}

// readSource finds the groups that have something to bring over.
func (p *groupsPass) readSource(ctx context.Context, source *kadm.Client) error {
	listed, err := source.ListGroupsByType(ctx, consumers)
	if err != nil && len(listed) == 0 {
		return fmt.Errorf("list groups of the source: %w", err)
	}
	if err != nil { // some brokers did not answer
		p.unlistable = append(p.unlistable, Skip{Partition: -1, Reason: SkipFailed, Detail: fmt.Sprintf("list all groups of the source: %v", err)})
	}
	names := slices.DeleteFunc(listed.Groups(), func(name string) bool { return name == "" || !p.cfg.Select(name) })
	for _, name := range p.cfg.Named {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for chunk := range slices.Chunk(names, groupsPerRequest) {
		fetched := source.FetchManyOffsets(ctx, chunk...)
		if fetched.AllFailed() && len(chunk) == len(names) {
			return fmt.Errorf("read offsets of %d groups of the source: %w", len(names), fetched.Error())
		}
		for _, name := range chunk {
			p.take(name, fetched)
		}
	}
	return ctx.Err()
}

func (p *groupsPass) take(name string, fetched kadm.FetchOffsetsResponses) {
	g := &group{name: name}
	told, err := offsetsOf(name, fetched)
	if err != nil {
		p.unlistable = append(p.unlistable, Skip{Group: name, Partition: -1, Reason: SkipFailed, Detail: fmt.Sprintf("read its offsets at the source: %v", err)})
		return
	}
	for _, o := range told.Sorted() {
		switch {
		case !p.cfg.Selected(o.Topic):
		case o.Err != nil:
			g.skip(o.Topic, o.Partition, SkipFailed, fmt.Sprintf("read it at the source: %v", o.Err))
		case o.At >= 0:
			g.offsets = append(g.offsets, o.Offset)
		}
	}
	if len(g.offsets)+len(g.skipped) > 0 {
		p.groups = append(p.groups, g)
	}
}

// offsetsOf are a group's offsets; none if it does not exist, which brokers say in
// either of two ways.
func offsetsOf(group string, fetched kadm.FetchOffsetsResponses) (kadm.OffsetResponses, error) {
	r, ok := fetched[group]
	switch {
	case !ok:
		return nil, errors.New("the broker did not answer for it")
	case errors.Is(r.Err, kerr.GroupIDNotFound):
		return nil, nil
	}
	return r.Fetched, r.Err
}

// readMirrors reads where the mirrors begin and end. They only grow and expire, so
// that an offset within these bounds is not past the end later.
func (p *groupsPass) readMirrors(ctx context.Context) error {
	wanted := map[string]bool{}
	var mirrors []string
	for _, g := range p.groups {
		for _, o := range g.offsets {
			if m := p.cfg.Mirror(o.Topic); !wanted[m] {
				wanted[m] = true
				mirrors = append(mirrors, m)
			}
		}
	}
	if len(mirrors) == 0 {
		return nil
	}
	var err error
	if p.ends, err = p.dest.ListEndOffsets(ctx, mirrors...); len(p.ends) == 0 && err != nil {
		return fmt.Errorf("read ends of mirrors at the destination: %w", err)
	}
	if p.starts, err = p.dest.ListStartOffsets(ctx, mirrors...); len(p.starts) == 0 && err != nil {
		return fmt.Errorf("read starts of mirrors at the destination: %w", err)
	}
	return nil
}

// advance brings some groups forward.
func (p *groupsPass) advance(ctx context.Context, there presence, groups []*group) {
	var names []string
	var idle []*group
	for _, g := range groups {
		if reason, detail := there.busy(g.name); reason != "" {
			g.skipWhole(reason, detail)
			continue
		}
		idle = append(idle, g)
		names = append(names, g.name)
	}
	fetched := p.dest.FetchManyOffsets(ctx, names...)
	var commits errgroup.Group
	commits.SetLimit(commitsInFlightMost)
	for _, g := range idle {
		at, err := offsetsOf(g.name, fetched)
		if err != nil {
			g.skipWhole(SkipFailed, fmt.Sprintf("read its offsets at the destination: %v", err))
			continue
		}
		if next := p.next(g, at); len(next) > 0 {
			commits.Go(func() error {
				p.commit(ctx, g, next)
				return nil
			})
		}
	}
	_ = commits.Wait() // what fails is in the groups
}

// next says what to commit, by the source's topics.
func (p *groupsPass) next(g *group, at kadm.OffsetResponses) (next []kadm.Offset) {
	for _, o := range g.offsets {
		mirror := p.cfg.Mirror(o.Topic)
		end, ok := bound(p.ends, mirror, o.Partition)
		start, okStart := bound(p.starts, mirror, o.Partition)
		if !ok || !okStart {
			g.skip(o.Topic, o.Partition, SkipNoMirror, fmt.Sprintf("%s at the destination", mirror))
			continue
		}
		have := int64(-1)
		if there, ok := at.Lookup(mirror, o.Partition); ok {
			if there.Err != nil {
				g.skip(o.Topic, o.Partition, SkipFailed, fmt.Sprintf("read it at the destination: %v", there.Err))
				continue
			}
			have = there.At
		}
		dest, ok := p.cfg.Translate(o.Topic, o.Partition, o.At)
		if !ok || dest < 0 {
			g.skip(o.Topic, o.Partition, SkipUntranslated, "")
			continue
		}
		dest = min(max(dest, start), end)
		if dest <= have {
			g.unchanged++
			continue
		}
		next = append(next, kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: dest, LeaderEpoch: -1, Metadata: o.Metadata})
	}
	return next
}

func bound(listed kadm.ListedOffsets, mirror string, partition int32) (offset int64, ok bool) {
	o, ok := listed.Lookup(mirror, partition)
	return o.Offset, ok && o.Err == nil && o.Offset >= 0
}

func (p *groupsPass) commit(ctx context.Context, g *group, next []kadm.Offset) {
	offsets := kadm.Offsets{}
	for _, o := range next {
		o.Topic = p.cfg.Mirror(o.Topic)
		offsets.Add(o)
	}
	done, err := p.dest.CommitOffsets(ctx, g.name, offsets)
	for _, o := range next {
		answered, ok := done.Lookup(p.cfg.Mirror(o.Topic), o.Partition)
		failed := err
		switch {
		case err != nil:
		case !ok:
			failed = errors.New("the broker did not answer for it")
		default:
			failed = answered.Err
		}
		if failed == nil {
			g.committed++
			continue
		}
		reason := SkipFailed
		if refusedForMembers(failed) {
			reason = SkipActive
		}
		g.skip(o.Topic, o.Partition, reason, fmt.Sprintf("commit %d: %v", o.At, failed))
	}
}

func (p *groupsPass) finish() (r GroupsReport) {
	r.Skipped = p.unlistable
	r.Groups = len(p.groups)
	for _, g := range p.groups {
		r.Committed += g.committed
		r.Unchanged += g.unchanged
		r.Skipped = append(r.Skipped, g.skipped...)
	}
	return r
}
