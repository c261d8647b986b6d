package follow_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/follow"
)

// topics runs the pass over topics.
func (w *world) topics(cfg follow.TopicsConfig) follow.TopicsReport {
	w.Helper()
	if cfg.Select == nil {
		p, err := follow.NewPatterns([]string{"*"}, nil)
		w.us.do(err)
		cfg.Select = p.Sparing(follow.Internal("us", "eu")).Match
	}
	cfg.Mirror = mirror
	r, err := follow.Topics(context.Background(), w.us.adm, w.eu.adm, cfg)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// settled runs the pass over topics and fails if it found anything to do.
func (w *world) settled(cfg follow.TopicsConfig) follow.TopicsReport {
	w.Helper()
	w.later()
	r := w.topics(cfg)
	if len(r.Created)+len(r.Grown)+len(r.Configured)+len(r.Problems) > 0 {
		w.Fatalf("a repeated pass did something: %+v", r)
	}
	for _, s := range r.Topics {
		if !s.Ready || s.Partitions != s.MirrorPartitions || s.MirrorID == (kadm.TopicID{}) {
			w.Fatalf("not ready: %+v", s)
		}
	}
	return r
}

func TestTopicsAreCreated(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("session", 3, map[string]string{"retention.ms": "1000", "compression.type": "zstd", "message.timestamp.type": "LogAppendTime", "min.insync.replicas": "2"})
		w.us.create("registry", 5, map[string]string{"cleanup.policy": "compact"})
		w.us.create("eu.session", 3, nil)     // a mirror of our own log
		w.us.create("evenkeel.links", 1, nil) // ours
		w.eu.create("local", 1, nil)
		r := w.topics(follow.TopicsConfig{})
		if got := fmt.Sprint(r.Created); got != "[us.registry us.session]" || len(r.Problems) > 0 {
			t.Fatalf("created %s, problems %v", got, r.Problems)
		}
		if len(r.Topics) != 2 || r.Topics[1].MirrorPartitions != 3 || r.Topics[1].MirrorID != kadm.TopicID(w.eu.TopicInfo("us.session").TopicID) {
			t.Errorf("topics: %+v", r.Topics)
		}
		for topic, want := range map[string]map[string]string{
			"us.session":  {"retention.ms": "1000", "compression.type": "producer", "message.timestamp.type": "CreateTime", "min.insync.replicas": "1", "cleanup.policy": "delete"},
			"us.registry": {"cleanup.policy": "compact", "retention.ms": "604800000"},
		} {
			got := w.eu.configs(topic)
			for k, v := range want {
				if got[k] != v {
					t.Errorf("%s: %s = %q, want %q", topic, k, got[k], v)
				}
			}
		}
		w.settled(follow.TopicsConfig{})
	})
}

// An empty destination does not tell which configs its brokers know.
func TestTopicsInAnEmptyDestination(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("session", 3, map[string]string{"retention.ms": "1000"})
		r := w.topics(follow.TopicsConfig{})
		if len(r.Created) != 1 || r.Topics[0].Ready {
			t.Errorf("%+v", r)
		}
		if got := w.eu.configs("us.session"); got["retention.ms"] != "1000" || got["compression.type"] != "producer" {
			t.Errorf("configs: %v", got)
		}
		w.settled(follow.TopicsConfig{})
	})
}

func TestTopicsGrow(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("a", 1, nil)
		w.us.create("b", 2, nil)
		w.topics(follow.TopicsConfig{})
		w.settled(follow.TopicsConfig{})
		if _, err := w.us.adm.UpdatePartitions(context.Background(), 4, "a", "b"); err != nil {
			t.Fatal(err)
		}
		w.later()
		r := w.topics(follow.TopicsConfig{})
		if got := fmt.Sprint(r.Grown); got != "[us.a us.b]" || r.Topics[0].MirrorPartitions != 4 {
			t.Errorf("grown %s: %+v", got, r)
		}
		if n := len(w.eu.PartitionInfos("us.a")); n != 4 {
			t.Errorf("us.a has %d partitions", n)
		}
		w.settled(follow.TopicsConfig{})
	})
}

func TestTopicWithFewerPartitionsThanItsMirror(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("a", 1, nil)
		w.us.create("b", 1, nil)
		w.eu.create("us.a", 2, nil)
		r := w.topics(follow.TopicsConfig{})
		if len(r.Problems) != 1 || r.Problems[0].Topic != "a" || !strings.Contains(r.Problems[0].Reason, "re-created") {
			t.Errorf("problems: %v", r.Problems)
		}
		if r.Topics[0].Ready || r.Topics[0].MirrorPartitions != 2 {
			t.Errorf("%+v", r.Topics[0])
		}
		if fmt.Sprint(r.Created) != "[us.b]" {
			t.Errorf("the other topic suffers: %v", r.Created)
		}
	})
}

