package links_test

import (
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/links"
	"github.com/evenkeel/evenkeel/replicator"
)

// Each partition of each stream has a row, whatever a link knows of it, and none says that a mirror
// is not behind because nobody knows how far.
func TestLagsAreUnknownRatherThanZero(t *testing.T) {
	cfg := config.Default()
	cfg.Region, cfg.Partitions = "eu-central-1", 1
	cfg.Streams = map[events.Stream]config.Stream{"config": {Topic: "config"}, "session": {Topic: "sessions"}}
	origin := events.FirstOrigin("us-east-1")
	d := replicator.Details{Status: replicator.Status{Origin: origin}, Partitions: []replicator.PartitionStatus{
		{Topic: cfg.AttestationTopic(), State: replicator.Mirroring},
		{Topic: "included", State: replicator.Paused},
		{Topic: "sessions", State: replicator.Mirroring, SourceNext: new(int64(5)), Lag: replicator.Lag{Records: new(int64(2))}},
	}}
	rows := links.Lags(&cfg, d)
	if len(rows) != 3 {
		t.Fatalf("%d rows: %+v", len(rows), rows)
	}
	for i, want := range []struct {
		topic  string
		stream events.Stream // empty: the topic is no log
		known  int64         // -1: it is not
		text   string
	}{
		{"config", "config", -1, "the link has not come to this partition yet"},
		{"included", "", -1, "paused by an operator"},
		{"sessions", "session", 2, ""},
	} {
		row := rows[i]
		if row.Topic != want.topic || api.Known(row.Records) != want.known || row.Error != want.text {
			t.Errorf("%+v, want %+v", row, want)
		}
		if isLog := row.Log != nil; isLog != (want.stream != "") || isLog && *row.Log != (events.Log{Origin: origin, Stream: want.stream}) {
			t.Errorf("%s is said to be of log %v", row.Topic, row.Log)
		}
	}
	if end := api.Known(rows[2].End); end != 7 {
		t.Errorf("the log ends at %d", end)
	}
	d.Partitions, d.Error = nil, "no broker answers"
	for _, row := range links.Lags(&cfg, d) {
		if row.Records != nil || row.Error != d.Error {
			t.Errorf("%+v", row)
		}
	}
}
