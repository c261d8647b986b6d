package follow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TopicsConfig says which topics have mirrors and what these are like.
type TopicsConfig struct {
	Select      func(topic string) bool   // required
	Mirror      func(topic string) string // required: the mirror's name
	Replication int16                     // of new mirrors; 0 or -1: the destination's default
	Overrides   map[string]string         // configs that the operator sets for mirrors instead of following
}

// TopicsReport is what a pass over topics saw and did. Names in Created, Grown
// and Configured are mirrors'; all lists are in order of the topics' names.
type TopicsReport struct {
	Created    []string
	Grown      []string
	Configured map[string][]Change
	Problems   []Problem
	Topics     []TopicState // all that are selected
}

// Problem is why a topic's mirror is not as it should be.
type Problem struct {
	Topic  string // at the source
	Reason string
}

// TopicState is a selected topic and its mirror after the pass. Whether a mirror
// that was there before belongs to the link is for the caller to judge, by its ID.
type TopicState struct {
	Topic, Mirror    string
	SourceID         kadm.TopicID
	MirrorID         kadm.TopicID // zero: there is none, or it is not known yet
	Partitions       int
	MirrorPartitions int  // 0: there is none, or it is not known yet
	Configured       bool // the mirror has configs under which it can be a copy
	Ready            bool // and all partitions
}

// Topics makes every selected topic of the source have its mirror, with at least
// as many partitions, and configs that follow.
func Topics(ctx context.Context, source, dest *kadm.Client, cfg TopicsConfig) (TopicsReport, error) {
	if err := ValidateOverrides(cfg.Overrides); err != nil {
		return TopicsReport{}, err
	}
	logs, err := source.ListTopicsWithInternal(ctx)
	if err != nil {
		return TopicsReport{}, fmt.Errorf("list topics of the source: %w", err)
	}
	mirrors, err := dest.ListTopicsWithInternal(ctx)
	if err != nil {
		return TopicsReport{}, fmt.Errorf("list topics of the destination: %w", err)
	}
	p := &topicsPass{dest: dest, cfg: cfg, problems: map[string][]string{}, report: TopicsReport{Configured: map[string][]Change{}}}
	p.pair(logs, mirrors)
	if err := p.readConfigs(ctx, source, mirrors); err != nil {
		return TopicsReport{}, err
	}
	p.create(ctx)
	p.grow(ctx)
	p.configure(ctx)
	return p.finish(), nil
}

// topicsPass is one call of Topics.
type topicsPass struct {
	dest       *kadm.Client
	cfg        TopicsConfig
	topics     []*TopicState // in order
	logConfigs map[string]configs
	mirConfigs map[string]configs // of mirrors that were there before
	sample     configs            // of any topic at the destination
	problems   map[string][]string
	report     TopicsReport
}

func (p *topicsPass) problem(topic, format string, args ...any) {
	p.problems[topic] = append(p.problems[topic], fmt.Sprintf(format, args...))
}

// pair finds the mirrors of selected topics.
func (p *topicsPass) pair(logs, mirrors kadm.TopicDetails) {
	for _, log := range logs.Sorted() {
		if !p.cfg.Select(log.Topic) {
			continue
		}
		t := &TopicState{Topic: log.Topic, Mirror: p.cfg.Mirror(log.Topic), SourceID: log.ID, Partitions: len(log.Partitions)}
		p.topics = append(p.topics, t)
		if log.Err != nil {
			p.problem(t.Topic, "the source does not tell about topic %s: %v", t.Topic, log.Err)
			continue
		}
		mirror, exists := mirrors[t.Mirror]
		switch {
		case !exists || notYet(mirror.Err):
			continue
		case mirror.Err != nil:
			p.problem(t.Topic, "the destination does not tell about mirror %s: %v", t.Mirror, mirror.Err)
			continue
		}
		t.MirrorID, t.MirrorPartitions = mirror.ID, len(mirror.Partitions)
		if t.Partitions < t.MirrorPartitions {
			p.problem(t.Topic, "topic %s has %d partitions and its mirror %s has %d: partitions never become fewer, so one of them was re-created; delete the mirror, or mirror the topic under another incarnation",
				t.Topic, t.Partitions, t.Mirror, t.MirrorPartitions)
		}
	}
}

