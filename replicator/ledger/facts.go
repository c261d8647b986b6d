package ledger

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Mirror is where a topic's mirror comes from.
type Mirror struct {
	SourceCluster string // cluster id
	SourceTopicID string
	MirrorTopicID string
	Generation    int // raised by each explicit choice to resume
}

func (v mirrorValue) mirror() Mirror {
	return Mirror{SourceCluster: v.SourceCluster, SourceTopicID: v.SourceTopicID, MirrorTopicID: v.MirrorTopicID, Generation: v.Generation}
}

// Mirror is what is known of a topic's mirror, by the topic's name at the source.
func (l *Ledger) Mirror(topic string) (Mirror, bool) {
	v, ok := l.mirrorValue(topic)
	return v.mirror(), ok
}

// Topics are those whose mirrors are known, in order.
func (l *Ledger) Topics() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.state.mirrors))
}

func (l *Ledger) mirrorValue(topic string) (mirrorValue, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.state.mirrors[topic]
	return v, ok
}

// SetMirror notes where a topic's mirror comes from. It returns ErrSuperseded if
// another instance has noted something else since the ledger was last read, or at
// the same time and later: the last write wins. The check is optimistic, so between
// two that write at once the earlier one may be overwritten unseen.
func (l *Ledger) SetMirror(ctx context.Context, topic string, m Mirror) error {
	if topic == "" {
		return fmt.Errorf("set mirror: no topic")
	}
	was, _ := l.Mirror(topic)
	if err := l.Refresh(ctx); err != nil {
		return fmt.Errorf("set mirror of %s: %w", topic, err)
	}
	switch is, ok := l.mirrorValue(topic); {
	case ok && is.mirror() == m:
		return nil
	case is.mirror() != was:
		return fmt.Errorf("set mirror of %s: %s noted another: %w", topic, is.Writer, ErrSuperseded)
	}
	v := mirrorValue{
		SourceCluster: m.SourceCluster, SourceTopicID: m.SourceTopicID, MirrorTopicID: m.MirrorTopicID,
		Generation: m.Generation, Writer: l.writerOfThis(),
	}
	if err := l.write(ctx, l.record(key{Kind: kindMirror, Topic: topic}, v)); err != nil {
		return fmt.Errorf("set mirror of %s: %w", topic, err)
	}
	if is, _ := l.mirrorValue(topic); is.mirror() != m {
		return fmt.Errorf("set mirror of %s: %s noted another: %w", topic, is.Writer, ErrSuperseded)
	}
	return nil
}

// Reached is, of a partition, up to which source offset it was read when the
// mirror ended at Dest: between the record before and Source there is nothing for the
// mirror, only markers, aborted records and what compaction has removed. That stays
// true when they have expired, and cannot be seen any more then. A zero Run says
// nothing.
func (l *Ledger) Reached(p Partition) mapping.Run {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.state.reached[p]
	if !ok || v.Generation != l.state.partition(p).generation {
		return mapping.Run{}
	}
	return mapping.Run{Source: v.Source, Dest: v.Dest}
}

// SetReached notes how far partitions were read. The last write wins; each is as
// true as the others.
func (l *Ledger) SetReached(ctx context.Context, reached map[Partition]mapping.Run) error {
	var records []*kgo.Record
	l.mu.Lock()
	for p, r := range reached {
		v := reachedValue{Generation: l.state.partition(p).generation, Source: r.Source, Dest: r.Dest}
		records = append(records, l.record(key{Kind: kindReached, Topic: p.Topic, Partition: &p.Partition}, v))
	}
	l.mu.Unlock()
	if len(records) == 0 {
		return nil
	}
	if err := l.write(ctx, records...); err != nil {
		return fmt.Errorf("set how far %d partitions were read: %w", len(reached), err)
	}
	return nil
}

// Pauses are what an operator has paused and not resumed, each true.
func (l *Ledger) Pauses() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	paused := map[string]bool{}
	for what, is := range l.state.pauses {
		if is {
			paused[what] = true
		}
	}
	return paused
}

// SetPause pauses or resumes. What can be paused is the caller's: any name but the
// empty one. The last write wins.
func (l *Ledger) SetPause(ctx context.Context, what string, paused bool) error {
	if what == "" {
		return fmt.Errorf("set pause: of what?")
	}
	if err := l.write(ctx, l.record(key{Kind: kindPause, What: what}, pauseValue{Paused: paused, Writer: l.writerOfThis()})); err != nil {
		return fmt.Errorf("set pause of %s: %w", what, err)
	}
	return nil
}
