package divergence_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// marked has the mark of every log at every offset.
type marked struct{}

func (marked) At(_ events.Log, offset int64) (events.Mark, error) {
	return events.Mark{Next: offset}, nil
}
func (marked) Lineage(events.Log) string { return "one" }

// BenchmarkSecond is what a second costs a region of three, with 120 active logs each: to say of its own how they stand, to read
// that of all, and to compare. Kafka's part and the shards' are not in it.
func BenchmarkSecond(b *testing.B) {
	var cfg divergence.Config
	for _, r := range []events.Region{"eu-central-1", "us-east-1", "us-west-1"} {
		cfg.Origins = append(cfg.Origins, events.FirstOrigin(r))
	}
	cfg.Origin = cfg.Origins[0]
	for _, o := range cfg.Origins {
		for stream := range 5 {
			for p := range int32(24) {
				cfg.Logs = append(cfg.Logs, events.Log{Origin: o, Stream: events.Stream(fmt.Sprintf("stream-%d", stream)), Partition: p})
			}
		}
	}
	cfg.Format = func(events.Stream) uint32 { return 1 }
	now := time.Unix(1, 0)
	judge := divergence.NewJudge(cfg, marked{}, now)
	attest := func(log events.Log, next int64) *kgo.Record {
		a := divergence.Attestation{Log: log, Mark: events.Mark{Next: next}, Format: 1, Epoch: 1, Made: now}
		for _, o := range cfg.Origins {
			a.Applied = append(a.Applied, events.Seen{Origin: o, Next: next})
		}
		r, err := a.Record()
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	own := len(cfg.Logs) / len(cfg.Origins)
	compared := 0
	b.ReportAllocs()
	for n := int64(1); b.Loop(); n++ {
		b.StopTimer()
		var others []*kgo.Record
		for _, l := range cfg.Logs[own:] {
			others = append(others, attest(l, n))
		}
		b.StartTimer()
		for _, l := range cfg.Logs[:own] {
			others = append(others, attest(l, n))
		}
		for _, r := range others {
			a, err := divergence.Read(r)
			if err != nil {
				b.Fatal(err)
			}
			if err := judge.Attested(a.Log.Origin, a, now); err != nil {
				b.Fatal(err)
			}
		}
		compared += judge.Compare(now).Compared
		now = now.Add(time.Second)
	}
	if compared == 0 {
		b.Fatal("nothing was compared")
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(cfg.Logs)), "µs/attestation")
}
