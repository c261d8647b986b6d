package timeline_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	region = events.Region("us-east-1")
	shards = 2
)

var epoch = time.Date(2020, 11, 26, 12, 0, 0, 0, time.UTC)

// after is a time so many seconds after the beginning of the world.
func after(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

// record is a record and what a plain reader of the archive knows of it.
type record struct {
	*kgo.Record
	chain   events.Digest // after it
	came    time.Time     // zero: it is not archived
	segment int64
}

// world is a region's logs and what its bucket has of them.
type world struct {
	t        rapid.TB
	bucket   *objstore.Memory
	logs     map[events.Log][]record
	builders map[int32]*segment.Builder
	backups  []*format.Manifest
	newest   map[int32]time.Time // when the newest segment was closed
}

func newWorld(t rapid.TB) *world {
	w := &world{t: t, bucket: objstore.NewMemory("bucket"), logs: map[events.Log][]record{}, builders: map[int32]*segment.Builder{}, newest: map[int32]time.Time{}}
	for p := range int32(shards) {
		w.builders[p] = segment.NewBuilder(segment.Config{Region: region, Shard: p, Software: "test", Sealer: seal.None(), Chain: chain}, nil)
	}
	return w
}

// chain is any function of a record and what was before.
func chain(before events.Digest, r *kgo.Record) (d events.Digest) {
	h := fnv.New128a()
	fmt.Fprint(h, before, r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value)
	h.Sum(d[:0])
	return d
}

// logs of three regions, of two streams each.
func logsOf(shard int32) (logs []events.Log) {
	for _, r := range []events.Region{"eu-central-1", region, "us-west-1"} {
		for _, s := range []events.Stream{"config", "session"} {
			logs = append(logs, events.Log{Origin: events.FirstOrigin(r), Stream: s, Partition: shard})
		}
	}
	return logs
}

// write appends a record to a log, leaving out some offsets.
func (w *world) write(l events.Log, at time.Time, skipped int64) {
	next, before := skipped, events.Digest{}
	if n := len(w.logs[l]); n > 0 {
		last := w.logs[l][n-1]
		next, before = last.Offset+1+skipped, last.chain
	}
	r := &kgo.Record{Offset: next, Timestamp: at, Key: []byte(fmt.Sprint("key-", next%7)), Value: []byte(fmt.Sprint("value-", next))}
	w.logs[l] = append(w.logs[l], record{Record: r, chain: chain(before, r)})
}

// state is what is to be known of a log.
func (w *world) state(l events.Log) (st events.LogState) {
	st.Log = l
	if n := len(w.logs[l]); n > 0 {
		last := w.logs[l][n-1]
		st.Next, st.Chain, st.Events = last.Offset+1, last.chain, int64(n)
	}
	return st
}

// backup publishes a backup of all logs as they are.
func (w *world) backup(at time.Time) *format.Manifest {
	w.t.Helper()
	m := &format.Manifest{
		Format: format.Version, ID: format.NewID(at, [4]byte{byte(len(w.backups))}), Kind: format.Full, Region: region, Created: at.UTC(), Software: "test",
		Merge: map[events.Stream]string{"session": "lww", "config": "lww"},
	}
	for p := range int32(shards) {
		s := format.Shard{Partition: p, Lineage: "x", States: []events.LogState{}, Tables: []format.Table{}}
		for _, l := range logsOf(p) {
			if st := w.state(l); st.Next > 0 {
				s.States = append(s.States, st)
			}
		}
		m.Shards = append(m.Shards, s)
	}
	if err := catalog.Publish(context.Background(), w.bucket, m); err != nil {
		w.t.Fatal(err)
	}
	w.backups = append(w.backups, m)
	return m
}

// archive closes a segment of a shard with all that is new in its logs, up to most
// records of each. Logs that the archive does not have yet begin at offset 0.
func (w *world) archive(shard int32, at time.Time, most int) {
	w.t.Helper()
	b := w.builders[shard]
	for _, l := range logsOf(shard) {
		next, known := b.Next(l)
		if !known {
			if len(w.logs[l]) == 0 {
				continue
			}
			if err := b.Begin(format.LogEnd{Log: l}); err != nil {
				w.t.Fatal(err)
			}
		}
		added := 0
		for i, r := range w.logs[l] {
			if r.Offset < next || added == most {
				continue
			}
			if err := b.Add(l, r.Record); err != nil {
				w.t.Fatal(err)
			}
			came := r.Timestamp
			if at.Before(came) {
				came = at
			}
			w.logs[l][i].came, w.logs[l][i].segment = came, b.Number()
			added++
		}
	}
	if b.Empty() {
		return
	}
	w.append(shard, at)
}

func (w *world) append(shard int32, at time.Time) {
	w.t.Helper()
	s, object, err := w.builders[shard].Close(at, 1, func(events.Log, int64) (events.Mark, bool) { return events.Mark{}, false })
	if err == nil {
		err = segment.Append(context.Background(), w.bucket, s, object)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.newest[shard] = at
}

// naive is where a time cuts a log, by looking at every record that is archived, and, if
// none of them came later, at what a backup from before has.
func (w *world) naive(l events.Log, at time.Time) (next int64) {
	for _, r := range w.logs[l] {
		if r.came.IsZero() {
			break
		}
		if r.came.After(at) {
			return r.Offset
		}
		next = r.Offset + 1
	}
	for _, m := range w.backups {
		if !m.Created.After(at) {
			next = max(next, events.VectorOf(m.States())[l])
		}
	}
	return next
}

// allLogs are those of all shards.
func allLogs() (logs []events.Log) {
	for p := range int32(shards) {
		logs = append(logs, logsOf(p)...)
	}
	return logs
}

func wantKind(t rapid.TB, err error, kind events.Kind) {
	t.Helper()
	if events.KindOf(err) != kind {
		t.Fatalf("error %v is of kind %q, want %q", err, events.KindOf(err), kind)
	}
}
