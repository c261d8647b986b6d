package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/objstoretest"
)

func TestFailures(t *testing.T) {
	for _, test := range []struct {
		rule   Rule
		kind   error
		stored bool
	}{
		{Rule{Effect: FailBefore}, objstore.ErrUnavailable, false},
		{Rule{Effect: FailAfter}, objstore.ErrUnavailable, true},
		{Rule{Effect: FailAfter, Err: objstore.ErrAccess}, objstore.ErrAccess, true},
		{Rule{Effect: Conflict}, objstore.ErrUnavailable, false},
		{Rule{Effect: Deny}, objstore.ErrAccess, false},
		{Rule{Effect: Late}, objstore.ErrUnavailable, false},
		{Rule{Effect: Torn}, objstore.ErrUnavailable, true},
		{Rule{Effect: Wait}, nil, true},
	} {
		m := objstore.NewMemory("m")
		err := New(m, test.rule).Create(t.Context(), "n", []byte("body"))
		if !errors.Is(err, test.kind) || objstore.IsTemporary(err) != (test.kind == objstore.ErrUnavailable) {
			t.Errorf("%s: %v, want %v", test.rule.Effect, err, test.kind)
		}
		if _, err := m.Stat(t.Context(), "n"); (err == nil) != test.stored {
			t.Errorf("%s: stored %t", test.rule.Effect, err == nil)
		}
	}
}

// Every method goes through the rules, and what a lost answer hid was done.
func TestEveryOp(t *testing.T) {
	for _, effect := range []Effect{FailBefore, FailAfter} {
		m := objstore.NewMemory("m")
		mustCreate(t, m, "n", "body")
		f := New(m, Rule{Effect: effect})
		_, _, get := f.Get(t.Context(), "n")
		_, getRange := f.GetRange(t.Context(), "n", 0, 1)
		_, stat := f.Stat(t.Context(), "n")
		var list error
		for _, err := range f.List(t.Context(), "") {
			list = err
		}
		for i, err := range []error{get, getRange, stat, list, f.Create(t.Context(), "n2", nil), f.Check(t.Context()), f.Delete(t.Context(), "n")} {
			if !errors.Is(err, objstore.ErrUnavailable) {
				t.Errorf("%s, method %d: %v", effect, i, err)
			}
		}
		if _, err := m.Stat(t.Context(), "n"); errors.Is(err, objstore.ErrNotFound) != (effect == FailAfter) {
			t.Errorf("%s: after Delete: %v", effect, err)
		}
		if n := len(f.Log()); n != 7 {
			t.Errorf("%s: %d entries in the log", effect, n)
		}
	}
}

func TestListBreaksInTheMiddle(t *testing.T) {
	m := objstore.NewMemory("m")
	for i := range 40 {
		mustCreate(t, m, fmt.Sprintf("%02d", i), "")
	}
	seen, broke := 0, error(nil)
	for _, err := range New(m, Rule{Effect: FailAfter}).List(t.Context(), "") {
		if err != nil {
			broke = err
		} else {
			seen++
		}
	}
	if seen >= 16 || !errors.Is(broke, objstore.ErrUnavailable) {
		t.Errorf("%d entries, then %v", seen, broke)
	}
}

