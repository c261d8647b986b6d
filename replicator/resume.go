package replicator

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Choice is from where an operator wants a stopped partition mirrored on. What
// the mirror has it keeps; the offsets that it had before keep no translation, except
// after retry and same.
type Choice struct {
	kind   choiceKind
	offset int64
}

type choiceKind int

const (
	retry    choiceKind = iota // as if nothing had happened: the cause is gone
	earliest                   // from the first record that the source still has
	latest                     // from the source's end: what is before is given up
	next                       // from where the link would have gone on
	again                      // the same log, in a topic that was made anew
	exactly
)

var choices = map[string]choiceKind{"retry": retry, "earliest": earliest, "latest": latest, "next": next, "same": again}

// ParseChoice reads retry, earliest, latest, next, same, or an offset of the source.
func ParseChoice(text string) (Choice, error) {
	if kind, ok := choices[text]; ok {
		return Choice{kind: kind}, nil
	}
	offset, err := strconv.ParseInt(text, 10, 64)
	if err != nil || offset < 0 {
		return Choice{}, events.Errorf(events.KindInvalid, "from %q: want retry, earliest, latest, next, same, or an offset of the source", text)
	}
	return Choice{exactly, offset}, nil
}

// All stands for all partitions of a topic.
const All = -1

// Resume lets stopped partitions of a topic go on as an operator chooses. A topic
// that was re-created goes on as a whole only: what is known of it is known for
// all partitions together. One call at a time goes to work: another one finds what it
// has left.
func (l *Link) Resume(ctx context.Context, topic string, num int32, choice Choice) ([]PartitionStatus, error) {
	m, err := l.active()
	if err != nil {
		return nil, err
	}
	select {
	case m.resuming <- struct{}{}:
		defer func() { <-m.resuming }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	parts, err := m.stoppedParts(topic, num)
	if err != nil {
		return nil, err
	}
	if choice.kind != retry {
		if err := m.rebaseAll(ctx, parts, choice); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []PartitionStatus
	for _, p := range parts {
		m.metrics.resume(m.cfg.Origin)
		m.log.Warn("an operator lets a stopped partition go on", "topic", p.topic, "partition", p.num, "was", p.stop)
		p.state, p.stop, p.reason, p.since = Starting, nil, nil, time.Now()
		p.retryAt, p.pause, p.corrupt = time.Now(), 0, 0
		p.doubts++
		p.limitBytes, p.refused = 0, 0
		if choice.kind != retry {
			p.checked, p.acked, p.mirrored = false, 0, 0
		}
		list = append(list, p.status(time.Now()))
	}
	m.wakeLocator()
	return list, nil
}

// active is the mover, if the link is connected.
func (l *Link) active() (*mover, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mover == nil {
		return nil, events.Errorf(events.KindNotReady, "link %s is not connected: %w", l.cfg.name(), l.err)
	}
	return l.mover, nil
}

// stoppedParts finds what is to be resumed, and refuses what cannot be.
func (m *mover) stoppedParts(topic string, num int32) ([]*part, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var parts []*part
	found, recreated := false, 0
	var paused *part
	for _, key := range sortedKeys(m.parts) {
		p := m.parts[key]
		if key.topic != topic {
			continue
		}
		if p.state == SourceRecreated || p.state == MirrorRecreated {
			recreated++
		}
		if p.state == Paused {
			paused = p
		}
		if num == All || key.num == num {
			found = true
			if p.state.Stopped() {
				parts = append(parts, p)
			}
		}
	}
	switch {
	case !found:
		return nil, events.Errorf(events.KindNotFound, "link %s does not mirror %s", m.link, partition{topic, num})
	case len(parts) == 0:
		return nil, events.Errorf(events.KindRefused, "nothing of topic %s is stopped", topic)
	case num != All && recreated > 0:
		return nil, events.Errorf(events.KindRefused, "topic %s was re-created: it goes on with all of its partitions, or not at all; leave out the partition", topic)
	case recreated > 0 && paused != nil:
		return nil, events.Errorf(events.KindRefused, "topic %s was re-created, and its partition %d is paused: it goes on with all of its partitions, or not at all; "+
			"let that one go on first", topic, paused.num)
	}
	return parts, nil
}

// rebaseAll lets mirrors of one topic go on as a choice has it: all of them, or none if it
// is refused for one. What crashes half-way leaves partitions that stop again.
func (m *mover) rebaseAll(ctx context.Context, parts []*part, choice Choice) error {
	bases, err := m.bases(ctx, parts, choice)
	if err != nil {
		return err
	}
	if err := m.noteTopics(ctx, parts[0].topic, bases[0].at); err != nil {
		return fmt.Errorf("link topic of %s: %w", m.dest.name, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(ledgerWide)
	for _, b := range bases {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			if err := m.ledger.Reset(ctx, b.part.ledger(), b.runs); err != nil {
				return fmt.Errorf("link topic of %s: %w", m.dest.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// base is what a choice comes to: at which places, and what the mirror's offsets are
// to mean.
type base struct {
	part *part
	at   places
	runs *mapping.Map
}

// bases finds out what a choice comes to, and changes nothing.
func (m *mover) bases(ctx context.Context, parts []*part, choice Choice) ([]base, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	found, err := m.spots(ctx, parts...)
	if err != nil {
		return nil, err
	}
	bases := make([]base, len(parts))
	for i, p := range parts {
		bases[i] = base{part: p, at: found[i]}
		if bases[i].runs, err = m.rebased(p, found[i], choice); err != nil {
			return nil, err
		}
	}
	return bases, nil
}

// rebased is the map with which a partition goes on.
func (m *mover) rebased(p *part, at places, choice Choice) (*mapping.Map, error) {
	m.mu.Lock()
	known, differs := p.stop.next, p.stop.State == Diverged
	m.mu.Unlock()
	runs := m.ledger.Map(p.ledger()).Clone()
	from := choice.offset
	switch choice.kind {
	case earliest:
		from = at.logStart
	case latest:
		from = at.logEnd
	case again:
		from, _ = runs.Source(at.mirrorEnd)
	case next:
		if from = known; known < 0 {
			from, _ = runs.Source(at.mirrorEnd)
		}
		if known < 0 && differs {
			return nil, events.Errorf(events.KindRefused, "what the mirror of %s has of the source nobody knows, as they differ, nor what comes next: say an offset", p.partition)
		}
	}
	if from < at.logStart || from > at.logEnd {
		return nil, events.Errorf(events.KindRefused, "%s of %s has offsets %d to %d; %d is none of them", p.partition, m.source.name, at.logStart, at.logEnd, from)
	}
	if choice.kind == again {
		return runs, nil
	}
	return mapping.New(mapping.Run{Source: from, Dest: at.mirrorEnd})
}

// noteTopics writes down which topics a mirror and its log are.
func (m *mover) noteTopics(ctx context.Context, topic string, at places) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	facts := ledger.Mirror{SourceTopicID: at.log.topic.String(), MirrorTopicID: at.mirror.topic.String()}
	known, _ := m.ledger.Mirror(topic)
	if known.SourceTopicID == facts.SourceTopicID && known.MirrorTopicID == facts.MirrorTopicID {
		return nil
	}
	facts.Generation = known.Generation + 1
	return m.ledger.SetMirror(ctx, topic, facts)
}

// SetPause pauses the link (what is "link"), one of its tasks, or one partition
// ("topic/TOPIC/PARTITION"), or lets it go on. It holds for every instance of the
// link, also after a restart.
func (l *Link) SetPause(ctx context.Context, what string, paused bool) error {
	m, err := l.active()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := m.ledger.SetPause(ctx, what, paused); err != nil {
		return fmt.Errorf("link topic of %s: %w", m.dest.name, err)
	}
	pauses := m.ledger.Pauses()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = pauses
	m.applyPauses()
	return nil
}
