package history_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/lab/history"
)

// stateAt is what every path held at a point, as the past is read page by page.
func stateAt(t *testing.T, b pipeline.Backups, at api.PastTarget) (blobs map[string]string, point *api.ScanAtResult) {
	t.Helper()
	blobs = map[string]string{}
	p := api.ScanAtParams{Stream: history.Stream, PastTarget: at, Limit: api.MaxScanEntries}
	for {
		page, err := b.ScanAt(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			blobs[string(e.Key)] = blob(t, e.Value)
			p.After = e.Key
		}
		if !page.More {
			return blobs, page
		}
	}
}

func blob(t *testing.T, value []byte) string {
	t.Helper()
	var v struct{ Blob string }
	if err := json.Unmarshal(value, &v); err != nil {
		t.Fatal(err)
	}
	return v.Blob
}

// naiveAt is what every path holds below a vector, by looking at every record: the last
// one by its place in the history, which is its clock.
func naiveAt(t *testing.T, l logs, v events.Vector) map[string]string {
	newest, values := map[string]int{}, map[string]string{}
	for log, next := range v {
		for _, r := range l.records[log][:next] {
			key := string(r.Key)
			if seq, seen := newest[key]; seen && seq > l.seq[r] {
				continue
			}
			if newest[key] = l.seq[r]; r.Value == nil {
				delete(values, key)
			} else {
				values[key] = blob(t, r.Value)
			}
		}
	}
	return values
}

// The real history, read at points in time without restoring it: at each at which the
// truth is known it is the truth, and at any vector what a plain fold of the records gives; in
// three regions, which have backed up and archived it in different pieces.
func TestThePastIsTheTruth(t *testing.T) {
	l := readLogs(t)
	rng := rand.New(rand.NewPCG(7, 7))
	for r, pieces := range map[events.Region]struct{ segment, full int }{
		"us-east-1": {700, 4_900}, "eu-central-1": {500, 3_000}, "us-west-1": {1_477, history.Events + 1},
	} {
		t.Run(string(r), func(t *testing.T) {
			a := newArchivist(t, r, l)
			defer a.close()
			for n := pieces.segment; n < history.Events+pieces.segment; n += pieces.segment {
				a.upTo(min(n, history.Events))
				if n%pieces.full == 0 {
					a.backup(n)
				}
			}
			b := pipeline.Backups{Config: a.config(), Bucket: a.bucket}
			for _, n := range history.Checkpoints() {
				want, err := history.State(n)
				if err != nil {
					t.Fatal(err)
				}
				at := after(n)
				got, point := stateAt(t, b, api.PastTarget{Time: &at})
				if !maps.Equal(got, want) {
					t.Errorf("after %d events there are %d paths, not the %d of the truth", n, len(got), len(want))
				}
				t.Logf("after %d events: backup %q, %d segments, %d records looked at, %d requests, %d bytes", n, point.Backup, point.Segments, point.Records, point.Requests, point.Bytes)
			}
			ends := events.Vector{}
			for log, records := range l.records {
				ends[log] = int64(len(records))
			}
			for range 5 {
				v := events.Vector{}
				for _, p := range ends.Positions() {
					v[p.Log] = 1 + rng.Int64N(p.Offset)
				}
				anyVector(t, b, l, v, rng)
			}
		})
	}
}

// anyVector compares a vector with a plain fold: all paths, and some of them by
// themselves.
func anyVector(t *testing.T, b pipeline.Backups, l logs, v events.Vector, rng *rand.Rand) {
	t.Helper()
	want := naiveAt(t, l, v)
	if got, _ := stateAt(t, b, api.PastTarget{Vector: v}); !maps.Equal(got, want) {
		t.Fatalf("at %s there are %d paths, not the %d of a plain fold", v, len(got), len(want))
	}
	paths := slices.Sorted(maps.Keys(want))
	for range 3 {
		path := paths[rng.IntN(len(paths))]
		e, err := b.GetAt(t.Context(), api.GetAtParams{Stream: history.Stream, Key: []byte(path), PastTarget: api.PastTarget{Vector: v}})
		if err != nil || blob(t, e.Value) != want[path] {
			t.Fatalf("%s at %s: %v, want %s", path, v, err, want[path])
		}
	}
	none := fmt.Sprint("no such path ", rng.Int())
	if _, err := b.GetAt(t.Context(), api.GetAtParams{Stream: history.Stream, Key: []byte(none), PastTarget: api.PastTarget{Vector: v}}); events.KindOf(err) != events.KindNotFound {
		t.Fatalf("%s: %v", none, err)
	}
}

// config is that of the region.
func (a *archivist) config() *config.Config {
	cfg := config.Default()
	cfg.Region, cfg.Partitions, cfg.DataDir, cfg.Limits.MinFreeBytes = a.region, partitions, "/data", 0
	cfg.Streams = map[events.Stream]config.Stream{history.Stream: {Topic: "config", Merge: "lww"}}
	return &cfg
}

func (a *archivist) close() {
	for _, s := range a.shards {
		if err := s.Close(); err != nil {
			a.t.Error(err)
		}
	}
}
