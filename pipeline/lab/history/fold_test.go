package history_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab/history"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

const partitions = 4

// logs are the history as logs, and after how many events of it each record came.
type logs struct {
	records map[events.Log][]*kgo.Record
	seq     map[*kgo.Record]int
}

// readLogs writes the history into logs as writers do who know all that was written
// before, wherever that was.
func readLogs(t *testing.T) logs {
	t.Helper()
	l := logs{records: map[events.Log][]*kgo.Record{}, seq: map[*kgo.Record]int{}}
	var origins []events.Origin
	for _, r := range []events.Region{"eu-central-1", "us-east-1", "us-west-1"} {
		origins = append(origins, events.FirstOrigin(r))
	}
	err := history.Lines(func(line []byte) error {
		var in struct {
			Seq      int
			Path, Op string
			Region   events.Region
		}
		if err := json.Unmarshal(line, &in); err != nil {
			return err
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(in.Path))
		at := events.Log{Origin: events.FirstOrigin(in.Region), Stream: history.Stream, Partition: int32(h.Sum32() % partitions)}
		e := events.Event{
			Key: in.Path, Op: events.OpPut, Value: append([]byte{}, line...), Type: events.TypePut, ContentType: "application/json",
			ID: fmt.Sprint(in.Seq), Source: "/history", Clock: events.HLCFromMillis(int64(in.Seq) + 1),
		}
		if in.Op == "delete" {
			e.Op, e.Type, e.Value = events.OpDelete, events.TypeDelete, nil
		}
		for _, o := range origins {
			seen := events.Log{Origin: o, Stream: at.Stream, Partition: at.Partition}
			if n := len(l.records[seen]); n > 0 {
				e.Deps = append(e.Deps, events.Seen{Origin: o, Next: int64(n)})
			}
		}
		r, err := events.Encode(e)
		if err != nil {
			return err
		}
		r.Timestamp, r.Offset = e.Clock.Time(), int64(len(l.records[at]))
		l.records[at] = append(l.records[at], r)
		l.seq[r] = in.Seq
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The history folds to the truth at every point at which that is known, by every rule
// that keeps values, in whatever order a region reads the logs of the others.
func TestHistoryFoldsToTheTruth(t *testing.T) {
	l := readLogs(t)
	for _, name := range []string{"lww", "multivalue", "fieldmap"} {
		t.Run(name, func(t *testing.T) {
			rule, err := projections.LookupRule(name)
			if err != nil {
				t.Fatal(err)
			}
			var digests [3][]events.Digest
			for region := range digests {
				digests[region] = foldHistory(t, l, rule, rand.New(rand.NewPCG(uint64(region), 1)))
			}
			for i, n := range history.Checkpoints() {
				if digests[0][i] != digests[1][i] || digests[0][i] != digests[2][i] {
					t.Errorf("after %d events regions have the digests %s, %s, %s", n, digests[0][i], digests[1][i], digests[2][i])
				}
			}
		})
	}
}

// foldHistory is a region that reads the logs in some order and stops at each
// checkpoint to compare.
func foldHistory(t *testing.T, l logs, rule merge.Rule, rng *rand.Rand) (digests []events.Digest) {
	t.Helper()
	var shards []*projections.Shard
	for p := range int32(partitions) {
		s, err := projections.Open(projections.Config{
			Partition: p, Dir: "state", FS: vfs.NewMem(), Rules: map[events.Stream]merge.Rule{history.Stream: rule},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		shards = append(shards, s)
	}
	next := map[events.Log]int{}
	for _, n := range history.Checkpoints() {
		for done := false; !done; {
			done = true
			for log, records := range l.records { // in any order
				from, to := next[log], next[log]
				for most := 1 + rng.IntN(400); to < len(records) && l.seq[records[to]] < n && to-from < most; {
					to++
				}
				if to == from {
					continue
				}
				done = false
				if _, err := shards[log.Partition].Apply([]projections.Run{{Log: log, Records: records[from:to]}}); err != nil {
					t.Fatal(err)
				}
				next[log] = to
			}
		}
		wantState(t, shards, n)
		total := events.Digest{}
		for _, s := range shards {
			for i, b := range s.Digest() {
				total[i] ^= b
			}
		}
		digests = append(digests, total)
	}
	return digests
}

func wantState(t *testing.T, shards []*projections.Shard, n int) {
	t.Helper()
	want, err := history.State(n)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for e, err := range projections.Scan(shards, history.Stream, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		var value struct{ Blob string }
		if err := json.Unmarshal(e.Value, &value); err != nil || len(e.Siblings) > 0 || value.Blob != want[e.Key] {
			t.Fatalf("after %d events %s is %q (%d siblings, %v), want %q", n, e.Key, value.Blob, len(e.Siblings), err, want[e.Key])
		}
		seen++
	}
	if seen != len(want) {
		t.Fatalf("after %d events there are %d keys, want %d", n, seen, len(want))
	}
}
