package pipeline_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// past is what a region has been through: the logs of three regions that it has folded,
// and the backups and segments that it has left in a bucket.
type past struct {
	t        rapid.TB
	cfg      *config.Config
	bucket   *objstore.Memory
	logs     map[events.Log][]*kgo.Record
	shards   []*projections.Shard
	builders []*segment.Builder
	sealer   *seal.Sealer
}

var (
	pastBegan   = time.Date(2020, 11, 26, 12, 0, 0, 0, time.UTC)
	pastStreams = []events.Stream{"config", "session"}
	pastRegions = []events.Region{eu, us, "us-west-1"}
)

const pastShards = 2

func second(n int) time.Time { return pastBegan.Add(time.Duration(n) * time.Second) }

func newPast(t rapid.TB) *past {
	t.Helper()
	c := config.Default()
	c.Region, c.DataDir, c.Partitions = us, dataDir, pastShards
	c.Streams = map[events.Stream]config.Stream{}
	rules := map[events.Stream]merge.Rule{}
	for _, s := range pastStreams {
		c.Streams[s], rules[s] = config.Stream{Topic: string(s), Merge: "lww"}, lww.Rule{}
	}
	c.Limits.MinFreeBytes, c.Backup = 0, sealedBackups()
	sealer, err := c.Backup.Sealer()
	if err != nil {
		t.Fatal(err)
	}
	p := &past{t: t, cfg: &c, bucket: objstore.NewMemory("bucket"), logs: map[events.Log][]*kgo.Record{}, sealer: sealer}
	for n := range int32(pastShards) {
		shard, err := projections.Open(projections.Config{Partition: n, Dir: "own", FS: vfs.NewMem(), Rules: rules, Lineage: projections.Lineage{ID: "own"}, Epoch: 3, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		p.shards = append(p.shards, shard)
		p.builders = append(p.builders, segment.NewBuilder(segment.Config{Region: us, Shard: n, Software: "test", Sealer: sealer, Chain: digest.NewChain()}, nil))
	}
	return p
}

func (p *past) close() {
	for _, s := range p.shards {
		if err := s.Close(); err != nil {
			p.t.Error(err)
		}
	}
}

// pastLogs are those of a shard.
func pastLogs(shard int32) (logs []events.Log) {
	for _, r := range pastRegions {
		for _, s := range pastStreams {
			logs = append(logs, events.Log{Origin: events.FirstOrigin(r), Stream: s, Partition: shard})
		}
	}
	return logs
}

func allPastLogs() (logs []events.Log) {
	for n := range int32(pastShards) {
		logs = append(logs, pastLogs(n)...)
	}
	return logs
}

// write appends a record to a log; skipped offsets have none.
func (p *past) write(l events.Log, r *kgo.Record, skipped int64) {
	r.Offset = skipped
	if n := len(p.logs[l]); n > 0 {
		r.Offset = p.logs[l][n-1].Offset + 1 + skipped
	}
	p.logs[l] = append(p.logs[l], r)
}

// put writes a value.
func (p *past) put(l events.Log, key, value string, at time.Time) {
	p.write(l, &kgo.Record{Key: []byte(key), Value: []byte(value), Timestamp: at}, 0)
}

// fold has the region fold all that is new in a shard's logs.
func (p *past) fold(shard int32) {
	p.t.Helper()
	var runs []projections.Run
	for _, l := range pastLogs(shard) {
		runs = append(runs, projections.Run{Log: l, Records: p.logs[l], Sparse: true})
	}
	if _, err := p.shards[shard].Apply(runs); err != nil {
		p.t.Fatal(err)
	}
}

// backup makes a full backup of what is folded.
func (p *past) backup(at time.Time) *format.Manifest {
	p.t.Helper()
	var cuts []snapshotter.Cut
	for _, s := range p.shards {
		cut, err := s.Freeze()
		if err != nil {
			p.t.Fatal(err)
		}
		defer cut.Close()
		cuts = append(cuts, pastCut{cut})
	}
	c := snapshotter.Config{Region: us, Software: "test", Merge: map[events.Stream]string{}, Sealer: p.sealer}
	for _, s := range pastStreams {
		c.Merge[s] = "lww"
	}
	id := format.NewID(at, [4]byte{1})
	shards, err := snapshotter.Shards(context.Background(), p.bucket, id, cuts, c)
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := snapshotter.Publish(context.Background(), p.bucket, id, at.UTC(), shards, c)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

type pastCut struct{ *projections.Cut }

func (c pastCut) LineageID() string { return c.Lineage().ID }

// archive closes a segment of a shard with what is new in its logs, at most so many
// records of each. It says what the region has made of them, where it is known.
func (p *past) archive(shard int32, at time.Time, most int) {
	p.t.Helper()
	b := p.builders[shard]
	for _, l := range pastLogs(shard) {
		next, known := b.Next(l)
		if !known {
			if err := b.Begin(format.LogEnd{Log: l}); err != nil {
				p.t.Fatal(err)
			}
		}
		added := 0
		for _, r := range p.logs[l] {
			if r.Offset < next || added == most {
				continue
			}
			if err := b.Add(l, r); err != nil {
				p.t.Fatal(err)
			}
			added++
		}
	}
	if b.Empty() {
		return
	}
	p.closeWith(shard, at, func(l events.Log, next int64) (events.Mark, bool) {
		m, err := p.shards[shard].At(l, next)
		return m, err == nil
	})
}

// closeWith closes a segment.
func (p *past) closeWith(shard int32, at time.Time, marks func(events.Log, int64) (events.Mark, bool)) {
	p.t.Helper()
	s, object, err := p.builders[shard].Close(at, 1, marks)
	if err == nil {
		err = segment.Append(context.Background(), p.bucket, s, object)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *past) job(fs vfs.FS, target timeline.Target) pipeline.RestoreJob {
	return pipeline.RestoreJob{
		Config: p.cfg, Bucket: p.bucket, FS: fs, Log: slog.New(slog.DiscardHandler), Request: timeline.Request{Target: target}, Dir: "/restored/state",
	}
}

// naive is the value of every key of a stream at a vector, by looking at every record:
// the last one of each log, and of those of all logs the one with the highest clock.
func (p *past) naive(stream events.Stream, v events.Vector) map[string]string {
	type slice struct {
		clock events.HLC
		value []byte
	}
	joined, origins := map[string]slice{}, map[string]events.Origin{}
	for n := range int32(pastShards) {
		for _, l := range pastLogs(n) { // origins ascend
			if l.Stream != stream {
				continue
			}
			own := map[string]slice{}
			for _, r := range p.logs[l] {
				if r.Offset >= v[l] || len(r.Key) == 0 {
					continue
				}
				clock := events.HLCFromMillis(r.Timestamp.UnixMilli())
				if before, is := own[string(r.Key)]; is {
					clock = max(clock, before.clock+1)
				}
				own[string(r.Key)] = slice{clock, r.Value}
			}
			for key, s := range own {
				other, is := joined[key]
				if !is || s.clock > other.clock || s.clock == other.clock && l.Origin.Compare(origins[key]) > 0 {
					joined[key], origins[key] = s, l.Origin
				}
			}
		}
	}
	values := map[string]string{}
	for key, s := range joined {
		if s.value != nil {
			values[key] = string(s.value)
		}
	}
	return values
}

// is makes sure that a state directory holds exactly what was below a vector.
func (p *past) is(fs vfs.FS, dir string, v events.Vector) error {
	rules := map[events.Stream]merge.Rule{}
	for _, s := range pastStreams {
		rules[s] = lww.Rule{}
	}
	var shards []*projections.Shard
	for n := range int32(pastShards) {
		s, err := projections.Open(projections.Config{Partition: n, Dir: fmt.Sprintf("%s/shard-%04d", dir, n), FS: fs, Rules: rules})
		if err != nil {
			return err
		}
		defer s.Close()
		shards = append(shards, s)
		for _, st := range s.Logs() {
			if want := p.records(st.Log, v[st.Log]); st.Events+st.Parked != int64(len(want)) || st.Chain != chainOver(want) {
				return fmt.Errorf("%s: %+v, want %d records below offset %d", st.Log, st, len(want), v[st.Log])
			}
		}
		if _, err := s.Verify(); err != nil {
			return err
		}
	}
	for l := range v {
		if len(p.records(l, v[l])) > 0 && shards[l.Partition].Next(l) == 0 {
			return fmt.Errorf("there is nothing of %s", l)
		}
	}
	for _, stream := range pastStreams {
		got := map[string]string{}
		for e, err := range projections.Scan(shards, stream, "", "") {
			if err != nil {
				return err
			}
			got[e.Key] = string(e.Value)
		}
		if want := p.naive(stream, v); !maps.Equal(got, want) {
			return fmt.Errorf("stream %s: %v, want %v at %s", stream, got, want, v)
		}
	}
	return nil
}

// records are those of a log below an offset.
func (p *past) records(l events.Log, next int64) (below []*kgo.Record) {
	for _, r := range p.logs[l] {
		if r.Offset < next {
			below = append(below, r)
		}
	}
	return below
}

func chainOver(records []*kgo.Record) (chain events.Digest) {
	chainOf := digest.NewChain()
	for _, r := range records {
		chain = chainOf(chain, r)
	}
	return chain
}

// came is where a time cuts a log, by looking at every record: when it was archived is
// known only of those that are.
func (p *past) came(l events.Log, at time.Time) (next int64, err error) {
	ctx := context.Background()
	numbers, err := segment.Numbers(ctx, p.bucket, us, l.Partition)
	if err != nil {
		return 0, err
	}
	opener, err := p.cfg.Backup.Opener()
	if err != nil {
		return 0, err
	}
	for _, n := range numbers {
		s, err := segment.Open(ctx, p.bucket, opener, us, l.Partition, n)
		if err != nil {
			return 0, err
		}
		for r, err := range s.Records(l, 0) {
			switch {
			case err != nil:
				return 0, err
			case r.Timestamp.After(at) && s.Created.After(at):
				return r.Offset, nil
			}
			next = r.Offset + 1
		}
	}
	return next, nil
}
