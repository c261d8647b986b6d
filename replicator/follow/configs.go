package follow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Change is one config of a mirror that differed and was altered.
type Change struct {
	Key     string
	Old     string // the effective value before
	New     string // empty if Removed
	Removed bool   // the mirror is back at the destination's default
}

func (c Change) String() string {
	if c.Removed {
		return fmt.Sprintf("%s: %s removed", c.Key, c.Old)
	}
	return fmt.Sprintf("%s: %s -> %s", c.Key, c.Old, c.New)
}

// configs are a topic's, by name.
type configs map[string]kadm.Config

// own reports whether the topic sets the config by itself.
func own(c kadm.Config) bool { return c.Source == kmsg.ConfigSourceDynamicTopicConfig }

// plan says what to alter at a mirror, and what of the source's configs the
// destination does not know.
func plan(source, mirror configs, overrides map[string]string) (changes []Change, unknown []string) {
	for _, key := range keys(overrides) {
		m, known := mirror[key]
		if known && (m.Value == nil || m.Sensitive) {
			continue // nothing to compare
		}
		set := func(value string) { changes = append(changes, Change{Key: key, Old: m.MaybeValue(), New: value}) }
		if value, ok := overrides[key]; ok {
			if !own(m) || m.MaybeValue() != value {
				set(value)
			}
			continue
		}
		s, told := source[key]
		told = told && s.Value != nil && !s.Sensitive
		switch r := rules[key]; {
		case r.class == local:
		case r.class == forced:
			// A destination too old or too new for a config has no limit of that
			// name either.
			if known && m.MaybeValue() != r.value {
				set(r.value)
			}
		case !known:
			if told && own(s) {
				unknown = append(unknown, key)
			}
		case told:
			if c, differs := follow(key, r.manner, s, m); differs {
				changes = append(changes, c)
			}
		}
	}
	return changes, unknown
}

// follow compares one followed config.
func follow(key string, how manner, source, mirror kadm.Config) (c Change, differs bool) {
	want, have := source.MaybeValue(), mirror.MaybeValue()
	set, remove := Change{Key: key, Old: have, New: want}, Change{Key: key, Old: have, Removed: true}
	switch how {
	case atLeast:
		return set, less(have, want)
	case effective:
		if !own(source) && own(mirror) && have != want && brokersDefault(key, mirror) == want {
			return remove, true
		}
		return set, have != want
	case explicit:
	}
	if own(source) {
		return set, !own(mirror) || have != want
	}
	return remove, own(mirror)
}

// less compares sizes; what is no number is not less.
func less(a, b string) bool {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	return errX == nil && errY == nil && x < y
}

// brokersDefault is what the config would be if the topic did not set it; empty
// if that cannot be told. Brokers have defaults in other units than topics.
func brokersDefault(key string, c kadm.Config) string {
	for _, synonym := range c.Synonyms {
		if synonym.Source == kmsg.ConfigSourceDynamicTopicConfig || synonym.Value == nil {
			continue
		}
		switch synonym.Key {
		case key, "log." + key:
			return *synonym.Value
		case "log.retention.hours", "log.retention.minutes":
			ms := map[string]int64{"log.retention.hours": 3_600_000, "log.retention.minutes": 60_000}[synonym.Key]
			if n, err := strconv.ParseInt(*synonym.Value, 10, 64); err == nil && n >= 0 {
				return strconv.FormatInt(n*ms, 10)
			}
		}
		return ""
	}
	return ""
}

// initial is what a mirror is created with. sample are the configs of any topic
// of the destination, from which the names are taken that its brokers know; nil
// if there is no topic yet.
func initial(source, sample configs, overrides map[string]string) map[string]string {
	wanted := map[string]string{}
	for _, key := range keys(overrides) {
		r, s := rules[key], source[key]
		known := sample == nil || sample[key].Key != ""
		switch value, overridden := overrides[key]; {
		case overridden:
			wanted[key] = value
		case r.class == local || !known:
		case r.class == forced:
			// The limits of timestamps have other names in other versions, and one
			// unknown name makes brokers refuse a whole topic: the next pass sets them.
			if sample != nil || key == "compression.type" || key == "message.timestamp.type" || key == "unclean.leader.election.enable" {
				wanted[key] = r.value
			}
		case s.Value == nil || s.Sensitive:
		case own(s) || r.manner != explicit:
			wanted[key] = *s.Value
		}
	}
	return wanted
}

// keys are the names of all configs to look at, in order.
func keys(overrides map[string]string) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(rules)), maps.Keys(overrides))
	slices.Sort(all)
	return slices.Compact(all)
}

// topicsPerRequest bounds requests that tell or alter configs.
const topicsPerRequest = 500

// describe reads topics' configs. What concerns one topic is in failed; err is
// that the cluster could not be asked.
func describe(ctx context.Context, client *kadm.Client, topics []string) (told map[string]configs, failed map[string]error, err error) {
	told, failed = map[string]configs{}, map[string]error{}
	for chunk := range slices.Chunk(topics, topicsPerRequest) {
		if err := describeSome(ctx, client, chunk, told, failed); err != nil {
			return nil, nil, err
		}
	}
	for _, t := range topics {
		if told[t] == nil && failed[t] == nil {
			failed[t] = errors.New("the broker did not tell the topic's configs")
		}
	}
	return told, failed, nil
}

func describeSome(ctx context.Context, client *kadm.Client, topics []string, told map[string]configs, failed map[string]error) error {
	resources, err := client.DescribeTopicConfigs(ctx, topics...)
	var denied *kadm.AuthError
	switch {
	case errors.As(err, &denied) && len(topics) == 1:
		failed[topics[0]] = denied
		return nil
	case errors.As(err, &denied):
		// One topic without permission hides the answers for all in the request.
		half := len(topics) / 2
		return cmp.Or(describeSome(ctx, client, topics[:half], told, failed), describeSome(ctx, client, topics[half:], told, failed))
	case err != nil:
		return err
	}
	for _, r := range resources {
		if r.Err != nil {
			failed[r.Name] = withMessage(r.Err, r.ErrMessage)
			continue
		}
		told[r.Name] = make(configs, len(r.Configs))
		for _, c := range r.Configs {
			told[r.Name][c.Key] = c
		}
	}
	return nil
}

// notYet tells that a topic made a moment ago is not known to every broker.
func notYet(err error) bool { return errors.Is(err, kerr.UnknownTopicOrPartition) }

// withMessage adds what the broker has to say beyond the error's code.
func withMessage(err error, message string) error {
	if message == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, message)
}
