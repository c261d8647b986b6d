package load_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

// wantKind checks an error's kind and parts of its text.
func wantKind(t *testing.T, err error, kind events.Kind, parts ...string) {
	t.Helper()
	if got := events.KindOf(err); got != kind {
		t.Errorf("error %v is of kind %q, want %q", err, got, kind)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func (r *region) count() (n int) {
	for _, log := range r.logs {
		n += len(log)
	}
	return n
}

func TestResult(t *testing.T) {
	regions := []*region{newRegion(us), newRegion(eu)}
	items := makeItems(newRand(1), 100, us, eu)
	items[7].Region, items[8].Region = "", "" // to the default
	cfg := configFor(t)
	cfg.SetBatchEvents(9)
	total, before := -1, -1
	cfg.Checked = func(n, m int) { total, before = n, m }
	var mu sync.Mutex
	told := map[events.Region]int{}
	cfg.Written = func(r events.Region, n int) {
		mu.Lock()
		defer mu.Unlock()
		told[r] += n
	}
	res, err := load.Run(t.Context(), inputOf(items), nodesOf(regions...), cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := &load.Result{Events: 100, Written: map[events.Region]int{us: regions[0].count(), eu: regions[1].count()}}
	if !reflect.DeepEqual(res, want) || !reflect.DeepEqual(told, want.Written) || total != 100 || before != 0 {
		t.Errorf("result %+v, told %v of %d with %d before; want %+v", res, told, total, before, want)
	}
	items[7].Region, items[8].Region = us, us
	for _, r := range regions {
		if err := r.checkExact(items); err != nil {
			t.Error(err)
		}
	}
}

// What was loaded is refused, unless it is wanted again: then as new events,
// and that is resumable too.
func TestDoneAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(us)
		items := makeItems(newRand(1), 20, us)
		cfg := configFor(t)
		cfg.SetBatchEvents(5)
		run := func(again bool) error {
			cfg.Again = again
			_, err := load.Run(t.Context(), inputOf(items), nodesOf(r), cfg)
			return err
		}
		for _, again := range []bool{false, true} {
			if err := run(again); err != nil {
				t.Fatalf("again %v: %v", again, err)
			}
		}
		wantKind(t, run(false), events.KindRefused, "test.jsonl", "session", "--again")
		if n := r.count(); n != 40 {
			t.Errorf("%d events after two loads of 20", n)
		}
		// The third time is cut off in the middle, and goes on with or without
		// --again.
		calls := 0
		r.trouble = func() trouble {
			if calls++; calls > 3 {
				return lost
			}
			return none
		}
		cfg.Patience = 0
		wantKind(t, run(true), events.KindNotReady, "us-east-1", "goes on from here")
		r.trouble = nil
		if err := run(false); err != nil {
			t.Fatal(err)
		}
		if n := r.count(); n != 60 {
			t.Errorf("%d events after three loads of 20", n)
		}
	})
}

