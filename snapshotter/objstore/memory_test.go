package objstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestMemoryRemembersViolations(t *testing.T) {
	ctx := t.Context()
	m := NewMemory("m")
	mustCreate(t, m, "a/b", "body")
	mustCreate(t, m, "gone", "body")
	if err := m.Delete(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	if v := m.Violations(); len(v) != 0 {
		t.Fatalf("violations of a good caller: %q", v)
	}
	for _, test := range []struct {
		err  error
		says string
	}{
		{m.Create(ctx, "gone", []byte("body")), `create "gone": name was used and deleted before`},
		{m.Create(ctx, "a", nil), `create "a": name is the folder of other objects`},
		{m.Create(ctx, "a/b/c/d", nil), `create "a/b/c/d": its folder "a/b" is an object`},
		{m.Create(ctx, "a//b", nil), `create "a//b": invalid request: name "a//b" has an empty segment`},
		{m.Delete(ctx, "../x"), `delete "../x": `},
	} {
		v := m.Violations()
		if !errors.Is(test.err, ErrInvalid) || !anyHasPrefix(v, test.says) {
			t.Errorf("error %v, violations %q, want %q", test.err, v, test.says)
		}
	}
	if n := len(m.Violations()); n != 5 {
		t.Errorf("%d violations, want 5", n)
	}
	// A folder is free again once its last object is gone.
	if err := m.Delete(ctx, "a/b"); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, m, "a", "body")
}

func TestMemoryListSeesChangesBetweenPages(t *testing.T) {
	m := NewMemory("m")
	for i := range memoryPage + 10 {
		mustCreate(t, m, fmt.Sprintf("%05d", i), "")
	}
	seen, last := 0, ""
	for info, err := range m.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if seen == 0 {
			if err := m.Delete(t.Context(), fmt.Sprintf("%05d", memoryPage+3)); err != nil {
				t.Fatal(err)
			}
			mustCreate(t, m, "99999", "")
		}
		seen++
		last = info.Name
	}
	if seen != memoryPage+10 || last != "99999" {
		t.Errorf("saw %d names, last %q", seen, last)
	}
}

func TestMemoryDamage(t *testing.T) {
	m := NewMemory("m")
	mustCreate(t, m, "n", "body")
	if err := m.Damage("n", func(b []byte) []byte { b[0] = 'B'; return b[:3] }); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadAll(t.Context(), m, "n", 100); err != nil || string(got) != "Bod" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := m.Damage("none", func(b []byte) []byte { return b }); !errors.Is(err, ErrNotFound) {
		t.Errorf("Damage of nothing: %v", err)
	}
}

// What was lost may come back, and what was deleted may not.
func TestMemoryLose(t *testing.T) {
	m := NewMemory("m")
	mustCreate(t, m, "a/b", "body")
	if err := m.Lose("a/b"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Stat(t.Context(), "a/b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Stat: %v", err)
	}
	mustCreate(t, m, "a/b", "body")
	if v := m.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
	if err := m.Lose("none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Lose of nothing: %v", err)
	}
}

func TestReadAllIsBounded(t *testing.T) {
	m := NewMemory("m")
	mustCreate(t, m, "n", "0123456789")
	if got, err := ReadAll(t.Context(), m, "n", 10); err != nil || string(got) != "0123456789" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := ReadAll(t.Context(), m, "n", 9); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "at most 9") {
		t.Errorf("too large: %v", err)
	}
}

// overwriting is a store that ignores If-None-Match.
type overwriting struct{ *Memory }

func (o overwriting) Create(ctx context.Context, name string, body []byte) error {
	if err := o.Damage(name, func([]byte) []byte { return body }); err == nil {
		return nil
	}
	return o.Memory.Create(ctx, name, body)
}

func TestProbeFindsAStoreThatOverwrites(t *testing.T) {
	m := NewMemory("m")
	err := Probe(t.Context(), overwriting{m}, "probe/1")
	if err == nil || !strings.Contains(err.Error(), "overwrites") || !strings.Contains(err.Error(), "If-None-Match") || IsTemporary(err) {
		t.Errorf("Probe: %v", err)
	}
	if _, err := m.Stat(t.Context(), "probe/1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the probe is left behind: %v", err)
	}
}

func anyHasPrefix(all []string, prefix string) bool {
	for _, s := range all {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

func mustCreate(t *testing.T, b Bucket, name, body string) {
	t.Helper()
	if err := b.Create(t.Context(), name, []byte(body)); err != nil {
		t.Fatal(err)
	}
}
