package pipeline_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// archives has regions archive, before they start.
func archives(regions ...*region) {
	for _, r := range regions {
		r.cfg.Backup.Schedule.Segment = 4 * time.Second
	}
}

// archived waits until the bucket has a log up to an offset.
func (r *region) archived(l events.Log, next int64) {
	r.w.Helper()
	r.await(fmt.Sprintf("archived up to %s@%d", l, next), func() error {
		s, err := segment.Newest(r.w.Context(), r.bucket, r.cfg.Region, l.Partition)
		if err != nil || s == nil {
			return fmt.Errorf("newest segment %+v: %w", s, err)
		}
		if end, _ := s.End(l); end.Next < next {
			return fmt.Errorf("it ends at %d; problems: %q", end.Next, r.status().Problems)
		}
		return nil
	})
}

// archive reads all that a region's bucket has of a log, and how many of its segments
// say what the region has made of it.
func (r *region) archive(l events.Log) (records []*kgo.Record, marks int) {
	r.w.Helper()
	opener, err := seal.NewOpener("test", keys[1].identity) // the recovery key
	if err != nil {
		r.w.Fatal(err)
	}
	for s, err := range segment.Walk(r.w.Context(), r.bucket, opener, r.cfg.Region, l.Partition, 0) {
		if err != nil {
			r.w.Fatal(err)
		}
		part := s.Part(l)
		if part == nil {
			continue
		}
		if part.Gap != nil {
			r.w.Errorf("%s: segment %d: gap %+v", r.cfg.Region, s.Number, part.Gap)
		}
		if part.Mark != nil {
			marks++
		}
		for record, err := range s.Records(l, 0) {
			if err != nil {
				r.w.Fatal(err)
			}
			records = append(records, record)
		}
	}
	return records, marks
}

// committed reads a log as its readers do.
func (r *region) committed(topic string, partition int32) (records []*kgo.Record) {
	r.w.Helper()
	client := r.dial(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	for next, end := int64(0), r.end(topic, partition); next < end; {
		fetches := client.PollFetches(r.w.Context())
		if err := fetches.Err(); err != nil {
			r.w.Fatalf("read %s of %s: %v", topic, r.cfg.Region, err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			next = record.Offset + 1
			if !record.Attrs.IsControl() {
				records = append(records, record)
			}
		})
	}
	return records
}

// Every region archives its own logs and its mirrors of the others', under the
// offsets of the logs: with transactions, deletes, and what is no event.
func TestArchive(t *testing.T) {
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		archives(w.regions...)
		for _, r := range w.regions {
			r.start()
		}
		for i := range 30 {
			for j, r := range []*region{a, b, c} {
				r.put(fmt.Sprintf("key-%d", i%7), fmt.Sprintf("value-%d-%d", j, i))
			}
			if i%10 == 0 {
				a.transact(kgo.TryCommit, bareRecord("tx", "committed"), bareRecord("tx2", "committed"))
				a.transact(kgo.TryAbort, bareRecord("tx", "aborted"))
				b.produce(&kgo.Record{Topic: "session", Key: []byte("bare"), Headers: []kgo.RecordHeader{{Key: "ce_specversion", Value: []byte("0")}}})
			}
			time.Sleep(700 * time.Millisecond)
			if i == 13 { // it misses what follows
				b.stop()
				a.put("missed", "by b")
				b.start()
			}
		}
		for p := range int32(partitions) {
			for _, origin := range []*region{a, b, c} {
				l := events.Log{Origin: origin.cfg.Origin(origin.cfg.Region), Stream: "session", Partition: p}
				want := origin.committed("session", p)
				if len(want) == 0 {
					continue
				}
				for _, r := range []*region{a, b, c} {
					r.archived(l, want[len(want)-1].Offset+1)
					got, marks := r.archive(l)
					if len(got) != len(want) {
						w.Fatalf("%s: archive of %s has %d records, the log %d", r.cfg.Region, l, len(got), len(want))
					}
					for i := range want {
						if err := same(want[i], got[i]); err != nil {
							w.Fatalf("%s: archive of %s, record %d: %v", r.cfg.Region, l, i, err)
						}
					}
					if marks < 3 {
						t.Errorf("%s: %d segments say what became of %s", r.cfg.Region, marks, l)
					}
				}
			}
		}
		for _, r := range []*region{a, b, c} {
			list, err := r.ListBackups(w.Context())
			if err != nil || len(list.Archive) != partitions || list.Archive[0].From != 1 || len(list.Archive[0].Ends) != 6 {
				t.Errorf("%s: archive %+v, %v", r.cfg.Region, list, err)
			}
			v, err := r.VerifyBackups(w.Context(), api.VerifyBackupsParams{All: true, Level: "decode"})
			if err != nil || v.Err() != nil || len(v.Archive) != partitions || len(v.Archive[0].Gaps) > 0 {
				t.Errorf("%s: %+v, %v", r.cfg.Region, v, err)
			}
			for _, p := range r.status().Problems {
				if strings.Contains(p, "archive") {
					t.Errorf("%s: %s", r.cfg.Region, p)
				}
			}
		}
	}, order[:]...)
}