func TestConfigsFollow(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("a", 1, nil)
		w.us.create("b", 1, nil)
		w.topics(follow.TopicsConfig{})
		w.settled(follow.TopicsConfig{})
		for _, step := range []struct {
			name    string
			configs map[string]string
			want    map[string]string
		}{
			{"set", map[string]string{"retention.ms": "5", "segment.ms": "7", "delete.retention.ms": "9"}, map[string]string{"retention.ms": "5", "segment.ms": "7", "delete.retention.ms": "9"}},
			{"changed", map[string]string{"retention.ms": "6"}, map[string]string{"retention.ms": "6"}},
			{"back to default", map[string]string{"retention.ms": "", "segment.ms": "", "delete.retention.ms": ""},
				map[string]string{"retention.ms": "604800000", "segment.ms": "604800000", "delete.retention.ms": "86400000"}},
			{"raised", map[string]string{"max.message.bytes": "5000000"}, map[string]string{"max.message.bytes": "5000000"}},
		} {
			w.us.set("a", step.configs)
			r := w.topics(follow.TopicsConfig{})
			if len(r.Configured["us.a"]) != len(step.configs) || len(r.Configured["us.b"]) > 0 || len(r.Problems) > 0 {
				t.Errorf("%s: %+v", step.name, r)
			}
			got := w.eu.configs("us.a")
			for k, v := range step.want {
				if got[k] != v {
					t.Errorf("%s: %s = %q, want %q", step.name, k, got[k], v)
				}
			}
			w.settled(follow.TopicsConfig{})
		}
		// What was written before the source lowered its limit is still to be copied.
		w.us.set("a", map[string]string{"max.message.bytes": ""})
		w.settled(follow.TopicsConfig{})
		if got := w.eu.configs("us.a")["max.message.bytes"]; got != "5000000" {
			t.Errorf("max.message.bytes of the mirror was lowered to %s", got)
		}
	})
}

func TestWhatOthersSetAtAMirrorIsUndone(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("a", 1, nil)
		w.topics(follow.TopicsConfig{})
		w.settled(follow.TopicsConfig{})
		w.eu.set("us.a", map[string]string{"compression.type": "gzip", "cleanup.policy": "compact", "segment.ms": "5", "min.insync.replicas": "2", "vendor.key": "x"})
		r := w.topics(follow.TopicsConfig{})
		if len(r.Configured["us.a"]) != 3 {
			t.Errorf("%v", r.Configured)
		}
		got := w.eu.configs("us.a")
		if got["compression.type"] != "producer" || got["cleanup.policy"] != "delete" || got["segment.ms"] != "604800000" {
			t.Errorf("%v", got)
		}
		if got["min.insync.replicas"] != "2" || got["vendor.key"] != "x" {
			t.Errorf("the destination's own configs were touched: %v", got)
		}
		w.settled(follow.TopicsConfig{})
	})
}

func TestOverrides(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("a", 1, map[string]string{"retention.ms": "5"})
		cfg := follow.TopicsConfig{Overrides: map[string]string{"retention.ms": "77", "min.insync.replicas": "2"}}
		w.topics(cfg)
		w.settled(cfg)
		if got := w.eu.configs("us.a"); got["retention.ms"] != "77" || got["min.insync.replicas"] != "2" {
			t.Errorf("%v", got)
		}
		w.us.set("a", map[string]string{"retention.ms": "6"})
		w.settled(cfg)
		cfg.Overrides["retention.ms"] = "78"
		if r := w.topics(cfg); len(r.Configured["us.a"]) != 1 {
			t.Errorf("%+v", r)
		}
		w.settled(cfg)
	})
}

func TestOverridesThatMakeNoCopy(t *testing.T) {
	_, err := follow.Topics(context.Background(), nil, nil, follow.TopicsConfig{Overrides: map[string]string{
		"compression.type": "zstd", "cleanup.policy": "compact", "retention.ms": "1", "vendor.key": "x",
	}})
	if events.KindOf(err) != events.KindInvalid {
		t.Fatalf("%v", err)
	}
	for _, key := range []string{"compression.type", "cleanup.policy"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not in %q", key, err)
		}
	}
	if strings.Contains(err.Error(), "retention.ms") || strings.Contains(err.Error(), "vendor.key") {
		t.Errorf("too much refused: %q", err)
	}
}