// An interrupted load says how much of it had been written before.
func TestBefore(t *testing.T) {
	r := newRegion(us)
	items := makeItems(newRand(1), 20, us)
	cfg := configFor(t)
	cfg.SetBatchEvents(5)
	ctx, interrupt := context.WithCancel(t.Context())
	batches := 0
	cfg.Written = func(events.Region, int) {
		if batches++; batches == 2 {
			interrupt()
		}
	}
	if _, err := load.Run(ctx, inputOf(items), nodesOf(r), cfg); !errors.Is(err, context.Canceled) {
		t.Fatalf("an interrupted load ends with %v", err)
	}
	written := r.count()
	res, err := load.Run(t.Context(), inputOf(items), nodesOf(r), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if written == 0 || written == 20 || res.Before != written || res.Written[us] != 20-written {
		t.Errorf("of %d written before, the result says %+v", written, res)
	}
}

func TestNoEvents(t *testing.T) {
	r := newRegion(us)
	res, err := load.Run(t.Context(), inputOf(nil), nodesOf(r), configFor(t))
	if err != nil || res.Events != 0 || len(r.turn) != 0 {
		t.Errorf("%+v, %v, %v", res, err, r.turn)
	}
}

// All faults are told, in one error, and nothing is sent.
func TestFaultsAtOnce(t *testing.T) {
	future := events.HLCAt(time.Now().Add(time.Hour))
	past := events.HLCFromMillis(1)
	big := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	items := []load.Item{
		{Place: 1, Region: us, Event: api.LoadEvent{Key: []byte("a"), Value: []byte("v"), Clock: &past}},
		{Place: 2, Region: "mars", Event: api.LoadEvent{Key: []byte("a")}},
		{Place: 4, Region: us, Event: api.LoadEvent{Key: big(events.MaxKeyBytes + 1)}},
		{Place: 5, Region: us, Event: api.LoadEvent{Key: []byte("a"), Value: big(events.MaxValueBytes + 1)}},
		{Place: 9, Region: us, Event: api.LoadEvent{Key: []byte("a"), Clock: &future}},
		{Place: 11, Event: api.LoadEvent{Key: []byte("a")}},
	}
	r := newRegion(us)
	cfg := configFor(t)
	cfg.Default = "venus"
	_, err := load.Run(t.Context(), inputOf(items), nodesOf(r), cfg)
	wantKind(t, err, events.KindInvalid, "nothing was loaded", "faults of the input: 5",
		`test.jsonl:2: region "mars" is unknown`, "us-east-1",
		"test.jsonl:4: key of 32769", "test.jsonl:5: key of 1 and value of 16777217",
		"test.jsonl:9: clock", "5m0s ahead", `test.jsonl:11: region "venus"`)
	if err != nil && strings.Contains(err.Error(), ":1:") {
		t.Errorf("line 1 is right: %v", err)
	}
	if len(r.turn) != 0 {
		t.Error("the node was asked")
	}
	if _, err := os.Stat(cfg.Progress); err == nil {
		t.Error("there is a progress file")
	}
}

// What a node would refuse is told before any node has got anything: the input that is mended is
// another one, and all of it would be written, once more.
func TestLimitsOfNodes(t *testing.T) {
	ahead := events.HLCAt(time.Now().Add(2 * time.Minute))
	value := func(n int) api.Bytes { return bytes.Repeat([]byte("x"), n) }
	items := []load.Item{
		{Place: 1, Region: us, Event: api.LoadEvent{Key: []byte("a"), Value: value(1_000)}},
		{Place: 2, Region: eu, Event: api.LoadEvent{Key: []byte("a"), Value: value(1_001), Clock: &ahead}},
		{Place: 5, Region: us, Event: api.LoadEvent{Key: []byte("b"), Value: value(1_001)}},
		{Place: 6, Region: us, Event: api.LoadEvent{Key: []byte("b"), Value: value(1), Clock: &ahead}},
	}
	a, b := newRegion(us), newRegion(eu)
	a.limits = &api.LoadLimits{MaxValueBytes: 1_000, MaxClockSkewSeconds: 60, MaxBodyBytes: 8 << 20}
	b.limits = &api.LoadLimits{MaxValueBytes: 2_000, MaxClockSkewSeconds: 300, MaxBodyBytes: 8 << 20}
	cfg := configFor(t)
	cfg.SetBatchEvents(1)
	_, err := load.Run(t.Context(), inputOf(items), nodesOf(a, b), cfg)
	wantKind(t, err, events.KindInvalid, "nothing was loaded", "faults of the input: 2",
		"test.jsonl:5: region us-east-1: value of 1001 bytes: the node takes at most 1000 (limits.max_value_bytes)",
		"test.jsonl:6: region us-east-1: clock", "more than 1m0s ahead")
	if a.count()+b.count() > 0 {
		t.Errorf("%d and %d events were written", a.count(), b.count())
	}
	a.limits = b.limits
	if _, err := load.Run(t.Context(), inputOf(items), nodesOf(a, b), cfg); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*region{a, b} {
		if err := r.checkExact(items); err != nil {
			t.Error(err)
		}
	}
}

// What was written before the limits were lowered does not count.
func TestLimitsOfTheRest(t *testing.T) {
	r := newRegion(us)
	items := makeItems(newRand(1), 20, us)
	for _, i := range []int{2, 17} {
		items[i].Event.Value = bytes.Repeat([]byte("x"), 100)
	}
	cfg := configFor(t)
	cfg.SetBatchEvents(5)
	ctx, interrupt := context.WithCancel(t.Context())
	cfg.Written = func(events.Region, int) { interrupt() }
	if _, err := load.Run(ctx, inputOf(items), nodesOf(r), cfg); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	cfg.Written = nil
	r.limits = &api.LoadLimits{MaxValueBytes: 99, MaxClockSkewSeconds: 60, MaxBodyBytes: 8 << 20}
	_, err := load.Run(t.Context(), inputOf(items), nodesOf(r), cfg)
	wantKind(t, err, events.KindInvalid, "nothing more was loaded; raise the limits", "faults of the input: 1", fmt.Sprintf("test.jsonl:%d: ", items[17].Place))
	r.limits.MaxValueBytes = 100
	if _, err := load.Run(t.Context(), inputOf(items), nodesOf(r), cfg); err != nil {
		t.Fatal(err)
	}
	if err := r.checkExact(items); err != nil {
		t.Error(err)
	}
}

// Requests are no larger than a node takes, and what fits by its true size is let pass.
func TestRequestsSuitTheNode(t *testing.T) {
	const most = 400_000
	var items []load.Item
	for i := range 20 {
		items = append(items, load.Item{Place: i + 1, Region: us, Event: api.LoadEvent{Key: []byte("key"), Value: bytes.Repeat([]byte("x"), 90_000)}})
	}
	items[7].Event.Value = []byte(strings.Repeat("—", most/3-1_000)) // counted twice as large
	node := &sizingNode{region: newRegion(us)}
	node.limits = &api.LoadLimits{MaxValueBytes: 1_000_000, MaxClockSkewSeconds: 60, MaxBodyBytes: most}
	nodes := map[events.Region]load.Node{us: node}
	if _, err := load.Run(t.Context(), inputOf(items), nodes, configFor(t)); err != nil {
		t.Fatal(err)
	}
	if err := node.checkExact(items); err != nil || node.largest > most-60 || node.largest < most*3/4 {
		t.Errorf("%v; the largest request has %d bytes without what JSON-RPC adds, the node takes %d", err, node.largest, most)
	}
	items[11].Event.Value = bytes.Repeat([]byte("x"), most)
	written := node.count()
	_, err := load.Run(t.Context(), inputOf(items), nodes, configFor(t))
	wantKind(t, err, events.KindInvalid, "nothing was loaded", "faults of the input: 1", "test.jsonl:12: ", "api.max_body_bytes")
	if node.count() > written {
		t.Error("something was written")
	}
}

// Of many faults the first are told, and how many there are.
func TestManyFaults(t *testing.T) {
	var items []load.Item
	for i := range 1_000 {
		items = append(items, load.Item{Place: i + 1, Region: "mars"})
	}
	_, err := load.Run(t.Context(), inputOf(items), nodesOf(newRegion(us)), configFor(t))
	wantKind(t, err, events.KindInvalid, "faults of the input: 1000", "test.jsonl:1:", fmt.Sprintf("test.jsonl:%d:", load.ShownFaults), fmt.Sprintf("and %d more", 1_000-load.ShownFaults))
	if err != nil && strings.Count(err.Error(), "mars") != load.ShownFaults {
		t.Errorf("%d faults are shown", strings.Count(err.Error(), "mars"))
	}
}

// An input that ends badly loads nothing, and faults before that are told too.
func TestInputBreaks(t *testing.T) {
	broken := errors.New("the disk is gone")
	in := &load.Input{Name: "x", ID: "1", Items: func() iter.Seq2[load.Item, error] {
		return func(yield func(load.Item, error) bool) {
			_ = yield(load.Item{Place: 1, Region: "mars"}, nil) && yield(load.Item{}, broken)
		}
	}}
	r := newRegion(us)
	_, err := load.Run(t.Context(), in, nodesOf(r), configFor(t))
	wantKind(t, err, events.KindFailed, "x:1:", "the disk is gone")
	if !errors.Is(err, broken) || len(r.turn) != 0 {
		t.Errorf("got %v", err)
	}
}

// An input that gives other items when it is sent than when it was checked.
func TestInputChanges(t *testing.T) {
	passes := 0
	in := &load.Input{Name: "x", ID: "1", Items: func() iter.Seq2[load.Item, error] {
		passes++
		return func(yield func(load.Item, error) bool) {
			item := load.Item{Place: 1, Region: us, Event: api.LoadEvent{Key: []byte("k")}}
			if passes == 2 {
				item.Region = eu
			}
			yield(item, nil)
		}
	}}
	_, err := load.Run(t.Context(), in, nodesOf(newRegion(us), newRegion(eu)), configFor(t))
	wantKind(t, err, events.KindFailed, "x has changed")
}

// What no repetition helps against ends the load at once; anything else is
// tried again until patience ends.
func TestErrorsOfTheNode(t *testing.T) {
	for _, c := range []struct {
		kind  events.Kind
		final bool
	}{
		{events.KindInvalid, true}, {events.KindRefused, true}, {events.KindNotFound, true},
		{events.KindFailed, false}, {events.KindPartial, false}, {events.KindInconsistent, false}, {events.KindNotReady, false},
	} {
		t.Run(c.kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, begun := 0, time.Now()
				node := failingNode{newRegion(us), func() error { calls++; return events.Errorf(c.kind, "because") }}
				cfg := configFor(t)
				_, err := load.Run(t.Context(), inputOf(makeItems(newRand(1), 1, us)), map[events.Region]load.Node{us: node}, cfg)
				wantKind(t, err, c.kind, "region us-east-1", "because")
				if goesOn := err != nil && strings.Contains(err.Error(), "the same command goes on from here"); goesOn == c.final {
					t.Errorf("got %v", err)
				}
				if (calls == 1) != c.final {
					t.Errorf("%d calls", calls)
				}
				if took := time.Since(begun); !c.final && (took < cfg.Patience/2 || took > cfg.Patience) || c.final && took > 0 {
					t.Errorf("it gave up after %s", took)
				}
			})
		})
	}
}

