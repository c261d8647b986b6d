package pipeline_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// order is that of the regions in these tests.
var order = [3]events.Region{us, west, eu}

func (r *region) check() []divergence.Finding {
	r.w.Helper()
	c, err := r.Check(r.w.Context(), api.CheckParams{})
	if err != nil {
		r.w.Fatalf("%s: check: %v", r.cfg.Region, err)
	}
	if want := len(r.w.regions) * len(r.cfg.Streams) * partitions; len(c.Logs) != want || c.Region != r.cfg.Region {
		r.w.Fatalf("%s: check tells of %d logs, want %d", r.cfg.Region, len(c.Logs), want)
	}
	return c.Logs
}

// finds waits until a region's findings are all consistent, but for the given log,
// which has a result and a layer.
func (r *region) finds(log events.Log, result divergence.Result, layer divergence.Layer) {
	r.w.Helper()
	r.await(fmt.Sprintf("%s: %s %s", log, result, layer), func() error {
		for _, f := range r.check() {
			want, wantLayer := divergence.Consistent, divergence.Layer("")
			if f.Log == log {
				want, wantLayer = result, layer
			}
			if f.Result != want || f.Layer != wantLayer {
				return errors.New(f.Describe(r.cfg.Region))
			}
		}
		return nil
	})
}

func (r *region) consistent() {
	r.w.Helper()
	r.finds(events.Log{}, divergence.Consistent, "")
}

func TestCheckConsistent(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		for i := range 50 {
			a.put(fmt.Sprint("k", i%7), "a")
			c.put(fmt.Sprint("k", i%7), "c")
		}
		for _, r := range []*region{a, b, c} {
			r.consistent()
			only, err := r.Check(a.w.Context(), api.CheckParams{Stream: "config"})
			if err != nil || len(only.Logs) != 3*partitions || only.Count(divergence.Consistent) != 3*partitions {
				t.Errorf("%+v, %v", only, err)
			}
			_, err = r.Check(a.w.Context(), api.CheckParams{Stream: "nonsense"})
			wantKind(t, err, events.KindNotFound, "nonsense", "config, session")
		}
		// Everything that was written is known everywhere, and everybody knows that.
		a.await("stable", func() error {
			written := int64(0)
			for _, f := range a.check() {
				written += f.Stable
			}
			if written != 100 {
				return fmt.Errorf("%d of 100 records are stable", written)
			}
			return nil
		})
	})
}

// A byte that is flipped on its way into a mirror, under load: that mirror and no
// other, as a difference of records, within seconds.
func TestFlippedByteInAMirror(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		a.put("k", "v")
		for _, r := range []*region{a, b, c} {
			r.consistent()
		}
		log := events.Log{Origin: events.FirstOrigin(us), Stream: "session", Partition: 0}
		flipped := c.flip("us-east-1.session", "poison")
		for i := range 10 {
			var batch []*kgo.Record
			for j := range 1500 {
				value := "value"
				if i == 5 && j == 700 {
					value = "poison"
				}
				batch = append(batch, &kgo.Record{Topic: "session", Key: fmt.Append(nil, j%100), Value: []byte(value)})
			}
			a.produce(batch...)
			if i == 5 {
				c.await("flipped", func() error {
					if flipped() {
						return nil
					}
					return errors.New("no")
				})
				c.within(3*time.Second, "detection", func() { c.finds(log, divergence.Diverged, divergence.LayerLog) })
			}
			time.Sleep(time.Second)
		}
		c.finds(log, divergence.Diverged, divergence.LayerLog)
		a.consistent()
		b.consistent()

		// It is a problem that is told, and no reason to take the region away.
		if err := c.Ready(a.w.Context()); err != nil {
			t.Errorf("not ready: %v", err)
		}
		want := "us-east-1/session/0 in eu-central-1 differs from what us-east-1 attests at offset "
		if s := c.status(); !strings.Contains(strings.Join(s.Problems, "\n"), want) || !s.Ready {
			t.Errorf("status: %v", s.Problems)
		}
		if n := strings.Count(c.log.String(), "divergence found"); n != 1 {
			t.Errorf("the log tells it %d times", n)
		}
	})
}

// flip has the region's Kafka store a batch of a topic with one byte of a text in
// it changed, once.
func (r *region) flip(topic, text string) (done func() bool) {
	var flipped atomic.Bool
	id := r.kafka.TopicInfo(topic).TopicID
	r.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.kafka.KeepControl()
		for i, t := range req.(*kmsg.ProduceRequest).Topics {
			for j, p := range t.Partitions {
				at := bytes.Index(p.Records, []byte(text))
				if t.TopicID != id && t.Topic != topic || at < 0 || flipped.Load() {
					continue
				}
				records := bytes.Clone(p.Records)
				records[at] ^= 1
				const crcAt, crcFrom = 17, 21
				binary.BigEndian.PutUint32(records[crcAt:], crc32.Checksum(records[crcFrom:], crc32.MakeTable(crc32.Castagnoli)))
				req.(*kmsg.ProduceRequest).Topics[i].Partitions[j].Records = records
				flipped.Store(true)
			}
		}
		return nil, nil, false
	})
	return flipped.Load
}

