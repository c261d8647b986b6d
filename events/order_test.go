package events_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

func sign(n int) int { return min(max(n, -1), 1) }

// total checks that compare is a total order, and agrees with equality.
func total[T comparable](gen *rapid.Generator[T], compare func(a, b T) int) func(*testing.T) {
	return rapid.MakeCheck(func(t *rapid.T) {
		a, b, c := gen.Draw(t, "a"), gen.Draw(t, "b"), gen.Draw(t, "c")
		if sign(compare(a, b)) != -sign(compare(b, a)) {
			t.Fatalf("%v against %v gives %d, the other way %d", a, b, compare(a, b), compare(b, a))
		}
		if (compare(a, b) == 0) != (a == b) || compare(a, a) != 0 {
			t.Fatalf("%v and %v compare as %d", a, b, compare(a, b))
		}
		if compare(a, b) <= 0 && compare(b, c) <= 0 && compare(a, c) > 0 {
			t.Fatalf("%v ≤ %v ≤ %v, but the first is after the last", a, b, c)
		}
	})
}

func TestOrderIsTotal(t *testing.T) {
	t.Run("origins", total(genOrigin(), events.Origin.Compare))
	t.Run("logs", total(genLog(), events.Log.Compare))
	t.Run("positions", total(genPosition(), events.Position.Compare))
}

func TestOrder(t *testing.T) {
	ascending := []string{
		"a/s/0@1", "a/s/0@2", "a/s/0@10", "a/s/2@0", "a/s/10@0", "a/s-x/0@0", "a/s_x/0@0", "a_2/a/0@0", "a_10/a/0@0", "a-b/a/0@0", "b/a/0@0",
	}
	var last events.Position
	for i, text := range ascending {
		p, err := events.ParsePosition(text)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && (last.Compare(p) >= 0 || p.Compare(last) <= 0) {
			t.Errorf("%s is not before %s", last, p)
		}
		last = p
	}
}

func TestVectorsAreALattice(t *testing.T) {
	leq := func(v, w events.Vector) bool {
		o := v.Compare(w)
		return o == events.Before || o == events.Equal
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genVector().Draw(t, "a"), genVector().Draw(t, "b"), genVector().Draw(t, "c")
		ab := a.Join(b)
		same := func(what string, v, w events.Vector) {
			if v.Compare(w) != events.Equal || v.String() != w.String() {
				t.Fatalf("%s: %s and %s", what, v, w)
			}
		}
		same("commutative", ab, b.Join(a))
		same("associative", ab.Join(c), a.Join(b.Join(c)))
		same("idempotent", a.Join(a), a)
		same("empty is neutral", a.Join(nil), a)
		if !leq(a, ab) || !leq(b, ab) {
			t.Fatalf("%s is no upper bound of %s and %s", ab, a, b)
		}
		if upper := ab.Join(c); leq(a, upper) && leq(b, upper) && !leq(ab, upper) {
			t.Fatalf("%s is not the smallest bound", ab)
		}
		if leq(a, b) != (a.Join(b).Compare(b) == events.Equal) {
			t.Fatalf("order and join disagree about %s and %s", a, b)
		}
		mirrored := map[events.Order]events.Order{events.Equal: events.Equal, events.Before: events.After, events.After: events.Before, events.Concurrent: events.Concurrent}
		if b.Compare(a) != mirrored[a.Compare(b)] {
			t.Fatalf("%s against %s is %s, the other way %s", a, b, a.Compare(b), b.Compare(a))
		}
		if leq(a, b) && leq(b, c) && !leq(a, c) {
			t.Fatal("the order is not transitive")
		}
	})
}

// Compare against its definition, log by log.
func TestVectorCompareIsPointwise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genVector().Draw(t, "a"), genVector().Draw(t, "b")
		less, more := false, false
		for log := range a.Join(b) {
			less, more = less || a[log] < b[log], more || a[log] > b[log]
		}
		want := map[[2]bool]events.Order{{}: events.Equal, {true, false}: events.Before, {false, true}: events.After, {true, true}: events.Concurrent}[[2]bool{less, more}]
		if got := a.Compare(b); got != want {
			t.Fatalf("%s against %s is %s, want %s", a, b, got, want)
		}
	})
}

