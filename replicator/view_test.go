package replicator_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// decompressor is the client's own, but for zstd: the client closes its decoders
// by a finalizer, which bubbles do not allow.
type decompressor struct{ kgo.Decompressor }

func (d decompressor) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec != kgo.CodecZstd {
		return d.Decompressor.Decompress(src, codec)
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.DecodeAll(src, nil)
}

// mapOf reads a mirror's mapping from the link topic, as anybody may.
func mapOf(source, dest *cluster, topic string, p int32) *mapping.Map {
	source.w.Helper()
	book := bookOf(source, dest)
	defer book.Close()
	return book.Map(ledger.Partition{Topic: topic, Partition: p})
}

// bookOf reads what the link topic says of the link between two clusters.
func bookOf(source, dest *cluster) *ledger.Ledger {
	source.w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	book, err := ledger.Open(ctx, []kgo.Opt{kgo.SeedBrokers(dest.addresses()...), kgo.Dialer(source.w.dial)}, ledger.Config{
		Topic: replicator.LinkTopic, Link: fmt.Sprintf("%s→%s", events.FirstOrigin(source.region), dest.region), Instance: "checker",
	})
	dest.do(err)
	return book
}

// copied is what a mirror is to be compared with, and how.
type copied struct {
	originals map[int64]*kgo.Record // by their offsets
	start     int64                 // first offset that the source still has
	runs      *mapping.Map
	compacted bool // the mirror need not have everything
	all       bool // what was compacted away is among the originals
}

// checkView fails the test unless a mirror holds exactly the committed records of
// its log, in order, at the offsets that the mapping gives, up to the mirror's end.
// It returns the first committed record that is not mirrored yet, nil if there is
// none. What the mapping does not cover is not looked at.
func checkView(source, dest *cluster, topic string, p int32, compacted bool) (missing *kgo.Record) {
	w := source.w
	w.Helper()
	c := copied{originals: map[int64]*kgo.Record{}, runs: mapOf(source, dest, topic, p), compacted: compacted}
	name := mirror(source.region, topic)
	copies := dest.read(name, p)
	log := source.read(topic, p) // after the mirror: it can only have more
	c.start = source.PartitionInfo(topic, p).LogStartOffset
	for _, r := range log {
		c.originals[r.Offset] = r
	}
	for at, r := range source.journal {
		if at.topic == topic && at.partition == p {
			c.originals[at.offset], c.all = r, true
		}
	}
	if err := c.check(copies); err != nil {
		w.Fatalf("mirror of %s in %s, topic %s, partition %d: %v; runs %v", source.region, dest.region, topic, p, err, c.runs.Runs())
	}
	info := dest.PartitionInfo(name, p)
	if info == nil {
		if len(log) > 0 {
			return log[0]
		}
		return nil
	}
	missing, err := c.missing(log, copies, info.LogStartOffset, info.HighWatermark)
	if err != nil {
		w.Fatalf("mirror of %s in %s, topic %s, partition %d: %v; runs %v", source.region, dest.region, topic, p, err, c.runs.Runs())
	}
	return missing
}

// check goes through the mirror: each of its records is the source's at the offset
// that the mapping says, and all of them ascend.
func (c copied) check(copies []*kgo.Record) error {
	last := int64(-1)
	for _, r := range copies {
		at, ok := c.runs.Source(r.Offset)
		if !ok {
			continue // before an operator's choice
		}
		if at <= last {
			return fmt.Errorf("offset %d is source offset %d, the one before was %d", r.Offset, at, last)
		}
		last = at
		want := c.originals[at]
		switch {
		case want == nil && (at < c.start || c.compacted && !c.all):
		case want == nil:
			return fmt.Errorf("offset %d (key %q, value %.60q) is to be source offset %d, where there is no committed record", r.Offset, r.Key, r.Value, at)
		default:
			if err := compareParts(want, r); err != nil {
				return fmt.Errorf("offset %d is not what it should be: %w", r.Offset, err)
			}
		}
	}
	return nil
}