// failingNode fails every Load.
type failingNode struct {
	*region
	fail func() error
}

func (n failingNode) Load(context.Context, api.LoadParams) (*api.LoadResult, error) {
	return nil, n.fail()
}

// An interruption ends the load at once, whatever it waits for.
func TestInterrupted(t *testing.T) {
	for _, what := range []string{"load", "landed"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, interrupt := context.WithCancel(t.Context())
				node := hangingNode{newRegion(us), what}
				ended := make(chan error)
				go func() {
					_, err := load.Run(ctx, inputOf(makeItems(newRand(1), 5, us)), map[events.Region]load.Node{us: node}, configFor(t))
					ended <- err
				}()
				synctest.Wait() // it hangs
				begun := time.Now()
				interrupt()
				if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(begun) > 0 {
					t.Errorf("ended after %s with %v", time.Since(begun), err)
				}
			})
		})
	}
}

// hangingNode fails the first Load, then hangs in the named method.
type hangingNode struct {
	*region
	what string
}

func (n hangingNode) Load(ctx context.Context, _ api.LoadParams) (*api.LoadResult, error) {
	if n.what == "load" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, unreachable(us)
}

func (n hangingNode) Landed(ctx context.Context, p api.LandedParams) (*api.LandedResult, error) {
	if n.what == "landed" && p.After != nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return n.region.Landed(ctx, p)
}

