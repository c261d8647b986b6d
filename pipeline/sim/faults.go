package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// Flip has the region's Kafka store a batch of a mirror with one byte of a text in it
// changed, once. Flipped says whether that has happened; until then the fault waits.
func (r *Region) Flip(mirror, text string) (flipped func() bool) {
	var done atomic.Bool
	id := r.kafka.TopicInfo(mirror).TopicID
	r.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.kafka.KeepControl()
		for i, t := range req.(*kmsg.ProduceRequest).Topics {
			for j, p := range t.Partitions {
				at := bytes.Index(p.Records, []byte(text))
				if t.TopicID != id && t.Topic != mirror || at < 0 || done.Load() {
					continue
				}
				records := bytes.Clone(p.Records)
				records[at] ^= 1
				const crcAt, crcFrom = 17, 21
				binary.BigEndian.PutUint32(records[crcAt:], crc32.Checksum(records[crcFrom:], crc32.MakeTable(crc32.Castagnoli)))
				req.(*kmsg.ProduceRequest).Topics[i].Partitions[j].Records = records
				done.Store(true)
			}
		}
		return nil, nil, false
	})
	return done.Load
}

// brokenRule folds the events of one key a number of times, and others as they should be.
type brokenRule struct {
	merge.Rule
	key   string
	times int
}

func (b brokenRule) Fold(dst, prev []byte, e *events.Event, at events.Position) ([]byte, error) {
	if e.Key != b.key {
		return b.Rule.Fold(dst, prev, e, at)
	}
	slice := prev
	for range b.times {
		var err error
		if slice, err = b.Rule.Fold(nil, slice, e, at); err != nil {
			return nil, err
		}
		at.Offset++ // most rules refuse an offset that they have had
	}
	return append(dst, slice...), nil
}

// FoldWrongly folds what the state of a node that does not run lacks of a log: events of one
// key a number of times, be it none.
func (n *Node) FoldWrongly(log events.Log, key string, times int) {
	w := n.region.world
	w.t.Helper()
	rules := w.rules()
	rules[log.Stream] = brokenRule{Rule: rules[log.Stream], key: key, times: times}
	shard, err := projections.Open(projections.Config{
		Partition: log.Partition, Dir: filepath.Join(pipeline.StateDir(n.config()), fmt.Sprintf("shard-%04d", log.Partition)), FS: n.disk,
		Rules: rules, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatalf("%s: %v", n, err)
	}
	_, err = shard.Apply([]projections.Run{{Log: log, Records: w.readTopic(w.home(log), string(log.Stream), log.Partition)}})
	if err = errors.Join(err, shard.Close()); err != nil {
		w.t.Fatalf("%s: %v", n, err)
	}
}

// home is the region in which a log is written.
func (w *World) home(log events.Log) *Region {
	return w.Regions[slices.IndexFunc(w.Regions, func(r *Region) bool { return r.Name == log.Origin.Region })]
}

// Wrong says what a region has to find about a log.
type Wrong func(r *Region, log events.Log) (layer divergence.Layer, perhaps bool)

// AwaitFindings waits until every region has found exactly what is wrong, and has compared
// the rest and found it equal. What it perhaps finds may be equal, too.
func (w *World) AwaitFindings(wrong Wrong) {
	w.t.Helper()
	for _, r := range w.Regions {
		r.await("aware of what is wrong", func() error {
			findings, err := r.findings()
			if err != nil {
				return err
			}
			for _, f := range findings {
				layer, perhaps := wrong(r, f.Log)
				switch {
				case f.Result == divergence.Diverged && f.Layer != layer:
					w.t.Fatalf("%s, which should be %q", f.Describe(r.Name), layer)
				case f.Result == divergence.Diverged, f.Result == divergence.Consistent && (layer == "" || perhaps):
				default:
					return errors.New(f.Describe(r.Name))
				}
			}
			return nil
		})
	}
}

// ProduceTo writes one record into a log, uncompressed.
func (r *Region) ProduceTo(log events.Log, key, value string) {
	r.world.t.Helper()
	r.Produce(&kgo.Record{Topic: string(log.Stream), Partition: log.Partition, Key: []byte(key), Value: []byte(value)})
}

// Lie has the origin of a log attest something else of it than what is true, once.
func (w *World) Lie(log events.Log) {
	w.t.Helper()
	var lie divergence.Attestation
	for _, record := range w.readTopic(w.home(log), divergence.Topic, 0) {
		if said, err := divergence.Read(record); err == nil && said.Log == log {
			lie = said
		}
	}
	lie.Mark.Digest[0] ^= 1
	record, err := lie.Record()
	if err != nil {
		w.t.Fatal(err)
	}
	w.home(log).Produce(record)
}
