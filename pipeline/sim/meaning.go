package sim

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
)

// view is what a reader sees of a stream, by key.
type view map[string]api.Entry

// meaning is what every reader has to see of each stream: what the merge rules mean, said
// naively of everything that is in the logs. It shares nothing with folds and joins but the decoding
// of records.
func (w *World) meaning(logs map[events.Log][]*kgo.Record) (map[events.Stream]view, error) {
	written := map[events.Stream]map[string][]mergetest.Written{}
	for stream := range w.streams() {
		written[stream] = map[string][]mergetest.Written{}
	}
	for _, log := range slices.SortedFunc(maps.Keys(logs), events.Log.Compare) {
		for _, r := range logs[log] {
			e, err := events.Decode(r)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", log.At(r.Offset), err)
			}
			if !e.IsUpkeep() { // which takes away what nobody sees
				written[log.Stream][e.Key] = append(written[log.Stream][e.Key], mergetest.Written{At: log.At(r.Offset), Event: e})
			}
		}
	}
	all := map[events.Stream]view{}
	for stream, rule := range w.streams() {
		all[stream] = view{}
		for key, history := range written[stream] {
			if v := mergetest.Models[rule](history); v.Exists {
				all[stream][key] = entryOf(stream, key, v)
			}
		}
	}
	return all, nil
}

func entryOf(stream events.Stream, key string, v merge.View) api.Entry {
	e := api.Entry{
		Stream: stream, Key: api.Bytes(key), Value: v.Value, ContentType: v.ContentType, Type: v.Type, Clock: v.Clock, Position: v.Position,
	}
	for _, s := range v.Siblings {
		e.Siblings = append(e.Siblings, api.Sibling{Value: s.Value, ContentType: s.ContentType, Type: s.Type, Clock: s.Clock, Position: s.Position})
	}
	return e
}

// is compares whole entries with those that there have to be.
func (v view) is(want view) error {
	for key, e := range want {
		if got, ok := v[key]; !ok || !reflect.DeepEqual(got, e) {
			return fmt.Errorf("key %s is seen (%t) as\n%s\nbut the logs mean\n%s", key, ok, show(got), show(e))
		}
	}
	if len(v) != len(want) {
		return fmt.Errorf("%d keys are seen, there are %d", len(v), len(want))
	}
	return nil
}

// show prints an entry with its values as texts.
func show(e api.Entry) string {
	text := fmt.Sprintf("%s of %s, type %q, content type %q, clock %s", e.Value, e.Position, e.Type, e.ContentType, e.Clock)
	for _, s := range e.Siblings {
		text += fmt.Sprintf("\n  %s of %s, type %q, content type %q, clock %s", s.Value, s.Position, s.Type, s.ContentType, s.Clock)
	}
	return text
}

// counted is how often something was counted.
type counted struct{ attempted, acked int64 }

func (l *ledger) count(key string, more counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[string]counted{}
	}
	c := l.counts[key]
	l.counts[key] = counted{attempted: c.attempted + more.attempted, acked: c.acked + more.acked}
}

// checkCounts: a counter's value is the number of increments that were acknowledged, and perhaps of
// some that were not.
func (l *ledger) checkCounts(v view) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, c := range l.counts {
		var fields struct{ N int64 }
		if e, ok := v[key]; ok {
			if err := json.Unmarshal(e.Value, &fields); err != nil {
				return fmt.Errorf("key %s: %w", key, err)
			}
		}
		if fields.N < c.acked || fields.N > c.attempted {
			return fmt.Errorf("key %s has counted to %d; %d increments were acknowledged, %d attempted", key, fields.N, c.acked, c.attempted)
		}
	}
	return nil
}