func (p *topicsPass) readConfigs(ctx context.Context, source *kadm.Client, atDest kadm.TopicDetails) error {
	var logs, mirrors []string
	for _, t := range p.topics {
		logs = append(logs, t.Topic)
		if t.MirrorPartitions > 0 {
			mirrors = append(mirrors, t.Mirror)
		}
	}
	told, failed, err := describe(ctx, source, logs)
	if err != nil {
		return fmt.Errorf("read topic configs of the source: %w", err)
	}
	p.logConfigs = told
	for topic, err := range failed {
		p.problem(topic, "configs of topic %s cannot be read at the source: %v", topic, err)
	}
	others := mirrors
	if len(others) == 0 && len(atDest) > 0 {
		others = atDest.Names()[:1]
	}
	told, failed, err = describe(ctx, p.dest, others)
	if err != nil {
		return fmt.Errorf("read topic configs of the destination: %w", err)
	}
	p.mirConfigs = told
	for _, name := range others {
		if c := told[name]; c != nil {
			p.sample = c
			break
		}
	}
	for _, t := range p.topics {
		if err := failed[t.Mirror]; err != nil && !notYet(err) {
			p.problem(t.Topic, "configs of mirror %s cannot be read: %v", t.Mirror, err)
		}
	}
	return nil
}

// create makes missing mirrors, those that are alike with one request.
func (p *topicsPass) create(ctx context.Context) {
	byMirror := map[string]*TopicState{}
	alike := map[string][]string{}
	wanted := map[string]map[string]string{}
	for _, t := range p.topics {
		if t.MirrorPartitions > 0 || len(p.problems[t.Topic]) > 0 {
			continue
		}
		configs := initial(p.logConfigs[t.Topic], p.sample, p.cfg.Overrides)
		key := fmt.Sprintf("%d %q", t.Partitions, configs) // maps print in order
		byMirror[t.Mirror], wanted[key] = t, configs
		alike[key] = append(alike[key], t.Mirror)
	}
	replication := p.cfg.Replication
	if replication == 0 {
		replication = -1
	}
	for _, key := range slices.Sorted(maps.Keys(alike)) {
		values := map[string]*string{}
		for k, v := range wanted[key] {
			values[k] = kmsg.StringPtr(v)
		}
		for chunk := range slices.Chunk(alike[key], topicsPerRequest) {
			partitions := byMirror[chunk[0]].Partitions
			created, err := p.dest.CreateTopics(ctx, int32(partitions), replication, values, chunk...)
			for _, mirror := range chunk {
				t, r := byMirror[mirror], created[mirror]
				switch err := answer(err, r.Topic, r.Err, r.ErrMessage); {
				case err == nil:
					t.MirrorID, t.MirrorPartitions = r.ID, partitions
					// Without a sample some configs wait for the next pass.
					t.Configured = p.sample != nil
					p.report.Created = append(p.report.Created, mirror)
				case errors.Is(err, kerr.TopicAlreadyExists): // and its metadata not here yet
				default:
					p.problem(t.Topic, "create mirror %s with %d partitions: %v", mirror, partitions, err)
				}
			}
		}
	}
}

// grow gives mirrors the partitions that their topics got.
func (p *topicsPass) grow(ctx context.Context) {
	byMirror := map[string]*TopicState{}
	alike := map[int][]string{}
	for _, t := range p.topics {
		if t.MirrorPartitions > 0 && t.MirrorPartitions < t.Partitions {
			byMirror[t.Mirror] = t
			alike[t.Partitions] = append(alike[t.Partitions], t.Mirror)
		}
	}
	for _, partitions := range slices.Sorted(maps.Keys(alike)) {
		for chunk := range slices.Chunk(alike[partitions], topicsPerRequest) {
			grown, err := p.dest.UpdatePartitions(ctx, partitions, chunk...)
			for _, mirror := range chunk {
				t, r := byMirror[mirror], grown[mirror]
				if err := answer(err, r.Topic, r.Err, r.ErrMessage); err != nil {
					p.problem(t.Topic, "grow mirror %s from %d to %d partitions: %v", mirror, t.MirrorPartitions, partitions, err)
					continue
				}
				t.MirrorPartitions = partitions
				p.report.Grown = append(p.report.Grown, mirror)
			}
		}
	}
}

