package replicator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/ledger"
)

// names are the distinct topics of what is located.
func names(todo []*locating, of func(*locating) string) []string {
	set := map[string]bool{}
	for _, l := range todo {
		set[of(l)] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func ofMirror(l *locating) string { return l.mirror }
func ofLog(l *locating) string    { return l.log }

// ask lists offsets and gives each part its own.
func ask(ctx context.Context, cluster string, list func(context.Context, ...string) (kadm.ListedOffsets, error), todo []*locating,
	topic func(*locating) string, take func(*locating, int64),
) error {
	listed, err := list(ctx, names(todo, topic)...)
	if err != nil {
		return fmt.Errorf("offsets of %s: %w", cluster, err)
	}
	for _, l := range todo {
		o, ok := listed.Lookup(topic(l), l.num)
		switch {
		case !ok:
			l.fail(fmt.Errorf("offsets of %s, topic %s, partition %d: no answer", cluster, topic(l), l.num))
		case o.Err != nil:
			l.fail(fmt.Errorf("offsets of %s, topic %s, partition %d: %w", cluster, topic(l), l.num, o.Err))
		default:
			take(l, o.Offset)
		}
	}
	return nil
}

func (m *mover) findMirror(ctx context.Context, todo []*locating) error {
	err := ask(ctx, m.dest.name, m.dest.admin.ListEndOffsets, todo, ofMirror, func(l *locating, at int64) { l.f.mirrorEnd = at })
	if err != nil {
		return err
	}
	return ask(ctx, m.dest.name, m.dest.admin.ListStartOffsets, todo, ofMirror, func(l *locating, at int64) { l.f.mirrorStart = at })
}

func (m *mover) findSource(ctx context.Context, todo []*locating) error {
	err := ask(ctx, m.source.name, m.source.admin.ListStartOffsets, todo, ofLog, func(l *locating, at int64) { l.f.sourceStart = at })
	if err != nil {
		return err
	}
	// Up to the last stable offset, behind which nothing is mirrored.
	return ask(ctx, m.source.name, m.source.admin.ListCommittedOffsets, todo, ofLog, func(l *locating, at int64) { l.f.sourceEnd = at })
}

// findProducers asks which sequence the destination remembers of each mirror's
// producer.
func (m *mover) findProducers(ctx context.Context, todo []*locating) error {
	set := kadm.TopicsSet{}
	for _, l := range todo {
		if !l.fresh {
			set.Add(l.mirror, l.num)
		}
	}
	if len(set) == 0 {
		return nil
	}
	described, err := m.dest.admin.DescribeProducers(ctx, set)
	if err != nil {
		return fmt.Errorf("producers of %s: %w", m.dest.name, err)
	}
	for _, l := range todo {
		d, ok := described[l.mirror].Partitions[l.num]
		switch {
		case l.fresh:
		case !ok:
			l.fail(fmt.Errorf("producers of %s, topic %s, partition %d: no answer", m.dest.name, l.mirror, l.num))
		case d.Err != nil:
			l.fail(fmt.Errorf("producers of %s, topic %s, partition %d: %w", m.dest.name, l.mirror, l.num, d.Err))
		default:
			state, known := d.ActiveProducers[l.producer.ID]
			l.f.producing, l.f.lastSequence = known && state.LastSequence >= 0, state.LastSequence
			if l.f.producing && l.f.ahead(l.f.mirrorEnd) {
				m.findLogEnd(ctx, l)
			}
		}
	}
	return nil
}

// findLogEnd looks where the log of a mirror ends whose producer has written more than
// can be read of it: that is soon so if it is only not replicated yet, or if another
// instance of the link is at work. It never is if batches have landed elsewhere than
// they were due.
func (m *mover) findLogEnd(ctx context.Context, l *locating) {
	m.doubt(l.part) // whoever forgets the producer later must not go on without comparing
	end, err := m.dest.logEnd(ctx, l.dest, l.mirror, l.num)
	switch {
	case err != nil:
		l.fail(err)
	case l.f.ahead(end):
		l.f.displaced = true
	default:
		l.fail(fmt.Errorf("%s of %s, partition %d, can be read up to offset %d, and the link has written more: that is not replicated yet, "+
			"or another instance of the link is at work", l.mirror, m.dest.name, l.num, l.f.mirrorEnd))
	}
}

// logEnd is where a leader's log ends, be it replicated up to there or not.
func (c *cluster) logEnd(ctx context.Context, at leader, topic string, num int32) (int64, error) {
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.CurrentLeaderEpoch, rp.Timestamp = num, at.epoch, -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, rp)
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = debuggingReplica
	req.Topics = append(req.Topics, rt)
	kresp, err := c.client.Broker(int(at.broker)).RetriableRequest(ctx, req)
	if err == nil {
		resp := kresp.(*kmsg.ListOffsetsResponse)
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			err = errors.New("no answer")
		} else if p := resp.Topics[0].Partitions[0]; p.ErrorCode == 0 {
			return p.Offset, nil
		} else {
			err = kerr.ErrorForCode(p.ErrorCode)
		}
	}
	return 0, fmt.Errorf("end of the log of %s, topic %s, partition %d: %w", c.name, topic, num, err)
}

// debuggingReplica is to whom a broker tells where its log ends, rather than up to where
// consumers may read (ListOffsetsRequest.DEBUGGING_REPLICA_ID).
const debuggingReplica = -2