func same(want, got *kgo.Record) error {
	equal := want.Offset == got.Offset && want.Timestamp.Equal(got.Timestamp) && bytes.Equal(want.Key, got.Key) && bytes.Equal(want.Value, got.Value) &&
		(want.Value == nil) == (got.Value == nil) && len(want.Headers) == len(got.Headers)
	for i := 0; equal && i < len(want.Headers); i++ {
		equal = want.Headers[i].Key == got.Headers[i].Key && bytes.Equal(want.Headers[i].Value, got.Headers[i].Value)
	}
	if !equal {
		return fmt.Errorf("offset %d, key %q, value %q; want offset %d, key %q, value %q", got.Offset, got.Key, got.Value, want.Offset, want.Key, want.Value)
	}
	return nil
}

// The archive does not wait for the fold: neither for a full disk nor for a log that
// is blocked.
func TestArchiveGoesOnWithoutTheFold(t *testing.T) {
	one(t, func(r *region) {
		archives(r)
		disk := &smallDisk{FS: r.disk}
		disk.free.Store(1 << 30)
		r.disk, r.cfg.Limits.MinFreeBytes = disk, 100<<20
		r.start()
		last := r.put("k", "before")
		r.has("k", "before")
		r.archived(last.Log, last.Offset+1)
		disk.free.Store(99 << 20)
		last = r.put("k", "while it is full")
		r.await("full", func() error {
			if err := r.Ready(r.w.Context()); err == nil || !strings.Contains(err.Error(), "nearly full") {
				return fmt.Errorf("ready: %w", err)
			}
			return nil
		})
		begun := time.Now()
		r.archived(last.Log, last.Offset+1)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		if s := r.status(); s.Vector()[last.Log] > last.Offset {
			t.Error("it was folded all the same")
		}
	})
}

// noRoom is a disk on which shards that are brought to a node find no room, if so.
type noRoom struct{ full atomic.Bool }

func (n *noRoom) String() string { return "no room" }

func (n *noRoom) MaybeError(op errorfs.Op) error {
	if n.full.Load() && op.Kind == errorfs.OpCreate && strings.Contains(op.Path, "moving") {
		return syscall.ENOSPC
	}
	return nil
}

