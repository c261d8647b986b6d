package pipeline_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// watcher is one who watches and remembers what it was told.
type watcher struct {
	views  map[string]string // as it was told; deleted keys are gone
	tokens []api.Change      // lines with a context
	lines  int
	stop   func() error // ends the watch and returns why it ended
}

// watch begins to watch a region. What the watcher remembers may be looked at when
// nothing moves any more.
func (r *region) watch(p api.WatchParams, views map[string]string) *watcher {
	r.w.Helper()
	ctx, cancel := context.WithCancel(r.w.Context())
	w := &watcher{views: views}
	ended := make(chan error, 1)
	w.stop = func() error {
		cancel()
		return <-ended
	}
	go func() {
		ended <- r.Watch(ctx, p, func(c api.Change) error {
			w.lines++
			switch {
			case c.Deleted:
				delete(w.views, string(c.Key))
			case c.Key != nil:
				w.views[string(c.Key)] = string(c.Entry.Value)
			}
			if c.Context != nil {
				w.tokens = append(w.tokens, c)
			}
			return nil
		})
	}()
	return w
}

// views are all keys of a region that begin with a prefix.
func (r *region) views(prefix string) map[string]string {
	r.w.Helper()
	page, err := r.Scan(r.w.Context(), api.ScanParams{Stream: "session", Prefix: []byte(prefix), Limit: api.MaxScanEntries})
	if err != nil {
		r.w.Fatal(err)
	}
	views := map[string]string{}
	for _, e := range page.Entries {
		views[string(e.Key)] = string(e.Value)
	}
	return views
}

// What is buried and collected changes no view, and watchers are told nothing of it but how far they are.
func TestUpkeepIsNotWatched(t *testing.T) {
	two(t, func(a, b *region) {
		for _, r := range []*region{a, b} {
			r.cfg.Tombstones.Keep, r.cfg.Backup, r.bucket = time.Minute, nil, nil
			r.start()
		}
		a.put("own", "v")
		a.delete("own")
		a.put("hidden", "v")
		b.has("hidden", "v")
		b.delete("hidden")
		for _, r := range []*region{a, b} {
			r.await("gone", func() error { return r.gone("hidden") })
		}
		var told []string
		cut := events.Vector{}
		ctx, cancel := context.WithCancel(a.w.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- a.Watch(ctx, api.WatchParams{Stream: "session"}, func(c api.Change) error {
				if c.Key != nil {
					told = append(told, string(c.Key))
				}
				if c.Context != nil {
					cut = *c.Context
				}
				return nil
			})
		}()
		for _, r := range []*region{a, b} {
			r.upkept(1, 3)
		}
		time.Sleep(time.Minute)
		p := a.put("new", "v")
		time.Sleep(time.Second)
		cancel()
		<-ended
		if len(told) != 1 || told[0] != "new" {
			t.Errorf("told of %q", told)
		}
		if cut[p.Log] != p.Offset+1 {
			t.Errorf("told up to %s, without %s", cut, p)
		}
	})
}

// One who watches sees what the region sees, of all origins, and one who was cut off
// anywhere goes on from the last context without a gap.
func TestWatch(t *testing.T) {
	three(t, func(a, b, c *region) {
		rng := rand.New(rand.NewPCG(1, 2))
		all := []*region{a, b, c}
		cut := events.Vector{}
		write := func(n int) {
			t.Helper()
			for range n {
				key := fmt.Sprint([]string{"s-", "x-"}[rng.IntN(2)], rng.IntN(12))
				p := api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(fmt.Sprint(rng.IntN(1000)))}
				if rng.IntN(4) == 0 {
					p.Value = nil
				}
				res, err := all[rng.IntN(3)].Put(a.w.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				cut = cut.Join(res.AtLeast)
			}
		}
		settled := func() {
			t.Helper()
			for _, r := range all {
				if _, err := r.Scan(r.w.Context(), api.ScanParams{Stream: "session", Freshness: api.Freshness{AtLeast: cut}}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		write(30)
		settled()
		before := c.views("s-")
		p := api.WatchParams{Stream: "session", Prefix: []byte("s-")}
		w := c.watch(p, c.views("s-"))
		fromStart := c.watch(api.WatchParams{Stream: "session", Prefix: []byte("s-"), From: &events.Vector{}}, map[string]string{})
		for range 10 {
			write(7)
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		}
		settled()
		want := c.views("s-")
		for name, w := range map[string]*watcher{"from now": w, "from the start": fromStart} {
			if err := w.stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: ended by %v", name, err)
			}
			if fmt.Sprint(w.views) != fmt.Sprint(want) {
				t.Errorf("%s: watched %v\nscanned %v", name, w.views, want)
			}
		}
		if first := w.tokens[0]; first.Key != nil || first.Entry != nil {
			t.Errorf("the first line is %+v", first)
		}
		if fmt.Sprint(before) == fmt.Sprint(want) {
			t.Error("nothing has changed")
		}
		// Cut off behind each context in turn, and then going on from it, in the same
		// region or in another one.
		for i, token := range w.tokens {
			views := map[string]string{}
			for key, value := range before {
				views[key] = value
			}
			replay := c.watch(api.WatchParams{Stream: "session", Prefix: []byte("s-"), From: w.tokens[0].Context}, views)
			synctest.Wait()
			if err := replay.stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("replay ended by %v", err)
			}
			if fmt.Sprint(views) != fmt.Sprint(want) {
				t.Fatalf("replayed: %v, want %v", views, want)
			}
			p.From = token.Context
			resumed := all[i%3].watch(p, views)
			synctest.Wait()
			_ = resumed.stop()
			if fmt.Sprint(resumed.views) != fmt.Sprint(want) {
				t.Errorf("resumed at %s: %v, want %v", token.Context, resumed.views, want)
			}
		}
	})
}

// From a context nothing that came after it is missed: changes behind it are told
// although the views before it are not known.
func TestWatchGoesOnWithoutAGap(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		w := r.watch(api.WatchParams{Stream: "session"}, map[string]string{})
		var last events.Position
		for i := range 40 {
			last = r.put(fmt.Sprint("k", i), "v")
			if i%10 == 0 { // it is folded, and told
				r.get(fmt.Sprint("k", i), events.Vector{last.Log: last.Offset + 1})
				synctest.Wait()
			}
		}
		r.get("k39", events.Vector{last.Log: last.Offset + 1})
		synctest.Wait()
		_ = w.stop()
		if len(w.views) != 40 || len(w.tokens) < 4 {
			t.Fatalf("%d keys, %d contexts", len(w.views), len(w.tokens))
		}
		for _, token := range w.tokens {
			rest := r.watch(api.WatchParams{Stream: "session", From: token.Context}, map[string]string{})
			synctest.Wait()
			_ = rest.stop()
			for i := range 40 {
				key := fmt.Sprint("k", i)
				at := r.get(key).Position
				if _, told := rest.views[key]; !told && !token.Context.Covers(at) {
					t.Errorf("from %s: %s at %s is missing", token.Context, key, at)
				}
			}
		}
	})
}

