package fieldmap_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// counting is three regions that count one thing, and reset it.
type counting struct {
	*rapid.T
	logs [3][]events.Event
	seen [3][3]int // what each region has folded of each log
}

var countingOrigins = [3]events.Origin{events.FirstOrigin("ap"), events.FirstOrigin("eu"), events.FirstOrigin("us")}

func (c *counting) log(r int) events.Log { return events.Log{Origin: countingOrigins[r], Stream: "s"} }

// slices are those of prefixes of the logs.
func (c *counting) slices(next [3]int) (all []merge.Slice) {
	for r, n := range next {
		var slice []byte
		for i := range n {
			var err error
			if slice, err = rule.Fold(nil, slice, &c.logs[r][i], c.log(r).At(int64(i))); err != nil {
				c.Fatal(err)
			}
		}
		if slice != nil {
			all = append(all, merge.Slice{Log: c.log(r), Data: slice})
		}
	}
	return all
}

// count is what prefixes of the logs come to.
func (c *counting) count(next [3]int) int64 {
	var value struct{ N int64 }
	view, err := rule.Join(c.slices(next))
	if err != nil {
		c.Fatal(err)
	}
	if view.Exists {
		if err := json.Unmarshal(view.Value, &value); err != nil {
			c.Fatal(err)
		}
	}
	return value.N
}

func (c *counting) ends() (next [3]int) {
	for r := range next {
		next[r] = len(c.logs[r])
	}
	return next
}

func (c *counting) write(r int, e events.Event) {
	c.logs[r] = append(c.logs[r], e)
	c.seen[r][r] = len(c.logs[r])
}

// context is what a region knows of the others.
func (c *counting) context(r int) (deps events.Context) {
	for o, n := range c.seen[r] {
		if o != r && n > 0 {
			deps = append(deps, events.Seen{Origin: countingOrigins[o], Next: int64(n)})
		}
	}
	return deps
}

// increment counts as Evenkeel's API does. Nothing but the amount may come on top of what
// the region sees, and what has to stand before it may change nothing anywhere.
func (c *counting) increment(r int, by int64) {
	e := events.Event{Op: events.OpPatch, Value: fmt.Appendf(nil, `{"increment":{"n":%d}}`, by), Deps: c.context(r)}
	before, all := c.count(c.seen[r]), c.count(c.ends())
	below, err := rule.Revives(&e, c.log(r), func() ([]merge.Slice, error) { return c.slices(c.seen[r]), nil })
	if err != nil {
		c.Fatal(err)
	}
	if below > 0 {
		c.write(r, events.Event{Op: events.OpDelete, Deps: events.Context{{Origin: countingOrigins[r], Next: below}}})
		if now, allNow := c.count(c.seen[r]), c.count(c.ends()); now != before || allNow != all {
			c.Fatalf("the reset before it changes %d to %d, and %d to %d", before, now, all, allNow)
		}
	}
	c.write(r, e)
	if now := c.count(c.seen[r]); now != before+by {
		c.Fatalf("region %d sees %d after it has counted %d to %d", r, now, by, before)
	}
}

// learn has a region fold more of the other logs, all or some.
func (c *counting) learn(r int, all bool) {
	for o := range c.logs {
		if c.seen[r][o] = len(c.logs[o]); !all && o != r {
			c.seen[r][o] = rapid.IntRange(c.seen[r][o], len(c.logs[o])).Draw(c.T, "learns")
		}
	}
}

// Three regions count and reset a counter. Who knows of a reset brings nothing back that
// it took away; an increment that no reset had seen is never lost; and where everybody knows
// everything the counter is what it is in one place.
func TestCountersAndResets(t *testing.T) {
	t.Run("knowing all", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			c, want := counting{T: t}, int64(0)
			for range rapid.IntRange(1, 20).Draw(t, "steps") {
				r := rapid.IntRange(0, 2).Draw(t, "region")
				c.learn(r, true)
				if rapid.IntRange(0, 3).Draw(t, "resets") == 0 {
					c.write(r, events.Event{Op: events.OpDelete, Deps: c.context(r)})
					want = 0
				} else {
					by := rapid.Int64Range(-5, 9).Draw(t, "by")
					c.increment(r, by)
					want += by
				}
				if got := c.count(c.ends()); got != want {
					t.Fatalf("it counts %d, want %d", got, want)
				}
			}
		})
	})
	t.Run("each a part", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			c, total := counting{T: t}, int64(0)
			type one struct {
				r, at int
				by    int64
			}
			var counted []one
			for range rapid.IntRange(1, 20).Draw(t, "steps") {
				r := rapid.IntRange(0, 2).Draw(t, "region")
				c.learn(r, false)
				if rapid.IntRange(0, 3).Draw(t, "resets") == 0 {
					c.write(r, events.Event{Op: events.OpDelete, Deps: c.context(r)})
					kept := counted[:0]
					for _, o := range counted {
						if o.at >= c.seen[r][o.r] {
							kept = append(kept, o)
						}
					}
					counted = kept
					continue
				}
				by := rapid.Int64Range(1, 9).Draw(t, "by")
				c.increment(r, by)
				counted = append(counted, one{r, len(c.logs[r]) - 1, by})
				total += by
			}
			least := int64(0)
			for _, o := range counted {
				least += o.by
			}
			if got := c.count(c.ends()); got < least || got > total {
				t.Fatalf("it counts %d; no reset had seen %d, and %d were counted in all", got, least, total)
			}
		})
	})
}
