package replicator

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/ledger"
)

// underWay is one partition that is being read, at offset 80 of the source, of which the
// mirror has 60 records.
func underWay() (*fetcher, *flow) {
	m, f, _ := manyParts(1)
	m.metrics, m.log, m.kick = NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler), make(chan struct{}, 1)
	m.source = &cluster{name: "us"}
	for _, p := range m.parts {
		p.state, p.acked, p.mirrored = Mirroring, 60, 60
		p.flow.next, p.flow.end = 80, 80
		return f, p.flow
	}
	panic("no partition")
}

// A source that diverges below what was read may have all that was mirrored: nothing is
// said of the mirror before that is looked at.
func TestDivergingIsLocated(t *testing.T) {
	f, fl := underWay()
	rp := kmsg.NewFetchResponseTopicPartition()
	rp.DivergingEpoch.Epoch, rp.DivergingEpoch.EndOffset = 3, 70
	if f.judge(fl, &rp) {
		t.Error("records of a log that diverges are taken")
	}
	if p := fl.part; p.state != Waiting || p.flow != nil || p.doubts == 0 || p.stop != nil {
		t.Errorf("%s, %v", p.state, p.stop)
	}
}

// Records of an earlier epoch where a later one was noted end what can be mirrored by
// epochs; but first comes what was read before them.
func TestReplacedRecordsStop(t *testing.T) {
	f, fl := underWay()
	m, p := f.m, fl.part
	p.unanswered = 1
	m.drop(prepared{flow: fl, err: fmt.Errorf("append: %w", ledger.ErrReplaced)})
	if p.state != Mirroring || len(f.wanted().flows) != 0 {
		t.Errorf("%s: it stops before what is under way has landed, or reads on", p.state)
	}
	p.unanswered = 0
	m.finishLocked(p)
	if p.state != Truncated || p.stop.From != -1 || p.stop.To != -1 {
		t.Errorf("%s: %v", p.state, p.stop)
	}
}