// epochBefore is the source's leader epoch of the record before an offset, -1 if
// it is not known.
func (l *locating) epochBefore(next int64) int32 {
	epoch := int32(-1)
	for _, e := range l.epochs {
		if e.Start < next {
			epoch = e.Epoch
		}
	}
	return epoch
}

// findEpochs asks where the source's leader epoch ended under which the last
// record was mirrored: below what was mirrored, if that was lost.
func (m *mover) findEpochs(ctx context.Context, todo []*locating) error {
	if m.relay != nil {
		return nil // a peer's epochs are not the origin's
	}
	asked := map[*locating]int32{}
	for _, l := range todo {
		l.epochs = m.ledger.Epochs(l.partition.ledger())
		next, mapped := l.f.next()
		if epoch := l.epochBefore(next); mapped && epoch >= 0 {
			asked[l] = epoch
		}
	}
	for len(asked) > 0 { // mostly once, and each time for earlier epochs
		if err := m.askEpochs(ctx, asked); err != nil {
			return err
		}
	}
	return nil
}

// askEpochs asks about an epoch for each, and leaves those about which to ask
// next.
func (m *mover) askEpochs(ctx context.Context, asked map[*locating]int32) error {
	var req kadm.OffsetForLeaderEpochRequest
	for l, epoch := range asked {
		req.Add(l.topic, l.num, epoch)
	}
	resp, err := m.source.admin.OffsetForLeaderEpoch(ctx, req)
	if err != nil {
		return fmt.Errorf("leader epochs of %s: %w", m.source.name, err)
	}
	for l, epoch := range asked {
		delete(asked, l)
		r, ok := resp[l.topic][l.num]
		switch {
		case !ok || r.Err != nil:
			l.fail(fmt.Errorf("leader epoch of %s, %s: %w", m.source.name, l.partition, cmpErr(r.Err)))
		case r.EndOffset >= 0:
			end, earlier := common(l.epochs, epoch, r.LeaderEpoch, r.EndOffset)
			if !l.f.epochKnown || end < l.f.epochEnd {
				l.f.epochKnown, l.f.epochEnd = true, end
			}
			if earlier >= 0 {
				asked[l] = earlier
			}
		}
	}
	return nil
}

// common is up to where a log is the one that was mirrored, as far as its answer about
// an epoch shows: the last epoch that it has had up to the asked one, and where that
// ended. If it was never led under the asked one, it has lost all records of that, but has
// perhaps others under the epochs before, which do not count (KIP-101). If it answers with
// an epoch of which nothing was mirrored, earlier is the one to ask about next; else it is
// -1.
func common(mirrored []ledger.Epoch, asked, answered int32, end int64) (upTo int64, earlier int32) {
	if answered >= asked {
		return end, -1
	}
	earlier = -1
	for _, e := range mirrored {
		if e.Epoch > answered {
			return min(end, e.Start), earlier
		}
		if earlier = e.Epoch; e.Epoch == answered {
			earlier = -1
		}
	}
	return end, earlier // not reached: the asked one is among them
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("no answer")
	}
	return err
}

// findTails compares the last record of mirrors with the source's, where there
// is reason to: at first, and after anything odd.
func (m *mover) findTails(ctx context.Context, todo []*locating) error {
	var compared []*locating
	var mirrors, logs []spot
	for _, l := range todo {
		last := l.f.mirrorEnd - 1
		at, mapped := l.f.runs.Source(last)
		if !l.compares || l.broken() != nil || !mapped || last < l.f.mirrorStart || at < l.f.sourceStart || at >= l.f.sourceEnd {
			continue
		}
		there := l.readFrom(at)
		if l.peer != nil {
			if back, _ := l.peer.Source(there); back != at {
				continue // the peer never had it
			}
		}
		l.f.tailOffset, l.f.tailMirrorAt = at, last
		compared = append(compared, l)
		mirrors = append(mirrors, spot{l.mirrorID, l.mirror, l.num, l.dest, last})
		logs = append(logs, spot{l.sourceID, l.log, l.num, l.source, there})
	}
	if len(compared) == 0 {
		return nil
	}
	inMirror, inLog := m.dest.recordsAt(ctx, mirrors), m.source.recordsAt(ctx, logs)
	for i, l := range compared {
		a, b := inLog[i], inMirror[i]
		switch {
		case a.err != nil && !errors.Is(a.err, errNoRecord):
			l.fail(a.err)
		case b.err != nil && !errors.Is(b.err, errNoRecord):
			l.fail(b.err)
		case a.err != nil || b.err != nil: // compacted away, or expired just now
		case a.record.SameAs(b.record):
			l.f.tail = same
		default:
			l.f.tail = differs
		}
	}
	return ctx.Err()
}

// findLimits asks what mirrors take at most that have refused a batch.
func (m *mover) findLimits(ctx context.Context, todo []*locating) error {
	for _, l := range todo {
		if l.limitBytes > 0 || l.refused == 0 {
			continue
		}
		configs, err := m.dest.admin.DescribeTopicConfigs(ctx, l.mirror)
		if err != nil {
			return fmt.Errorf("configuration of %s in %s: %w", l.mirror, m.dest.name, err)
		}
		limit := l.refused - 1
		for _, c := range configs[0].Configs {
			if n, err := strconv.Atoi(c.MaybeValue()); c.Key == "max.message.bytes" && err == nil {
				limit = min(limit, n)
			}
		}
		m.mu.Lock()
		l.limitBytes = limit
		m.mu.Unlock()
	}
	return nil
}