// brokenRule folds an event a number of times.
type brokenRule struct {
	lww.Rule
	times int
}

func (b brokenRule) Fold(dst, prev []byte, e *events.Event, at events.Position) ([]byte, error) {
	slice := prev
	for range b.times {
		var err error
		if slice, err = b.Rule.Fold(nil, slice, e, at); err != nil {
			return nil, err
		}
	}
	return append(dst, slice...), nil
}

// A record that is skipped, and one that is folded twice: in the one region where
// it happens, as a difference of what was made of equal records. At the origin
// itself: in all the others, and there too, because it has said otherwise before.
func TestWrongFold(t *testing.T) {
	long(t)
	for name, times := range map[string]int{"skipped": 0, "doubled": 2} {
		for _, where := range []events.Region{eu, us} {
			t.Run(name+" in "+where.String(), func(t *testing.T) {
				threeOf(t, order, func(a, b, c *region) {
					first := a.put("k", "1")
					culprit := map[events.Region]*region{us: a, eu: c}[where]
					for _, r := range []*region{a, b, c} {
						r.has("k", "1") // what was attested before it is consistent too
						r.consistent()
					}
					culprit.stop()
					before := culprit.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
					culprit.start()
					record := &kgo.Record{Topic: "session", Partition: first.Partition, Key: []byte("k"), Value: []byte("2")}
					a.produce(record)
					culprit.has("k", "2")
					b.await("attested", func() error {
						if i := slices.IndexFunc(b.check(), func(f divergence.Finding) bool { return f.Log == first.Log }); *b.check()[i].Attested != first.Offset+2 {
							return errors.New("not yet")
						}
						return nil
					})
					culprit.stop()
					culprit.disk = before
					culprit.foldWrongly(first.Log, times)
					culprit.start()
					for _, r := range []*region{a, b, c} {
						if culprit == a || r == culprit {
							r.finds(first.Log, divergence.Diverged, divergence.LayerFold)
						} else {
							r.consistent()
						}
					}
				})
			})
		}
	}
}

// foldWrongly folds what a stopped node's state lacks of a log of the first region.
func (r *region) foldWrongly(log events.Log, times int) {
	r.w.Helper()
	rule := brokenRule{times: times}
	shard, err := projections.Open(projections.Config{
		Partition: log.Partition, Dir: filepath.Join(pipeline.StateDir(r.cfg), fmt.Sprintf("shard-%04d", log.Partition)), FS: r.disk,
		Rules: map[events.Stream]merge.Rule{"session": rule, "config": rule}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.w.Fatal(err)
	}
	done, err := shard.Apply([]projections.Run{{Log: log, Records: r.w.regions[0].read("session", log.Partition)}})
	if err = errors.Join(err, shard.Close()); err != nil || done.Events != 1 {
		r.w.Fatalf("%+v, %v", done, err)
	}
}

// What is not compared for a minute is not known, and the reason is told.
func TestCheckBlocked(t *testing.T) {
	long(t)
	threeOf(t, order, func(a, b, c *region) {
		log := a.put("k", "1").Log
		c.consistent()
		if _, err := c.PauseLink(a.w.Context(), api.PauseLinkParams{Origin: us.String(), What: "topic/session"}); err != nil {
			t.Fatal(err)
		}
		a.put("k", "2")
		c.indeterminate("link from us-east-1, topic session, partition", func(l events.Log) bool { return l == log })
		if _, err := c.UnpauseLink(a.w.Context(), api.PauseLinkParams{Origin: us.String(), What: "topic/session"}); err != nil {
			t.Fatal(err)
		}
		c.consistent()

		b.stop()
		b.down()
		c.indeterminate("", func(l events.Log) bool { return l.Origin.Region == west })
		b.up()
		b.start()
		c.consistent()
		b.consistent()
	})
}

// indeterminate waits until exactly the given logs are, for the given reason.
func (r *region) indeterminate(blocked string, which func(events.Log) bool) {
	r.w.Helper()
	r.await("indeterminate", func() error {
		for _, f := range r.check() {
			if is := f.Result == divergence.Indeterminate; is != which(f.Log) || is && (f.Blocked == "" || !strings.Contains(f.Blocked, blocked)) {
				return errors.New(f.Describe(r.cfg.Region))
			}
		}
		return nil
	})
}

// An attestation that is false is a divergence until an operator has seen to it; a
// record that is none is counted and changes nothing.
func TestFalseAttestation(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		p := a.put("k", "1")
		c.consistent()
		a.produce(&kgo.Record{Topic: divergence.Topic, Key: []byte("nonsense"), Value: []byte("nonsense")})
		a.lie(p.Log)
		c.finds(p.Log, divergence.Diverged, divergence.LayerFold)
		time.Sleep(2 * divergence.IdleInterval) // the truth is told again
		c.finds(p.Log, divergence.Diverged, divergence.LayerFold)
		if _, err := c.Acknowledge(a.w.Context(), api.AcknowledgeParams{Log: p.Log}); err != nil {
			t.Fatal(err)
		}
		c.consistent()
		_, err := c.Acknowledge(a.w.Context(), api.AcknowledgeParams{Log: p.Log})
		wantKind(t, err, events.KindRefused, "has not diverged")
	})
}