// A shard that its node cannot open, however long, is archived by it all the same, and which
// shards nobody opens or archives can be told from the metrics.
func TestArchiveGoesOnWithoutTheShard(t *testing.T) {
	one(t, func(r *region) {
		archives(r)
		r.start()
		last := r.put("k", "v")
		r.has("k", "v")
		r.backup()
		r.stop()
		room := &noRoom{}
		room.full.Store(true)
		r.disk = errorfs.Wrap(vfs.NewCrashableMem(), room)
		if err := r.tryStart(); err != nil {
			t.Fatal(err)
		}
		r.troubled("is not open", "no space left")
		time.Sleep(time.Minute) // tries are as far apart as they get
		for i := range 20 {
			r.produce(&kgo.Record{Topic: "session", Partition: last.Partition, Key: []byte("k"), Value: []byte(fmt.Sprint(i))})
			time.Sleep(time.Second)
		}
		begun := time.Now()
		r.archived(last.Log, last.Offset+21)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		of := func(metric string) float64 {
			return gather(t, r.registry)[fmt.Sprintf(`%s{shard="%d"}`, metric, last.Partition)]
		}
		if here, open := of("evenkeel_archive_shard"), of("evenkeel_shard_open"); here != 1 || open != 0 {
			t.Errorf("archived: %f, open: %f", here, open)
		}
		room.full.Store(false)
		r.has("k", "19")
		if here, open := of("evenkeel_archive_shard"), of("evenkeel_shard_open"); here != 1 || open != 1 {
			t.Errorf("afterwards, archived: %f, open: %f", here, open)
		}
	})
}

// Where nobody can say where the logs end, what the bucket lacks is not known, at no time.
func TestArchiveLagIsNotKnown(t *testing.T) {
	one(t, func(r *region) {
		archives(r)
		unknown := r.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "session", Err: kerr.OffsetNotAvailable, Count: -1})
		if err := r.tryStart(); err != nil {
			t.Fatal(err)
		}
		r.troubled("is not open", "session")
		for range 60 {
			time.Sleep(700 * time.Millisecond)
			if age := r.gauge("evenkeel_archive_age_seconds", "session"); !math.IsInf(age, 1) {
				t.Fatalf("the oldest record that the bucket lacks is %f s old", age)
			}
		}
		unknown.Remove()
		r.await("known", func() error {
			if age := r.gauge("evenkeel_archive_age_seconds", "session"); age != 0 {
				return fmt.Errorf("age %f", age)
			}
			return nil
		})
	})
}

// A region whose bucket was empty and whose logs have lost their beginning goes on with
// a gap, and says so; the chain is that of the region again as soon as the fold
// has passed.
func TestArchiveBeginsAtABackup(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		backup := r.backup()
		r.stop()
		archives(r)
		r.start()
		last := r.put("k", "later")
		r.has("k", "later")
		r.archived(last.Log, last.Offset+1)
		s, err := segment.Header(r.w.Context(), r.bucket, us, last.Partition, 1)
		if err != nil {
			r.w.Fatal(err)
		}
		part := s.Part(last.Log)
		if part == nil || part.Gap != nil || part.Mark == nil {
			r.w.Fatalf("%+v", part)
		}
		for _, st := range backup.States {
			if st.Log == last.Log && (part.From != st.Next || part.Before != st.Chain) {
				t.Errorf("it begins at %d with %s, the backup has %d with %s", part.From, part.Before, st.Next, st.Chain)
			}
		}
	})
}

// Where a log had lost records before they were archived its chain is not known; it is
// again behind the first segment at whose end the fold stands.
func TestArchiveFindsTheChainAgain(t *testing.T) {
	one(t, func(r *region) {
		archives(r)
		filled(r)
		last := r.put("k", "archived")
		r.archived(last.Log, last.Offset+1)
		r.cfg.Backup.Schedule.Segment = 0
		r.stop()
		r.start() // and does not archive
		for i := range 10 {
			last = r.put("k", fmt.Sprint("not archived ", i))
		}
		r.has("k", "not archived 9")
		r.stop()
		if err := r.kafka.DeleteRecords("session", last.Partition, last.Offset-3); err != nil {
			r.w.Fatal(err)
		}
		archives(r)
		r.start()
		r.await("told", func() error {
			if all := strings.Join(r.status().Problems, "\n"); !strings.Contains(all, fmt.Sprintf("to %d: the log did not have them", last.Offset-4)) {
				return errors.New(all)
			}
			return nil
		})
		last = r.put("k", "afterwards")
		r.has("k", "afterwards")
		r.archived(last.Log, last.Offset+1)
		s, err := segment.Newest(r.w.Context(), r.bucket, us, last.Partition)
		if err != nil {
			r.w.Fatal(err)
		}
		end, _ := s.End(last.Log)
		for _, st := range r.status().Logs {
			if st.Log == last.Log && st.Chain != end.Chain {
				t.Errorf("the archive ends with chain %s, the fold with %s", end.Chain, st.Chain)
			}
		}
		if gap := r.gauge("evenkeel_archive_gap_records_total", ""); gap != 6 {
			t.Errorf("%f offsets in gaps", gap)
		}
	})
}