// The requests of a load stay below the size that a node takes, whatever is in
// its values.
func TestRequestSize(t *testing.T) {
	for name, unit := range map[string]string{
		"letters": "x", "control characters": "\x01", "quotes": `"\`, "HTML": "<&>", "separators": "\u2028\u2029", "no text": "\xff", "wide": "語😀",
	} {
		t.Run(name, func(t *testing.T) {
			var items []load.Item
			for i := range 12 {
				value := []byte(strings.Repeat(unit, 300_000/len(unit)))
				items = append(items, load.Item{Place: i + 1, Region: us, Event: api.LoadEvent{Key: []byte("key"), Value: value, ContentType: "application/json"}})
			}
			node := &sizingNode{region: newRegion(us)}
			if _, err := load.Run(t.Context(), inputOf(items), map[events.Region]load.Node{us: node}, configFor(t)); err != nil {
				t.Fatal(err)
			}
			if node.largest > load.BatchBytes+1_000 || node.largest < load.BatchBytes/3 {
				t.Errorf("the largest request has %d bytes, the bound is %d", node.largest, load.BatchBytes)
			}
			if err := node.checkExact(items); err != nil {
				t.Error(err)
			}
		})
	}
}

// sizingNode measures requests as the API's client sends them.
type sizingNode struct {
	*region
	largest int
}

func (n *sizingNode) Load(ctx context.Context, p api.LoadParams) (*api.LoadResult, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return nil, err
	}
	n.largest = max(n.largest, text.Len())
	return n.region.Load(ctx, p)
}