// One topic that fails does not stop the others, and is done when it can be.
func TestOneTopicFails(t *testing.T) {
	for _, c := range []struct {
		name  string
		at    func(w *world) *cluster
		fault kfake.Fault
	}{
		{"create", func(w *world) *cluster { return w.eu }, kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "us.b", Err: kerr.PolicyViolation, Count: -1}},
		{"read configs", func(w *world) *cluster { return w.us }, kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: "b", Err: kerr.TopicAuthorizationFailed, Count: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulate(t, func(w *world) {
				for _, topic := range []string{"a", "b", "c"} {
					w.us.create(topic, 1, nil)
				}
				fault := c.at(w).Fault(c.fault)
				r := w.topics(follow.TopicsConfig{})
				if got := fmt.Sprint(r.Created); got != "[us.a us.c]" {
					t.Errorf("created %s", got)
				}
				if len(r.Problems) != 1 || r.Problems[0].Topic != "b" {
					t.Errorf("problems: %v", r.Problems)
				}
				fault.Remove()
				w.later()
				if got := fmt.Sprint(w.topics(follow.TopicsConfig{}).Created); got != "[us.b]" {
					t.Errorf("afterwards created %s", got)
				}
				w.settled(follow.TopicsConfig{})
			})
		})
	}
}

func TestGrowingAndConfiguringFail(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("a", 2, map[string]string{"retention.ms": "5"})
		w.us.create("b", 2, map[string]string{"retention.ms": "5"})
		w.eu.create("us.a", 1, nil)
		w.eu.create("us.b", 1, nil)
		w.eu.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Topic: "us.a", Err: kerr.PolicyViolation},
			kfake.Fault{Keys: []kmsg.Key{kmsg.IncrementalAlterConfigs}, Resource: "us.a", Err: kerr.PolicyViolation})
		r := w.topics(follow.TopicsConfig{})
		if fmt.Sprint(r.Grown) != "[us.b]" || len(r.Configured) != 1 || len(r.Problems) != 2 || r.Topics[0].Ready || !r.Topics[1].Ready {
			t.Errorf("%+v", r)
		}
		w.later()
		r = w.topics(follow.TopicsConfig{})
		if fmt.Sprint(r.Grown) != "[us.a]" || len(r.Configured["us.a"]) != 1 {
			t.Errorf("%+v", r)
		}
		w.settled(follow.TopicsConfig{})
	})
}

// Somebody made the mirror between the look and the request, or cached metadata
// is older than it: no problem, and done by the next pass.
func TestMirrorAppearsMeanwhile(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("a", 1, nil)
		w.topics(follow.TopicsConfig{})
		r := w.topics(follow.TopicsConfig{}) // without delay
		if len(r.Problems) > 0 || len(r.Created) > 0 {
			t.Errorf("%+v", r)
		}
		w.settled(follow.TopicsConfig{})
	})
}

func TestManyTopics(t *testing.T) {
	simulate(t, func(w *world) {
		const n = 1200
		for i := range n {
			w.us.create(fmt.Sprintf("t%04d", i), 1, nil)
		}
		w.eu.create("local", 1, nil)
		var requests int
		w.eu.ControlKey(int16(kmsg.CreateTopics), func(kmsg.Request) (kmsg.Response, error, bool) {
			requests++
			w.eu.KeepControl()
			return nil, nil, false
		})
		r := w.topics(follow.TopicsConfig{})
		if len(r.Created) != n || len(r.Problems) > 0 || !slices.IsSorted(r.Created) {
			t.Errorf("created %d, problems %v", len(r.Created), r.Problems)
		}
		if requests != 3 {
			t.Errorf("%d requests", requests)
		}
		w.settled(follow.TopicsConfig{})
	})
}

func TestClusterThatDoesNotAnswer(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.create("a", 1, nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if r, err := follow.Topics(ctx, w.us.adm, w.eu.adm, follow.TopicsConfig{Select: all, Mirror: mirror}); err == nil {
			t.Errorf("no error: %+v", r)
		}
		if r, err := follow.Groups(ctx, w.us.adm, w.eu.adm, follow.GroupsConfig{Select: all, Selected: all, Mirror: mirror}); err == nil {
			t.Errorf("no error: %+v", r)
		}
		if r, err := follow.ACLs(ctx, w.us.client, w.eu.client, follow.ACLConfig{MirrorPrefix: origin}); err == nil {
			t.Errorf("no error: %+v", r)
		}
	})
}