func TestLateCreateLands(t *testing.T) {
	m := objstore.NewMemory("m")
	f := New(m, Rule{Effect: Late, Times: 2})
	body := []byte("first")
	if err := f.Create(t.Context(), "n", body); !errors.Is(err, objstore.ErrUnavailable) {
		t.Fatal(err)
	}
	copy(body, "later")
	if err := f.Create(t.Context(), "other", nil); !errors.Is(err, objstore.ErrUnavailable) {
		t.Fatal(err)
	}
	mustCreate(t, f, "n", "second") // the writer gave up and another one came
	errs := f.Land(t.Context())
	if len(errs) != 2 || !errors.Is(errs[0], objstore.ErrExists) || errs[1] != nil {
		t.Errorf("Land: %v", errs)
	}
	if again := f.Land(t.Context()); len(again) != 0 {
		t.Errorf("landed twice: %v", again)
	}
	if got, err := objstore.ReadAll(t.Context(), m, "n", 10); err != nil || string(got) != "second" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Of an object that is torn the beginning is stored, and nobody gets the whole of it there.
func TestTornCreate(t *testing.T) {
	const body = "some body"
	for seed := range uint64(20) {
		m := objstore.NewMemory("m")
		f := NewSeed(m, seed, Rule{Effect: Torn, Times: 2})
		if err := f.Create(t.Context(), "empty", nil); !errors.Is(err, objstore.ErrUnavailable) {
			t.Fatal(err)
		}
		if err := f.Create(t.Context(), "n", []byte(body)); !errors.Is(err, objstore.ErrUnavailable) {
			t.Fatal(err)
		}
		if got, err := objstore.ReadAll(t.Context(), m, "n", 100); err != nil || len(got) >= len(body) || !strings.HasPrefix(body, string(got)) {
			t.Errorf("stored is %q, %v", got, err)
		}
		if err := f.Create(t.Context(), "n", []byte(body)); !errors.Is(err, objstore.ErrExists) {
			t.Errorf("again: %v", err)
		}
	}
}

func TestReads(t *testing.T) {
	m := objstore.NewMemory("m")
	body := bytes.Repeat([]byte("0123456789"), 100)
	mustCreate(t, m, "n", string(body))
	mustCreate(t, m, "empty", "")
	read := func(effect Effect) ([]byte, error) {
		f := New(m, Rule{Effect: effect})
		if got, err := objstore.ReadAll(t.Context(), f, "empty", 1); err != nil || len(got) != 0 {
			t.Errorf("%s of an empty object: %q, %v", effect, got, err)
		}
		rc, err := f.GetRange(t.Context(), "n", 0, int64(len(body)))
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		return io.ReadAll(rc)
	}
	if got, err := read(TearBody); !errors.Is(err, objstore.ErrCorrupt) || len(got) >= len(body) || !bytes.HasPrefix(body, got) {
		t.Errorf("torn: %d bytes, %v", len(got), err)
	}
	if got, err := read(TruncateBody); err != nil || len(got) >= len(body) || !bytes.HasPrefix(body, got) {
		t.Errorf("truncated: %d bytes, %v", len(got), err)
	}
	got, err := read(FlipBit)
	if err != nil || len(got) != len(body) {
		t.Fatalf("flipped: %d bytes, %v", len(got), err)
	}
	flipped := 0
	for i := range got {
		flipped += bits.OnesCount8(got[i] ^ body[i])
	}
	if flipped != 1 {
		t.Errorf("%d bits flipped, want 1", flipped)
	}
	if _, err := objstore.ReadAll(t.Context(), New(m, Rule{Effect: TruncateBody}), "n", 1000); !errors.Is(err, objstore.ErrCorrupt) {
		t.Errorf("ReadAll of a truncated body: %v", err)
	}
}

func TestConditions(t *testing.T) {
	m := objstore.NewMemory("m")
	f := New(m,
		Rule{Ops: []string{objstore.OpCreate}, Name: "manifests/*", Nth: 2, Effect: FailBefore},
		Rule{Ops: []string{objstore.OpCreate}, Name: "*/last", Times: 1, Effect: Deny},
		Rule{Effect: TearBody}, // must not count as a fault of a create
	)
	var failed []string
	for _, name := range []string{"data/1", "manifests/1", "manifests/2", "manifests/3", "a/b/last", "c/last"} {
		if err := f.Create(t.Context(), name, nil); err != nil {
			failed = append(failed, name)
		}
	}
	if want := []string{"manifests/2", "a/b/last"}; !slices.Equal(failed, want) {
		t.Errorf("failed: %q, want %q", failed, want)
	}
	want := []string{`call 3: create "manifests/2": fail before (rule 0)`, `call 5: create "a/b/last": deny (rule 1)`}
	var got []string
	for _, i := range f.Log() {
		got = append(got, i.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("log:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	f.SetRules()
	mustCreate(t, f, "manifests/2", "")
}

func TestSeeds(t *testing.T) {
	run := func(seed uint64) []Injected {
		f := NewSeed(objstore.NewMemory("m"), seed, Rule{Probability: 0.3, Effect: FailBefore}, Rule{Probability: 0.5, Effect: FailAfter})
		for i := range 200 {
			_ = f.Create(t.Context(), fmt.Sprint(i), nil) // the log tells
		}
		return f.Log()
	}
	if !slices.Equal(run(7), run(7)) {
		t.Error("one seed, two stories")
	}
	if slices.Equal(run(7), run(8)) {
		t.Error("two seeds, one story")
	}
	if n := len(run(7)); n < 90 || n > 170 { // 65 % of 200
		t.Errorf("%d faults in 200 calls", n)
	}
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "ab/c", true}, {"*b", "a/b", true}, {"*b", "a/bc", false},
		{"a*c", "abc", true}, {"a*c", "ac", true}, {"a*a", "a", false}, {"a*b*c", "a--b--c", true}, {"a*b*c", "a--c--b", false}, {"*", "", true},
		{"ab*ba", "aba", false}, {"*x*", "axb", true}, {"*x*", "ab", false},
	} {
		if got := match(test.pattern, test.name); got != test.want {
			t.Errorf("match(%q, %q) = %t", test.pattern, test.name, got)
		}
	}
}

// Memory and the faults in front of it keep to the bubble's time.
func TestMemoryInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := objstore.NewMemory("m")
		f := New(m, Rule{Ops: []string{objstore.OpCreate}, Nth: 1, Effect: Wait, Delay: time.Hour})
		begin := time.Now()
		mustCreate(t, f, "slow", "body")
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("took %s of the bubble's time", took)
		}
		info, err := f.Stat(t.Context(), "slow")
		if err != nil || !info.Modified.Equal(begin.Add(time.Hour)) {
			t.Errorf("Stat = %+v, %v", info, err)
		}
		f.SetRules(Rule{Delay: time.Hour})
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		begin = time.Now()
		if err := f.Delete(ctx, "slow"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("Delete after %s: %v", time.Since(begin), err)
		}
	})
}

func TestWithoutRules(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Bucket { return New(objstore.NewMemory("m")) })
}

func mustCreate(t *testing.T, b objstore.Bucket, name, body string) {
	t.Helper()
	if err := b.Create(t.Context(), name, []byte(body)); err != nil {
		t.Fatal(err)
	}
}