// What the bucket lacks is measured by reading it.
func TestArchiveStatus(t *testing.T) {
	one(t, func(r *region) {
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		archives(r)
		r.start()
		last := r.put("k", "v")
		r.archived(last.Log, last.Offset+1)
		time.Sleep(time.Minute)
		point := func() api.ArchivePoint {
			for _, p := range r.status().Archive {
				if p.Stream == "session" {
					return p
				}
			}
			r.w.Fatal("no point")
			return api.ArchivePoint{}
		}
		if p := point(); p.Records == nil || *p.Records != 0 || *p.Age != 0 || p.Newest.IsZero() || p.Limit != 4 {
			t.Errorf("%+v", p)
		}
		alone, err := pipeline.Backups{Config: r.cfg, Bucket: r.bucket}.StatusAlone(r.w.Context())
		if err != nil || len(alone.Archive) != 2 || alone.Archive[1].Stream != "session" {
			r.w.Fatalf("%+v, %v", alone, err)
		}
		if p := alone.Archive[1]; p.Records != nil || p.Age != nil || p.Newest.IsZero() || p.Error == "" || p.Limit != 4 {
			t.Errorf("without a node: %+v", p)
		}
		other := last
		for i := 0; other.Partition == last.Partition; i++ {
			other = r.put(fmt.Sprint("k", i), "v")
			r.archived(other.Log, other.Offset+1)
		}
		unread := faults.Rule{Name: format.ShardSegmentPrefix(us, last.Partition) + "*", Ops: []string{objstore.OpGet, objstore.OpGetRange}, Effect: faults.FailBefore}
		alone, err = pipeline.Backups{Config: r.cfg, Bucket: faults.New(r.bucket, unread)}.StatusAlone(r.w.Context())
		if err != nil || len(alone.Archive) != 2 {
			r.w.Fatalf("a segment cannot be read: %+v, %v", alone, err)
		}
		if p := alone.Archive[1]; p.Newest.IsZero() || !strings.Contains(p.Error, "of 1 shards") {
			t.Errorf("a segment cannot be read: %+v", p)
		}
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.FailBefore})
		r.put("k", "1")
		r.put("k", "2")
		time.Sleep(2 * time.Minute)
		if p := point(); p.Records == nil || *p.Records != 2 || *p.Age < 85 || *p.Age > 125 {
			t.Errorf("%+v", p)
		}
		if got := r.gauge("evenkeel_archive_age_seconds", "session"); got < 85 || got > 125 {
			t.Errorf("age %f", got)
		}
		if got := r.gauge("evenkeel_archive_lag_records", "session"); got != 2 {
			t.Errorf("lag %f", got)
		}
		if all := strings.Join(r.status().Problems, "\n"); !strings.Contains(all, "the archive lacks the last 2 records of session") || !strings.Contains(all, "does not go on") {
			t.Errorf("problems: %q", all)
		}
		if !r.status().Ready {
			t.Error("it is not ready")
		}
		s, err := r.BackupStatus(r.w.Context())
		if err != nil || len(s.Archive) != 2 || *s.Archive[1].Records != 2 {
			t.Errorf("%+v, %v", s, err)
		}
		bucket.SetRules()
		time.Sleep(time.Minute)
		if p := point(); p.Records == nil || *p.Records != 0 || *p.Age != 0 {
			t.Errorf("%+v", p)
		}
		if problems := r.status().Problems; len(problems) > 0 {
			t.Errorf("problems: %q", problems)
		}
		wantMetrics(t, r.registry, "../deploy/prometheus/archive.rules.yaml")
	})
}