// lie attests something else of a log than what is true.
func (r *region) lie(log events.Log) {
	r.w.Helper()
	var lie divergence.Attestation
	for _, record := range r.read(divergence.Topic, 0) {
		if said, err := divergence.Read(record); err == nil && said.Log == log {
			lie = said
		}
	}
	lie.Mark.Digest[0] ^= 1
	record, err := lie.Record()
	if err != nil {
		r.w.Fatal(err)
	}
	r.produce(record)
}

// What the metrics say, and that those which the alerts are made of are there.
func TestCheckMetrics(t *testing.T) {
	rules, err := os.ReadFile("../deploy/prometheus/divergence.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	threeOf(t, order, func(a, b, c *region) {
		log := a.put("k", "1").Log
		c.consistent()
		series := gather(t, c.registry)
		for name, want := range map[string]float64{
			`evenkeel_check_logs_configured{}`:                                  3 * 2 * partitions,
			`evenkeel_check_logs{origin="us-east-1",result="consistent"}`:       2 * partitions,
			`evenkeel_check_logs{origin="us-east-1",result="diverged"}`:         0,
			`evenkeel_check_logs{origin="eu-central-1",result="indeterminate"}`: 0,
			`evenkeel_attestations_refused_total{reason="old-epoch"}`:           0,
			`evenkeel_divergences_found_total{layer="fold"}`:                    0,
		} {
			if got, ok := series[name]; !ok || got != want {
				t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
			}
		}
		for _, name := range []string{"evenkeel_attestations_written_total", "evenkeel_attestations_compared_total"} {
			if series[name+"{}"] < 2*partitions {
				t.Errorf("%s is %v", name, series[name+"{}"])
			}
		}
		if age, ok := series[`evenkeel_attestation_age_seconds{origin="us-west-1"}`]; !ok || age > divergence.IdleInterval.Seconds()+5 {
			t.Errorf("age of attestations: %v, %v", age, ok)
		}

		a.lie(log)
		c.finds(log, divergence.Diverged, divergence.LayerFold)
		series = gather(t, c.registry)
		diverged := fmt.Sprintf(`evenkeel_check_diverged{layer="fold",origin="us-east-1",partition="%d",stream="session"}`, log.Partition)
		if series[diverged] != 1 || series[`evenkeel_divergences_found_total{layer="fold"}`] != 1 {
			t.Errorf("%v", series)
		}
		for _, metric := range regexp.MustCompile(`evenkeel_[a-z_]+`).FindAllString(string(rules), -1) {
			known := slices.ContainsFunc(slices.Collect(maps.Keys(series)), func(name string) bool {
				return strings.HasPrefix(name, metric+"{")
			})
			if !known {
				t.Errorf("an alert is made of %s, which there is not", metric)
			}
		}
	})
}

// What alerts add up and compare with what was before is there from the start, as numbers, also of a node that holds
// nothing yet.
func TestMetricsFromTheStart(t *testing.T) {
	one(t, func(r *region) {
		if err := r.tryStart(); err != nil {
			t.Fatal(err)
		}
		series := gather(t, r.registry)
		for name, want := range map[string]float64{
			`evenkeel_check_logs_configured{}`:                            2 * partitions,
			`evenkeel_check_logs{origin="us-east-1",result="consistent"}`: 0,
			`evenkeel_check_logs{origin="us-east-1",result="diverged"}`:   0,
			`evenkeel_backups_total{result="failed"}`:                     0,
			`evenkeel_backups_total{result="ok"}`:                         0,
		} {
			if got, ok := series[name]; !ok || got != want {
				t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
			}
		}
	})
}