// configure alters the configs of mirrors that were there before, those that
// differ in the same way with one request.
func (p *topicsPass) configure(ctx context.Context) {
	byMirror := map[string]*TopicState{}
	alike := map[string][]string{}
	changes := map[string][]Change{}
	for _, t := range p.topics {
		log, mirror := p.logConfigs[t.Topic], p.mirConfigs[t.Mirror]
		if log == nil || mirror == nil {
			continue
		}
		differing, unknown := plan(log, mirror, p.cfg.Overrides)
		if len(unknown) > 0 {
			p.problem(t.Topic, "the brokers of the destination do not know configs that topic %s sets: %s", t.Topic, strings.Join(unknown, ", "))
		}
		if len(differing) == 0 {
			t.Configured = true
			continue
		}
		byMirror[t.Mirror], changes[t.Mirror] = t, differing
		key := fmt.Sprintf("%q", operations(differing, true))
		alike[key] = append(alike[key], t.Mirror)
	}
	for _, key := range slices.Sorted(maps.Keys(alike)) {
		for chunk := range slices.Chunk(alike[key], topicsPerRequest) {
			p.alter(ctx, chunk, byMirror, changes)
		}
	}
}

func (p *topicsPass) alter(ctx context.Context, mirrors []string, byMirror map[string]*TopicState, changes map[string][]Change) {
	altered, err := p.dest.AlterTopicConfigs(ctx, alterations(changes[mirrors[0]]), mirrors...)
	for _, mirror := range mirrors {
		t := byMirror[mirror]
		r, _ := altered.On(mirror, nil)
		if err := answer(err, r.Name, r.Err, r.ErrMessage); err != nil {
			p.problem(t.Topic, "alter configs of mirror %s (%s): %v", mirror, strings.Join(operations(changes[mirror], false), ", "), err)
			continue
		}
		t.Configured = true
		p.report.Configured[mirror] = changes[mirror]
	}
}

// operations prints changes; those that lead to the same, in short form, are
// made by the same request.
func operations(changes []Change, short bool) (printed []string) {
	for _, c := range changes {
		if short {
			c.Old = ""
		}
		printed = append(printed, c.String())
	}
	return printed
}

func alterations(changes []Change) (alter []kadm.AlterConfig) {
	for _, c := range changes {
		if c.Removed {
			alter = append(alter, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: c.Key})
		} else {
			alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: c.Key, Value: kmsg.StringPtr(c.New)})
		}
	}
	return alter
}

// answer is what became of one topic of a request: err if the request failed.
func answer(err error, name string, topicErr error, message string) error {
	switch {
	case errors.Is(topicErr, kerr.InvalidConfig):
		return fmt.Errorf("%w; override what the destination refuses, if it may be overridden", withMessage(topicErr, message))
	case topicErr != nil:
		return withMessage(topicErr, message)
	case name != "":
		return nil
	case err != nil:
		return err
	}
	return errors.New("the broker did not answer for it")
}

func (p *topicsPass) finish() TopicsReport {
	for _, t := range p.topics {
		t.Ready = t.Configured && t.MirrorPartitions == t.Partitions
		p.report.Topics = append(p.report.Topics, *t)
		for _, reason := range p.problems[t.Topic] {
			p.report.Problems = append(p.report.Problems, Problem{Topic: t.Topic, Reason: reason})
		}
	}
	slices.Sort(p.report.Created)
	slices.Sort(p.report.Grown)
	return p.report
}
