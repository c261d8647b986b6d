package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/listed"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	// rereadMost is how many records that are archived already are read again so that
	// Touched knows of all since the newest backup. With more to read, what comes
	// would wait too long.
	rereadMost = 1_000_000

	// backupsTried is how many backups are looked at, newest first, if one cannot be
	// read.
	backupsTried = 5

	// damagePatience is for how long the newest segment is read again before it is taken to
	// be damaged for good: it may be the reading.
	damagePatience = time.Minute
)

// place is where the archive of a shard goes on.
type place struct {
	builder *segment.Builder
	read    map[string]map[int32]kgo.Offset

	// fresh are the mirrors that have nothing yet: where they begin shows when they do.
	fresh map[events.Log]bool

	waits bool // for a mirror; it is looked again after a while
}

// find finds out where the archive of the shard goes on, by reading the bucket.
func (s *shard) find(ctx context.Context) (*place, error) {
	a := s.a
	void, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	backup, err := s.backup(ctx)
	if err != nil {
		return nil, err
	}
	bounds, err := s.bounds(ctx)
	if err != nil {
		return nil, err
	}
	at := &place{
		builder: segment.NewBuilder(segment.Config{
			Region: a.cfg.Region, Shard: s.number, Software: a.cfg.Software, Sealer: a.cfg.Sealer, Chain: a.cfg.NewChain(),
		}, s.newest),
		read: map[string]map[int32]kgo.Offset{}, fresh: map[events.Log]bool{},
	}
	if void > 0 {
		if err := at.builder.Void(void); err != nil {
			return nil, err
		}
	}
	others, err := s.others(ctx, at.builder, bounds)
	if err != nil {
		return nil, err
	}
	reread := s.rereads(at.builder, backup)
	for _, topic := range slices.Sorted(maps.Keys(a.cfg.Topics)) {
		if l := a.cfg.Topics[topic].Log(s.number); others[l] != nil {
			s.stopLog(l, others[l])
			continue
		}
		if err := s.place(ctx, at, topic, backup, bounds[topic], reread); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// look reads which segment is the newest that is whole. Those behind it are damaged: void is the number of
// the last of them, 0 if there are none.
func (s *shard) look(ctx context.Context) (void int64, err error) {
	a := s.a
	newest, last, err := segment.Sound(ctx, a.bucket, a.cfg.Region, s.number)
	if err != nil {
		return 0, err
	}
	s.newest = newest
	number := int64(0)
	if newest != nil {
		number = newest.Number
	}
	if number == last {
		s.damaged = time.Time{}
		return 0, nil
	}
	object := format.SegmentName(a.cfg.Region, s.number, last)
	if s.damaged.IsZero() {
		s.damaged = time.Now()
	}
	if left := damagePatience - time.Since(s.damaged); left > 0 {
		return 0, events.Errorf(events.KindInconsistent, "object %s is damaged; if it stays so for %s the archive goes on behind segment %d, with what the logs have", object, left.Round(time.Second), number)
	}
	s.voided(fmt.Sprintf("object %s is damaged: the archive of shard %d has gone on behind segment %d, with what the logs have", object, s.number, number))
	return last, nil
}

// place finds out where the archive of one log goes on.
func (s *shard) place(ctx context.Context, at *place, topic string, backup map[events.Log]events.LogState, b bounds, reread bool) error {
	l := s.a.cfg.Topics[topic].Log(s.number)
	next, known := at.builder.Next(l)
	if !known {
		st := backup[l]
		next = st.Next
		if err := at.builder.Begin(format.LogEnd{Log: l, Next: st.Next, Chain: st.Chain}); err != nil {
			return err
		}
	}
	first, err := s.a.offsets.InLog(ctx, l, b.start)
	if err != nil {
		return err
	}
	end, err := s.a.offsets.InLog(ctx, l, b.end)
	if err != nil {
		return err
	}
	isMirror := l.Origin.Region != s.a.cfg.Region
	at.fresh[l] = isMirror && b.start == b.end
	switch {
	case end < next && isMirror:
		s.stopLog(l, fmt.Errorf("its mirror %s ends at offset %d of the log, its archive at %d: the archive goes on when the mirror has come so far again", topic, end, next))
		at.waits = true
		return nil
	case end < next:
		// It would be a mistake to go on when it has grown to that length.
		s.stopLog(l, fmt.Errorf("topic %s ends at offset %d, its archive at %d: it was truncated or made anew; give the region a new incarnation", topic, end, next))
		return nil
	}
	s.goOn(l)
	from := s.from(l, next, backup, reread)
	passed := false
	if first > next && !isMirror {
		if passed, err = s.a.node.HasRead(ctx, l, next, first); err != nil {
			return err
		}
	}
	if first > next && !passed {
		if err := s.skip(at.builder, format.LogEnd{Log: l, Next: first}, next, backup); err != nil {
			return err
		}
	}
	from = max(from, first)
	if t := s.a.node.Touched(s.number); t != nil {
		t.Begin(l, from)
	}
	offset, err := s.a.offsets.Begin(ctx, l, from)
	if err != nil {
		return err
	}
	at.read[topic] = map[int32]kgo.Offset{s.number: kgo.NewOffset().At(offset)}
	return nil
}

// skip goes on where the log begins now, with the chain if the newest backup knows it
// there. What is between is lost to the archive. (A later backup that has it is where
// a restore begins; from here on all is archived, whether or not there is one.)
func (s *shard) skip(b *segment.Builder, to format.LogEnd, from int64, backup map[events.Log]events.LogState) error {
	if st := backup[to.Log]; st.Next == to.Next {
		to.Chain = st.Chain
	}
	const reason = "the log did not have them any more when they were to be archived"
	if err := b.Skip(to, reason); err != nil {
		return err
	}
	s.gap(to.Log, from, to.Next, reason)
	return nil
}

// from is where to begin to read a log whose archive goes on at next: there, or where
// who is told of what is read has to know it from.
func (s *shard) from(l events.Log, next int64, backup map[events.Log]events.LogState, reread bool) int64 {
	if noted, ok := s.noted[l]; ok {
		return min(next, noted)
	}
	if reread {
		return min(next, backup[l].Next)
	}
	return next
}

// rereads tells whether what was archived since the newest backup is read again.
func (s *shard) rereads(b *segment.Builder, backup map[events.Log]events.LogState) bool {
	if backup == nil || s.a.node.Touched(s.number) == nil {
		return false
	}
	var records int64
	for _, topic := range s.a.cfg.Topics {
		l := topic.Log(s.number)
		next, _ := b.Next(l)
		records += max(0, next-backup[l].Next)
	}
	return records <= rereadMost
}

// backup is the state of the shard's logs in the newest backup that can be read; nil:
// there is none.
func (s *shard) backup(ctx context.Context) (map[events.Log]events.LogState, error) {
	a := s.a
	ids, err := catalog.IDs(ctx, a.bucket, a.cfg.Region)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Backward(ids[max(0, len(ids)-backupsTried):]) {
		m, err := catalog.Load(ctx, a.bucket, a.cfg.Region, id)
		switch kind := events.KindOf(err); {
		case err == nil && int(s.number) < len(m.Shards):
			states := map[events.Log]events.LogState{}
			for _, st := range m.Shards[s.number].States {
				states[st.Log] = st
			}
			return states, nil
		case err == nil || kind == events.KindInconsistent || kind == events.KindRefused || kind == events.KindNotFound || errors.Is(err, objstore.ErrInvalid):
			s.log.Warn("backup cannot be used by the archive; trying the one before it", "backup", id, "error", err)
		default:
			return nil, err
		}
	}
	return nil, nil
}

// bounds are the first offset of a topic, and the one behind its last.
type bounds struct{ start, end int64 }

// bounds asks the cluster where the topics of the shard begin and end.
func (s *shard) bounds(ctx context.Context) (map[string]bounds, error) {
	topics := slices.Sorted(maps.Keys(s.a.cfg.Topics))
	starts, err := s.a.admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("where the logs of %s begin: %w", s.a.cfg.Region, err)
	}
	ends, err := s.a.admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("where the logs of %s end: %w", s.a.cfg.Region, err)
	}
	found := map[string]bounds{}
	for _, topic := range topics {
		start, err := listed.Offset(starts, topic, s.number)
		if err != nil {
			return nil, err
		}
		end, err := listed.Offset(ends, topic, s.number)
		if err != nil {
			return nil, err
		}
		found[topic] = bounds{start, end}
	}
	return found, nil
}