func TestVectorCompareTable(t *testing.T) {
	for _, c := range []struct {
		v, w string
		want events.Order
	}{
		{"", "", events.Equal},
		{"", "a/s/0@1", events.Before},
		{"a/s/0@1", "", events.After},
		{"a/s/0@1", "a/s/0@2", events.Before},
		{"a/s/0@2,b/s/0@1", "a/s/0@2", events.After},
		{"a/s/0@1", "b/s/0@1", events.Concurrent},
		{"a/s/0@1,b/s/0@2,c/s/0@3", "a/s/0@1,b/s/0@3,c/s/0@2", events.Concurrent},
		{"a/s/0@1,b/s/0@2", "a/s/0@1,b/s/0@2,c/s/0@1", events.Before},
	} {
		v, w := mustVector(t, c.v), mustVector(t, c.w)
		if got := v.Compare(w); got != c.want {
			t.Errorf("%q against %q is %s, want %s", c.v, c.w, got, c.want)
		}
	}
	if got := (events.Vector{events.Log{Stream: "s"}: 0}).Compare(nil); got != events.Equal {
		t.Errorf("a log at offset 0 against no log is %s", got)
	}
}

func TestVectorMethods(t *testing.T) {
	v := mustVector(t, "a/s/0@2,b/s/0@1")
	log := v.Positions()[0].Log
	for offset, want := range []bool{true, true, false, false} {
		if v.Covers(log.At(int64(offset))) != want {
			t.Errorf("%s covers offset %d: %t", v, offset, !want)
		}
	}
	if (events.Vector)(nil).Covers(log.At(0)) {
		t.Error("the empty vector covers something")
	}
	c := v.Clone()
	c[log] = 9
	if v[log] != 2 {
		t.Error("a clone shares its logs")
	}
	if (events.Vector)(nil).Clone() == nil {
		t.Error("the clone of nothing is nil")
	}
	states := []events.LogState{{Log: log, Next: 2}, {Log: v.Positions()[1].Log, Next: 1}, {Log: events.Log{Stream: "x"}}}
	if got := events.VectorOf(states); got.Compare(v) != events.Equal || len(got) != 2 {
		t.Errorf("states stand at %v, want %v", got, v)
	}
	if err := v.Validate(); err != nil {
		t.Error(err)
	}
	if err := (events.Vector{log: -1}).Validate(); events.KindOf(err) != events.KindInvalid {
		t.Errorf("negative offset: %v", err)
	}
	if err := (events.Vector{{}: 1}).Validate(); events.KindOf(err) != events.KindInvalid {
		t.Errorf("no log: %v", err)
	}
}

func TestContextNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genContext().Draw(t, "context")
		naive := map[events.Origin]int64{}
		for _, s := range c {
			naive[s.Origin] = s.Next
		}
		for _, o := range []events.Origin{genOrigin().Draw(t, "other"), events.FirstOrigin("a")} {
			if c.Next(o) != naive[o] {
				t.Fatalf("%s: next of %s is %d, want %d", c, o, c.Next(o), naive[o])
			}
		}
		for o, next := range naive {
			if c.Next(o) != next {
				t.Fatalf("%s: next of %s is %d, want %d", c, o, c.Next(o), next)
			}
		}
	})
}

// The join has seen what either has, and no more.
func TestContextJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genContext().Draw(t, "a"), genContext().Draw(t, "b")
		if rapid.Bool().Draw(t, "origins in common") && len(a) > 0 {
			b = append(slices.Clone(a[:1]), b...)
			b[0].Next = max(1, genOffset().Draw(t, "next"))
			slices.SortFunc(b, func(s, u events.Seen) int { return s.Origin.Compare(u.Origin) })
			b = slices.CompactFunc(b, func(s, u events.Seen) bool { return s.Origin == u.Origin })
		}
		wasA, wasB := a.String(), b.String()
		joined := a.Join(b)
		if err := joined.Validate(); err != nil {
			t.Fatalf("%s and %s: %v", a, b, err)
		}
		if other := b.Join(a); other.String() != joined.String() {
			t.Fatalf("%s one way, %s the other", joined, other)
		}
		for _, c := range []events.Context{a, b, joined} {
			for _, s := range c {
				if joined.Next(s.Origin) != max(a.Next(s.Origin), b.Next(s.Origin)) {
					t.Fatalf("%s and %s have seen %s", a, b, joined)
				}
			}
		}
		if a.String() != wasA || b.String() != wasB {
			t.Fatal("the arguments have changed")
		}
	})
}

func TestVectorHasALimit(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a vector of a million logs")
	}
	var b strings.Builder
	for p := range events.MaxPartition {
		fmt.Fprintf(&b, "a/s/%d@1,", p)
	}
	most := strings.TrimSuffix(b.String(), ",")
	v, err := events.ParseVector(most)
	if err != nil || len(v) != events.MaxVectorLogs {
		t.Fatalf("%d logs, %v", len(v), err)
	}
	if _, err := events.ParseVector(most + ",b/s/0@1"); err == nil || err.Error() != "vector: more than 1048576 logs" {
		t.Errorf("one more: %v", err)
	}
}

func mustVector(t testing.TB, text string) events.Vector {
	t.Helper()
	v, err := events.ParseVector(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
