package config_test

import (
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
)

// Each log has one topic, and each topic is of one log, here and mirrored.
func TestRoutesAndTopics(t *testing.T) {
	cfg := config.Default()
	cfg.Region = "us-east-1"
	cfg.Regions = map[events.Region]config.Region{"us-east-1": {Incarnation: 1}, "eu-central-1": {Incarnation: 2}}
	routes := cfg.Routes()
	if want := len(cfg.Regions) * len(cfg.Streams); len(routes) != want {
		t.Errorf("%d topics, want %d", len(routes), want)
	}
	for topic, route := range routes {
		if got := cfg.TopicOf(route.Log(3)); got != topic {
			t.Errorf("%s is said to be %s", topic, got)
		}
	}
	if topics := cfg.LogTopics(); strings.Join(topics, " ") != "config metrics registry secrets session" {
		t.Errorf("topics of logs: %q", topics)
	}
}

// Keys go where Kafka's own producers put them; no key at all is an empty one, always.
func TestPartitionOf(t *testing.T) {
	cfg := config.Config{Partitions: 1000}
	for key, want := range map[string]int32{"": 681, "k": 912, "session-1": 804} {
		if got := cfg.PartitionOf([]byte(key)); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
	if cfg.PartitionOf(nil) != cfg.PartitionOf([]byte{}) {
		t.Error("no key is not as an empty one")
	}
	if shards := cfg.Shards(); len(shards) != 1000 || shards[0] != 0 || shards[999] != 999 {
		t.Errorf("shards %v", shards)
	}
}

func TestCheckStream(t *testing.T) {
	cfg := config.Default()
	if err := cfg.CheckStream("session"); err != nil {
		t.Error(err)
	}
	err := cfg.CheckStream("sessions")
	if events.KindOf(err) != events.KindNotFound || !strings.Contains(err.Error(), "there is config, metrics, registry, secrets, session") {
		t.Error(err)
	}
}
