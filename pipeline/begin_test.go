package pipeline

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

func testLog(origin events.Region) events.Log {
	return events.Log{Origin: events.FirstOrigin(origin), Stream: "session", Partition: 1}
}

// A directory is given up for a backup only if the backup is usable, and either much
// further, or the only one whose logs still have what follows.
func TestPreferBackup(t *testing.T) {
	a, b := testLog("us-east-1"), testLog("eu-central-1")
	at := func(n, m int64) events.Vector { return events.Vector{a: n, b: m} }
	for name, c := range map[string]struct {
		own            held
		backup, starts events.Vector
		want           bool
	}{
		"no directory":                      {held{}, at(5, 5), nil, true},
		"no directory, an empty backup":     {held{}, nil, nil, false},
		"no directory, logs have gone on":   {held{}, at(5, 5), at(5, 0), true},
		"no directory, backup too old":      {held{}, at(5, 5), at(6, 0), false},
		"directory a little behind":         {held{there: true, vector: at(5, 5)}, at(50_000, 50_005), nil, false},
		"directory far behind":              {held{there: true, vector: at(5, 5)}, at(50_006, 50_005), nil, true},
		"far behind, backup too old":        {held{there: true, vector: at(5, 5)}, at(1e6, 1e6), at(0, 1e6+1), false},
		"directory ahead":                   {held{there: true, vector: at(1e6, 1e6)}, at(5, 5), nil, false},
		"far behind in one, ahead in other": {held{there: true, vector: at(0, 1e9)}, at(100_001, 0), nil, true},
		"its log has expired":               {held{there: true, vector: at(5, 5)}, at(6, 6), at(6, 0), true},
		"its log has expired, no better":    {held{there: true, vector: at(5, 6)}, at(5, 6), at(6, 0), false},
	} {
		if got := preferBackup(c.own, c.backup, c.starts); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Whatever is preferred, its logs still have what follows, if that holds of any of
// the two.
func TestPreferBackupNeverLosesRecords(t *testing.T) {
	logs := []events.Log{testLog("us-east-1"), testLog("us-west-1"), testLog("eu-central-1")}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) events.Vector {
			v := events.Vector{}
			for _, l := range logs {
				if n := rapid.SampledFrom([]int64{0, 1, 2, 99_999, 100_001, 300_000}).Draw(t, name); n > 0 {
					v[l] = n
				}
			}
			return v
		}
		own, backup, starts := draw("own"), draw("backup"), draw("start")
		ownGone := lacks(own, starts)
		backupGone := lacks(backup, starts)
		got := preferBackup(held{there: len(own) > 0, vector: own}, backup, starts)
		if got && backupGone {
			t.Fatal("a backup that lacks records is preferred")
		}
		if !got && ownGone && !backupGone {
			t.Fatal("a directory that lacks records is preferred")
		}
	})
}

// Pages of several nodes, however they are cut, give every key once, in order, with
// all of its slices, and nothing beyond what is known of all nodes.
func TestJoinPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type row struct {
			key  string
			node int
		}
		keys := rapid.SliceOfDistinct(rapid.StringMatching(`[a-c]{0,3}`), func(s string) string { return s }).Draw(t, "keys")
		nodes := rapid.IntRange(1, 4).Draw(t, "nodes")
		have := map[row]bool{}
		for _, key := range keys {
			for n := range nodes {
				if rapid.Bool().Draw(t, "has") {
					have[row{key, n}] = true
				}
			}
		}
		limit := rapid.IntRange(1, 3).Draw(t, "limit")
		got, after, started := map[row]bool{}, "", false
		for range 1_000 {
			var pages []*api.SlicesPage
			for n := range nodes {
				page := &api.SlicesPage{}
				for _, key := range slices.Sorted(slices.Values(keys)) {
					if !have[row{key, n}] || started && key <= after {
						continue
					}
					if len(page.Entities) == limit {
						page.More = true
						break
					}
					page.Entities = append(page.Entities, api.Entity{Key: api.Bytes(key), Slices: []api.Slice{{Data: []byte{byte(n)}}}})
				}
				pages = append(pages, page)
			}
			entities, last, more := joinPages("session", pages)
			for i, e := range entities {
				if i > 0 && entities[i-1].Key >= e.Key || started && e.Key <= after {
					t.Fatalf("key %q is not in order", e.Key)
				}
				for _, s := range e.Slices {
					r := row{e.Key, int(s.Data[0])}
					if got[r] || !have[r] {
						t.Fatalf("slice of key %q of node %d: twice, or out of nowhere", r.key, r.node)
					}
					got[r] = true
				}
				for n := range nodes {
					if r := (row{e.Key, n}); have[r] != got[r] {
						t.Fatalf("key %q lacks the slice of node %d", e.Key, n)
					}
				}
			}
			if !more {
				break
			}
			after, started = last, true
		}
		if len(got) != len(have) {
			t.Fatalf("%d slices of %d", len(got), len(have))
		}
	})
}