// One that takes nothing is dropped with a reason when more has changed than is
// remembered; the fold goes on meanwhile.
func TestSlowWatcher(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		goOn, ended := make(chan bool), make(chan error, 1)
		var first, last *events.Vector
		ctx, cancel := context.WithTimeout(r.w.Context(), time.Hour)
		defer cancel()
		go func() {
			ended <- r.Watch(ctx, api.WatchParams{Stream: "session"}, func(c api.Change) error {
				first, last = cmp.Or(first, c.Context), cmp.Or(c.Context, last)
				<-goOn
				return nil
			})
		}()
		synctest.Wait()
		// Each load is more than a shard remembers, and is folded before the next one: at
		// most two can have been gathered for the watcher, whoever runs first.
		for round := range 4 {
			load := api.LoadParams{Stream: "session", Source: fmt.Sprint("s", round)}
			for i := range 4_000 {
				load.Events = append(load.Events, api.LoadEvent{ID: fmt.Sprint(i), Key: api.Bytes(fmt.Sprintf("%d-%01000d", round, i)), Value: api.Bytes("v")})
			}
			res, err := r.Load(r.w.Context(), load)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range load.Events[:20] { // some in each shard
				if _, err := r.getAtLeast(string(e.Key), res.Ends, 60); err != nil {
					t.Fatalf("the fold waits for the watcher: %v", err)
				}
			}
		}
		close(goOn)
		err := <-ended
		wantKind(t, err, events.KindNotReady, "faster than", "go on from the last context")
		for _, from := range []*events.Vector{first, last} {
			err := r.Watch(r.w.Context(), api.WatchParams{Stream: "session", From: from}, func(api.Change) error {
				t.Errorf("it goes on from %s", from)
				return errors.New("no")
			})
			wantKind(t, err, events.KindNotFound, "scan the stream")
		}
	})
}

// What is asked for and cannot be given is refused before anything is told.
func TestWatchRefused(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.put("k", "v")
		r.has("k", "v")
		r.stop()
		r.start() // it does not remember what has changed before
		for name, c := range map[string]struct {
			p     api.WatchParams
			kind  events.Kind
			parts []string
		}{
			"no stream":      {api.WatchParams{Stream: "nope"}, events.KindNotFound, []string{`"nope"`}},
			"key and prefix": {api.WatchParams{Stream: "session", Key: []byte("k"), Prefix: []byte("k")}, events.KindInvalid, []string{"not both"}},
			"no such shard":  {api.WatchParams{Stream: "session", Partitions: []int32{partitions}}, events.KindInvalid, []string{"partition 3"}},
			"below zero":     {api.WatchParams{Stream: "session", Partitions: []int32{-1}}, events.KindInvalid, []string{"partition -1"}},
			"too long ago":   {api.WatchParams{Stream: "session", From: &events.Vector{}}, events.KindNotFound, []string{"us-east-1/session/", "offset 0", "scan"}},
		} {
			err := r.Watch(r.w.Context(), c.p, func(api.Change) error {
				t.Errorf("%s: it begins", name)
				return errors.New("no")
			})
			wantKind(t, err, c.kind, c.parts...)
		}
	})
}

// A quiet watch says now and then where it is, even if only other keys change.
func TestWatchMarks(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		w := r.watch(api.WatchParams{Stream: "session", Key: []byte("quiet")}, map[string]string{})
		synctest.Wait()
		at := r.put("loud", "v")
		time.Sleep(25 * time.Second)
		_ = w.stop()
		if len(w.views) != 0 || w.lines < 3 || w.lines > 4 {
			t.Errorf("%d views, %d lines", len(w.views), w.lines)
		}
		if last := w.tokens[len(w.tokens)-1]; !strings.Contains(last.Context.String(), at.Log.At(1).String()) {
			t.Errorf("the last context is %s", last.Context)
		}
	})
}

// Stop ends watches, whatever they are at.
func TestStopEndsWatches(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		var watching sync.WaitGroup
		ctx, cancel := context.WithCancel(r.w.Context())
		for range 5 {
			watching.Go(func() {
				err := r.Watch(ctx, api.WatchParams{Stream: "session"}, func(api.Change) error { return nil })
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%v", err)
				}
			})
		}
		r.put("k", "v")
		cancel()
		watching.Wait()
	})
}
