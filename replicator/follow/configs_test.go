package follow

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// fakeTopic is a topic's configs as a broker holds them.
type fakeTopic struct {
	defaults, own map[string]string
}

// described is what a broker tells of the topic.
func (f fakeTopic) described() configs {
	told := configs{}
	for key, value := range f.defaults {
		c := kadm.Config{Key: key, Value: &value, Source: kmsg.ConfigSourceDefaultConfig}
		inherited := kadm.ConfigSynonym{Key: "log." + key, Value: &value, Source: kmsg.ConfigSourceDefaultConfig}
		if own, ok := f.own[key]; ok {
			c.Value, c.Source = &own, kmsg.ConfigSourceDynamicTopicConfig
			c.Synonyms = append(c.Synonyms, kadm.ConfigSynonym{Key: key, Value: &own, Source: c.Source})
		}
		c.Synonyms = append(c.Synonyms, inherited)
		told[key] = c
	}
	return told
}

func (f fakeTopic) value(key string) string {
	if own, ok := f.own[key]; ok {
		return own
	}
	return f.defaults[key]
}

func (f fakeTopic) apply(changes []Change) {
	for _, c := range changes {
		if c.Removed {
			delete(f.own, c.Key)
		} else {
			f.own[c.Key] = c.New
		}
	}
}

// kafka40 are some defaults of Kafka 4.0.
func kafka40(changed map[string]string) map[string]string {
	d := map[string]string{
		"cleanup.policy": "delete", "compression.type": "producer", "message.timestamp.type": "CreateTime", "max.message.bytes": "1048588",
		"message.timestamp.before.max.ms": noLimit, "message.timestamp.after.max.ms": "3600000", "unclean.leader.election.enable": "false",
		"retention.ms": "604800000", "retention.bytes": "-1", "segment.ms": "604800000", "min.insync.replicas": "1", "remote.storage.enable": "false",
	}
	maps.Copy(d, changed)
	return d
}

func TestPlan(t *testing.T) {
	type m = map[string]string
	for _, c := range []struct {
		name              string
		source, mirror    fakeTopic
		overrides         m
		want, wantUnknown string
	}{
		{name: "a new topic of Kafka 4.0", source: fakeTopic{kafka40(nil), m{}}, mirror: fakeTopic{kafka40(nil), m{}},
			want: "[message.timestamp.after.max.ms: 3600000 -> 9223372036854775807]"},
		{name: "before Kafka 3.6", source: fakeTopic{kafka40(nil), m{}},
			mirror: fakeTopic{m{"message.timestamp.difference.max.ms": "1000"}, m{}},
			want:   "[message.timestamp.difference.max.ms: 1000 -> 9223372036854775807]"},
		{name: "the source's brokers keep longer", source: fakeTopic{m{"retention.ms": "9000"}, m{}}, mirror: fakeTopic{m{"retention.ms": "100"}, m{}},
			want: "[retention.ms: 100 -> 9000]"},
		{name: "the destination's brokers compact", source: fakeTopic{m{"cleanup.policy": "delete"}, m{}}, mirror: fakeTopic{m{"cleanup.policy": "compact"}, m{}},
			want: "[cleanup.policy: compact -> delete]"},
		{name: "back to a default that both have", source: fakeTopic{m{"retention.ms": "9000"}, m{}}, mirror: fakeTopic{m{"retention.ms": "9000"}, m{"retention.ms": "5"}},
			want: "[retention.ms: 5 removed]"},
		{name: "back to a default that the mirror has not", source: fakeTopic{m{"retention.ms": "9000"}, m{}}, mirror: fakeTopic{m{"retention.ms": "100"}, m{"retention.ms": "5"}},
			want: "[retention.ms: 5 -> 9000]"},
		{name: "larger by the source's brokers", source: fakeTopic{m{"max.message.bytes": "900"}, m{}}, mirror: fakeTopic{m{"max.message.bytes": "1000"}, m{"max.message.bytes": "30"}},
			want: "[max.message.bytes: 30 -> 900]"},
		{name: "sizes are numbers", source: fakeTopic{m{"max.message.bytes": "1000"}, m{}}, mirror: fakeTopic{m{"max.message.bytes": "900"}, m{}},
			want: "[max.message.bytes: 900 -> 1000]"},
		{name: "smaller", source: fakeTopic{m{"max.message.bytes": "900"}, m{"max.message.bytes": "30"}}, mirror: fakeTopic{m{"max.message.bytes": "1000"}, m{}}, want: "[]"},
		{name: "others keep their defaults", source: fakeTopic{m{"segment.ms": "1"}, m{}}, mirror: fakeTopic{m{"segment.ms": "2"}, m{}}, want: "[]"},
		{name: "set to the value of the default", source: fakeTopic{m{"segment.ms": "1"}, m{"segment.ms": "2"}}, mirror: fakeTopic{m{"segment.ms": "2"}, m{}},
			want: "[segment.ms: 2 -> 2]"},
		{name: "not known there", source: fakeTopic{m{"flush.ms": "1", "segment.ms": "2"}, m{"flush.ms": "5"}}, mirror: fakeTopic{m{}, m{}}, want: "[]", wantUnknown: "flush.ms"},
		{name: "the destination's own", source: fakeTopic{m{"min.insync.replicas": "1", "vendor": "1"}, m{"min.insync.replicas": "3", "vendor": "5"}},
			mirror: fakeTopic{m{"min.insync.replicas": "1", "vendor": "1"}, m{}}, want: "[]"},
		{name: "overridden", source: fakeTopic{m{"retention.ms": "1"}, m{"retention.ms": "2"}}, mirror: fakeTopic{m{"retention.ms": "1"}, m{"retention.ms": "2"}},
			overrides: m{"retention.ms": "3"}, want: "[retention.ms: 2 -> 3]"},
	} {
		changes, unknown := plan(c.source.described(), c.mirror.described(), c.overrides)
		if got := fmt.Sprint(changes); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if got := fmt.Sprint(unknown); got != "["+c.wantUnknown+"]" {
			t.Errorf("%s: unknown %s", c.name, got)
		}
	}
}