// missing goes through the log: what lies before the mirror's end is in it, at the
// place that the mapping says. It returns the first record that lies behind.
func (c copied) missing(log, copies []*kgo.Record, start, end int64) (*kgo.Record, error) {
	there := map[int64]bool{}
	for _, r := range copies {
		there[r.Offset] = true
	}
	first := int64(0)
	if runs := c.runs.Runs(); len(runs) > 0 {
		first = runs[0].Source
	}
	for _, r := range log {
		if r.Offset < first {
			continue // given up by an operator
		}
		at, ok := c.runs.Dest(r.Offset, end)
		if !ok || at == end {
			return r, nil
		}
		back, _ := c.runs.Source(at)
		switch {
		case back != r.Offset:
			return nil, fmt.Errorf("source offset %d is lost: the mapping gives offset %d, which is source offset %d", r.Offset, at, back)
		case at >= start && !there[at] && !c.compacted:
			return nil, fmt.Errorf("source offset %d is lost: offset %d of the mirror has no record", r.Offset, at)
		}
	}
	return nil, nil
}

// partition is what the link says of one partition.
func (l *runningLink) partition(topic string, p int32) (replicator.PartitionStatus, error) {
	for _, s := range l.Details().Partitions {
		if s.Topic == topic && s.Partition == p {
			return s, nil
		}
	}
	return replicator.PartitionStatus{}, fmt.Errorf("topic %s, partition %d is not mirrored", topic, p)
}

// awaitView waits until a link has mirrored all committed records of a topic, and
// checks them.
func (l *runningLink) awaitView(topic string) {
	l.w.Helper()
	for p := int32(0); l.source.PartitionInfo(topic, p) != nil; p++ {
		l.awaitViewOf(topic, p)
	}
}

func (l *runningLink) awaitViewOf(topic string, p int32) {
	w := l.w
	w.Helper()
	log := l.source.read(topic, p)
	w.await(fmt.Sprintf("mirror of %s in %s, topic %s, partition %d", l.source.region, l.dest.region, topic, p), func() error {
		s, err := l.partition(topic, p)
		switch {
		case err != nil:
			return err
		case len(log) == 0:
			return nil
		case s.SourceNext == nil:
			return errors.New("where it is is not known: " + s.Reason)
		case *s.SourceNext <= log[len(log)-1].Offset:
			return fmt.Errorf("source offset %d comes next, the log ends with %d; %s: %s", *s.SourceNext, log[len(log)-1].Offset, s.State, s.Reason)
		}
		return nil
	})
	compacted := false
	if v := l.source.TopicInfo(topic).Configs["cleanup.policy"]; v != nil {
		compacted = *v == "compact"
	}
	if r := checkView(l.source, l.dest, topic, p, compacted); r != nil {
		w.Fatalf("mirror of %s in %s, topic %s, partition %d: offset %d is not mirrored, though the link says so",
			l.source.region, l.dest.region, topic, p, r.Offset)
	}
}

// awaitStop waits until a partition is stopped, and returns why.
func (l *runningLink) awaitStop(topic string, p int32) *replicator.StoppedError {
	l.w.Helper()
	var stop *replicator.StoppedError
	l.w.await(fmt.Sprintf("topic %s, partition %d is stopped", topic, p), func() error {
		s, err := l.partition(topic, p)
		if err != nil {
			return err
		}
		if stop = s.Stop; stop == nil {
			return fmt.Errorf("it is %s: %s", s.State, s.Reason)
		}
		if s.State != stop.State || s.Reason != stop.Error() {
			l.w.Errorf("state %s and reason %q of %+v", s.State, s.Reason, stop)
		}
		return nil
	})
	return stop
}

// awaitState waits until a partition is in a state.
func (l *runningLink) awaitState(topic string, p int32, state replicator.State) {
	l.w.Helper()
	l.w.await(fmt.Sprintf("topic %s, partition %d is %s", topic, p, state), func() error {
		s, err := l.partition(topic, p)
		if err == nil && s.State != state {
			err = fmt.Errorf("it is %s: %s", s.State, s.Reason)
		}
		return err
	})
}
