package ledger

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// planAt is a plan for a batch of ten records behind a hole.
func planAt(dest int64, keep int) *Plan {
	return &Plan{Dest: dest, Count: 10, CRC: uint32(dest), Keep: keep, Runs: []mapping.Run{{Source: dest + 100, Dest: dest}}}
}

// A plan is no more than that until somebody says that it has landed; then it is in
// the map, and what was planned besides is void.
func TestPlans(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	w.do(a.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}, {Source: 30, Dest: 20}}))
	w.do(b.Refresh(w.ctx))
	_, at := a.Runs(p0)
	mine, others := planAt(20, 1), planAt(20, 1)
	others.CRC++
	for range 2 { // one that is there already is not written again
		same, err := a.Step(w.ctx, p0, at, nil, mine)
		w.do(err)
		if same != at {
			t.Fatalf("a plan has changed the version: %v", same)
		}
	}
	_, err := b.Step(w.ctx, p0, at, nil, others)
	w.do(err)
	w.do(a.Refresh(w.ctx))
	for _, l := range []*Ledger{a, b} {
		open := l.Plans(p0)
		if len(open) != 2 || !open[0].same(*mine) || !open[1].same(*others) {
			t.Fatalf("plans %+v", open)
		}
		if got := fmt.Sprint(l.Map(p0).Runs()); got != "[5→0 30→20]" {
			t.Fatalf("runs %s", got)
		}
	}
	w.compact(a)

	// b sees that its own has landed, and goes on at once.
	more := planAt(30, 2)
	next, err := b.Step(w.ctx, p0, at, others, more)
	w.do(err)
	for range 2 { // a does not know, and then it does
		if _, err := a.Step(w.ctx, p0, at, mine, nil); !errors.Is(err, ErrSuperseded) {
			t.Fatalf("error %v", err)
		}
	}
	if got := fmt.Sprint(a.Map(p0).Runs()); got != "[5→0 120→20]" {
		t.Fatalf("runs %s", got)
	}
	for range 2 {
		open := a.Plans(p0)
		if len(open) != 1 || !open[0].same(*more) {
			t.Fatalf("plans %+v", open)
		}
		w.same([]Partition{p0}, a, b)
		w.compact(a)
	}
	w.do(a.Drop(w.ctx, a.Plans(p0)))
	w.do(b.Refresh(w.ctx))
	if open := slices.Concat(a.Plans(p0), b.Plans(p0)); len(open) > 0 {
		t.Fatalf("plans %+v after they were dropped", open)
	}
	w.compact(a)
	w.compact(a)
	if left := w.content(); left[kindPlan] != 0 {
		t.Fatalf("left in the topic: %v", left)
	}
	if _, now := a.Runs(p0); now != next {
		t.Fatalf("version %v, want %v", now, next)
	}
	if bad := a.Unreadable(); len(bad) > 0 {
		t.Fatalf("unreadable: %q", bad)
	}
}

// A reset makes plans void, whenever they arrive.
func TestResetVoidsPlans(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	_, at := a.Runs(p0)
	_, err := a.Step(w.ctx, p0, at, nil, planAt(0, 0))
	w.do(err)
	runs, err := mapping.New(mapping.Run{Source: 7})
	w.do(err)
	w.do(b.Reset(w.ctx, p0, runs))
	if _, err := a.Step(w.ctx, p0, at, nil, planAt(10, 0)); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("error %v", err)
	}
	w.same([]Partition{p0}, a, b)
	if open := slices.Concat(a.Plans(p0), b.Plans(p0)); len(open) > 0 {
		t.Fatalf("plans %+v", open)
	}
}

// Chunks with as many runs as a plan may have make no blocks, which no message would
// hold, and are read again all the same.
func TestLargePlans(t *testing.T) {
	w := single(t)
	l := w.open()
	defer l.Close()
	_, at := l.Runs(p0)
	for n := range int64(blockChunks + 1) {
		plan := Plan{Dest: 200 * n, Count: 200, Keep: int(200 * n)}
		for i := range int64(200) {
			plan.Runs = append(plan.Runs, mapping.Run{Source: 3 * (200*n + i), Dest: 200*n + i})
		}
		next, err := l.Step(w.ctx, p0, at, nil, &plan)
		w.do(err)
		next, err = l.Step(w.ctx, p0, next, &plan, nil)
		w.do(err)
		at = next
	}
	if n := l.Map(p0).Len(); n != 200*(blockChunks+1) {
		t.Fatalf("%d runs", n)
	}
	w.compact(l)
	w.same([]Partition{p0}, l)
	if left := w.content(); left[kindBlock] != 0 || left[kindRuns] != blockChunks+1 {
		t.Fatalf("left in the topic: %v", left)
	}
	tooLarge := Plan{Dest: 1 << 20, Count: 1, Runs: make([]mapping.Run, PlanRunsMax+1)}
	if _, err := l.Step(w.ctx, p0, at, nil, &tooLarge); err == nil {
		t.Error("a plan that no message holds was written")
	}
}
