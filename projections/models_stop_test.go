package projections_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
)

func TestModelThatFails(t *testing.T) {
	broken := errors.New("cannot")
	for name, fail := range map[string]func(emit func(string, []byte)) error{
		"error":     func(func(string, []byte)) error { return broken },
		"panic":     func(func(string, []byte)) error { panic("secret") },
		"index":     func(func(string, []byte)) error { _ = []int{}[len(broken.Error())]; return nil },
		"empty key": func(emit func(string, []byte)) error { emit("", nil); return nil },
		"long key": func(emit func(string, []byte)) error {
			emit(strings.Repeat("x", derived.MaxKeyBytes+1), nil)
			return nil
		},
		"long value": func(emit func(string, []byte)) error { emit("x", make([]byte, derived.MaxValueBytes+1)); return nil },
		"many": func(emit func(string, []byte)) error {
			for i := range derived.MaxRows + 1 {
				emit(fmt.Sprint(i), nil)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			model, good := byValue(1), byValue(1)
			model.Rows = func(v derived.View, emit func(string, []byte)) error {
				if v.Key == "bad" {
					return fail(emit)
				}
				return good.Rows(v, emit)
			}
			checkStopped(t, fs, model, good)
		})
	}
}

func checkStopped(t *testing.T, fs vfs.FS, model, good derived.Model) {
	l := logsOf(0)[1]
	w := world{}
	for _, key := range []string{"a", "b", "bad", "c"} {
		w.write(l, bare(key, []byte("x"), 1))
	}
	s := open(t, withModels(fs, model, counts()))
	apply(t, s, w.from(l, 0, 1))
	was, at := rows(t, s, "by-value"), events.VectorOf(s.Logs())
	apply(t, s, w.from(l, 1, 2)) // the failure takes the good one of the batch with it
	check := func(failures int64) {
		t.Helper()
		st := statusOf(t, s, "by-value")
		if st.State != derived.Stopped || st.Failures != failures || !strings.Contains(st.Stopped, `"bad"`) || strings.Contains(st.Stopped, "secret") {
			t.Errorf("status %+v", st)
		}
		if st.Stale == "" || st.Until.Compare(at) != events.Equal {
			t.Errorf("stale %q since %s, want %s", st.Stale, st.Until, at)
		}
		if got := rows(t, s, "by-value"); !reflect.DeepEqual(got, was) {
			t.Errorf("entries %+v, want those of before, %+v", got, was)
		}
	}
	check(1)
	apply(t, s, w.from(l, 3, 1))
	check(1)
	checkShard(t, s, w, w.ends())
	if got := rows(t, s, "counts"); len(got) != 4 {
		t.Errorf("another model has %d entries, want 4", len(got))
	}
	closeShard(t, s)

	s = open(t, withModels(fs, model, counts())) // as it was
	wait(t, s)
	check(0)
	if err := s.RebuildModel(t.Context(), "by-value", derived.Rebuild{}); err != nil { // fails again
		t.Fatal(err)
	}
	wait(t, s)
	check(1)
	closeShard(t, s)

	s = open(t, withModels(fs, good, counts())) // mended, but its version is the same
	wait(t, s)
	check(0)
	if err := s.RebuildModel(t.Context(), "by-value", derived.Rebuild{}); err != nil {
		t.Fatal(err)
	}
	wait(t, s)
	checkModel(t, s, 1)
	closeShard(t, s)
}

func TestModelsRefused(t *testing.T) {
	good := byValue(1)
	for name, models := range map[string][]derived.Model{
		"twice":     {good, good},
		"name":      {{Name: "By_Value", Version: 1, Rows: good.Rows}},
		"version":   {{Name: "x", Rows: good.Rows}},
		"neither":   {{Name: "x", Version: 1}},
		"both":      {{Name: "x", Version: 1, Rows: good.Rows, Fold: counts().Fold}},
		"no stream": {{Name: "x", Version: 1, Rows: good.Rows, Streams: []events.Stream{""}}},
	} {
		_, err := projections.Open(withModels(vfs.NewMem(), models...))
		if events.KindOf(err) != events.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := projections.LookupModel("sessions")
	if wantKind(t, err, events.KindInvalid); !strings.Contains(err.Error(), "event-counts, registry-by-capability, sessions-by-user") {
		t.Errorf("%v", err)
	}
}

// A shard that somebody else has is not built on.
func TestModelFenced(t *testing.T) {
	w, fs := wideWorld(rand.New(rand.NewPCG(3, 8)), 1500, 4000), vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, w.everything()...)
	closeShard(t, s)
	model, reached, gate := gated(byValue(1), 600)
	s = open(t, withModels(fs, model))
	<-reached
	s.Fence(errors.New("gone"))
	wantKind(t, s.RebuildModel(t.Context(), "by-value", derived.Rebuild{}), events.KindRefused)
	close(gate)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitModels(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for what never ends: %v", err)
	}
	closeShard(t, s)
	calls := 0
	counted := byValue(1)
	rowsOf := counted.Rows
	counted.Rows = func(v derived.View, emit func(string, []byte)) error { calls++; return rowsOf(v, emit) }
	s = open(t, withModels(fs, counted))
	wait(t, s)
	checkModel(t, s, 1)
	closeShard(t, s)
	if all := len(scannable(w)); calls >= all {
		t.Errorf("the build went on with %d of %d entities, as if it had not come to any", calls, all)
	}
}

// scannable are the keys of session that have been written.
func scannable(w world) map[string]bool {
	keys := map[string]bool{}
	for _, e := range w.entries("session", w.ends()) {
		keys[e.Key] = true
	}
	return keys
}