// Brokers tell the default of retention in hours.
func TestBrokersDefault(t *testing.T) {
	five, hours := "5", "168"
	c := kadm.Config{Key: "retention.ms", Value: &five, Source: kmsg.ConfigSourceDynamicTopicConfig, Synonyms: []kadm.ConfigSynonym{
		{Key: "retention.ms", Value: &five, Source: kmsg.ConfigSourceDynamicTopicConfig},
		{Key: "log.retention.hours", Value: &hours, Source: kmsg.ConfigSourceDefaultConfig},
	}}
	if got := brokersDefault("retention.ms", c); got != "604800000" {
		t.Errorf("%s", got)
	}
	c.Synonyms[1].Key = "log.retention.fortnights"
	if got := brokersDefault("retention.ms", c); got != "" {
		t.Errorf("an unknown unit gave %s", got)
	}
}

// Whatever both sides have set, one plan is enough, and the mirror is then fit to
// be a copy.
func TestPlanConverges(t *testing.T) {
	names := slices.Sorted(maps.Keys(rules))
	names = append(names, "vendor.key")
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SampledFrom([]string{"1", "2", "10"})
		topic := func(label string) fakeTopic {
			f := fakeTopic{rapid.MapOf(rapid.SampledFrom(names), value).Draw(t, label+" defaults"), map[string]string{}}
			for key, v := range rapid.MapOf(rapid.SampledFrom(names), value).Draw(t, label+" own") {
				if _, known := f.defaults[key]; known {
					f.own[key] = v
				}
			}
			return f
		}
		source, mirror := topic("source"), topic("mirror")
		overrides := rapid.MapOf(rapid.SampledFrom([]string{"retention.ms", "segment.ms", "min.insync.replicas"}), value).Draw(t, "overrides")
		maps.DeleteFunc(overrides, func(key, _ string) bool { _, known := mirror.defaults[key]; return !known })
		before := maps.Clone(mirror.own)
		changes, _ := plan(source.described(), mirror.described(), overrides)
		mirror.apply(changes)
		if again, _ := plan(source.described(), mirror.described(), overrides); len(again) > 0 {
			t.Fatalf("first %v, then %v", changes, again)
		}
		for key := range mirror.defaults {
			r, got := rules[key], mirror.value(key)
			want, told := source.defaults[key]
			if told {
				want = source.value(key)
			}
			switch value, overridden := overrides[key]; {
			case overridden && got != value:
				t.Fatalf("%s = %s, overridden with %s", key, got, value)
			case overridden:
			case r.class == forced && got != r.value:
				t.Fatalf("%s = %s", key, got)
			case r.class == local && mirror.own[key] != before[key]:
				t.Fatalf("%s was touched", key)
			case r.class == local || r.class == forced || !told:
			case r.manner == effective && got != want, r.manner == atLeast && less(got, want):
				t.Fatalf("%s = %s, at the source %s", key, got, want)
			case r.manner == explicit && mirror.own[key] != source.own[key]:
				t.Fatalf("%s is set to %q, at the source to %q", key, mirror.own[key], source.own[key])
			}
		}
	})
}

// A new mirror with a sample needs no second pass.
func TestInitialIsWhatPlanWants(t *testing.T) {
	names := slices.Sorted(maps.Keys(rules))
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.SampledFrom([]string{"1", "2", "10"})
		defaults := func(label string) map[string]string {
			d := map[string]string{}
			for _, key := range names {
				if v := rapid.SampledFrom([]string{"", "1", "2", "10"}).Draw(t, label+" "+key); v != "" {
					d[key] = v
				}
			}
			return d
		}
		source := fakeTopic{defaults("source"), map[string]string{}}
		for key, v := range rapid.MapOf(rapid.SampledFrom(names), value).Draw(t, "own") {
			if _, known := source.defaults[key]; known {
				source.own[key] = v
			}
		}
		mirror := fakeTopic{defaults("destination"), nil}
		if len(mirror.defaults) == 0 {
			t.Skip("no sample")
		}
		mirror.own = initial(source.described(), fakeTopic{mirror.defaults, nil}.described(), nil)
		if changes, _ := plan(source.described(), mirror.described(), nil); len(changes) > 0 {
			t.Fatalf("created with %v, then %v", mirror.own, changes)
		}
	})
}

func TestRulesHaveReasons(t *testing.T) {
	for key, r := range rules {
		if r.reason == "" || (r.class == forced) != (r.value != "") {
			t.Errorf("%s: %+v", key, r)
		}
	}
}
