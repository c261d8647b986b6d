package pipeline_test

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator"
	linkbook "github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

func bareRecord(key, value string) *kgo.Record {
	return &kgo.Record{Topic: "session", Key: []byte(key), Value: []byte(value)}
}

// Logs with transactions have holes where these end or were aborted, and mirrors
// have none. Regions fold the same all the same, under the offsets of the log: live,
// from the beginning on an empty disk, and on from anywhere.
func TestTransactions(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		n := 0
		write := func(end kgo.TransactionEndTry) {
			var records []*kgo.Record
			for range 3 {
				n++
				records = append(records, bareRecord(fmt.Sprint("k", n%7), fmt.Sprint("v", n)))
			}
			a.transact(end, records...)
		}
		for i := range 10 {
			write(kgo.TryCommit)
			write(kgo.TryAbort)
			a.put("plain", fmt.Sprint(i))
			if i == 4 {
				b.has("plain", "4")
				b.stop() // it misses what follows
			}
		}
		b.start()
		write(kgo.TryCommit)
		last := a.put("last", "one")
		for _, r := range []*region{a, b, c} {
			r.has("last", "one")
			if s := r.status(); api.Known(s.Events) != 10*4+4 || api.Known(s.Parked) != 0 {
				t.Errorf("%s: %d events, %d parked, problems %q", r.cfg.Region, api.Known(s.Events), api.Known(s.Parked), s.Problems)
			}
			if e := r.get("last"); e.Position != last {
				t.Errorf("%s: the last write is at %s, it was acknowledged at %s", r.cfg.Region, e.Position, last)
			}
			if _, err := r.getAtLeast("last", events.Vector{last.Log: last.Offset + 1}, 1); err != nil {
				t.Errorf("%s: %v", r.cfg.Region, err)
			}
			r.consistent()
		}
		cut := a.status().Vector()
		for _, r := range []*region{b, c} {
			if v := r.status().Vector(); v.Compare(cut) != events.Equal {
				t.Errorf("%s stands at %s, %s at %s", r.cfg.Region, v, a.cfg.Region, cut)
			}
			if d, want := *r.status().Digest, *a.status().Digest; d != want {
				t.Errorf("%s has the digest %s, %s has %s", r.cfg.Region, d, a.cfg.Region, want)
			}
		}
		// What is told of the past names the offsets of the log, in every region.
		want, _, _ := a.history("plain", nil)
		for _, r := range []*region{b, c} {
			got, _, _ := r.history("plain", nil)
			if !slices.EqualFunc(got, want, func(x, y api.HistoryEvent) bool { return x.Position == y.Position }) {
				t.Errorf("%s: history %+v, want that of %s, %+v", r.cfg.Region, got, a.cfg.Region, want)
			}
		}
		for _, row := range c.lag().Folds {
			if row.Records == nil || *row.Records != 0 {
				t.Errorf("lag of %s: %+v", row.Log, row)
			}
		}
	})
}

// transactions writes n transactions of three records each to a partition of a region's log, and
// waits until others have folded them. Each leaves a hole of one offset in the log.
func (r *region) transactions(n int, folded ...*region) events.Log {
	r.w.Helper()
	for range n {
		r.transact(kgo.TryCommit, bareRecord("k", "v"), bareRecord("l", "v"), bareRecord("m", "v"))
	}
	log := events.Log{Origin: r.cfg.Origin(r.cfg.Region), Stream: "session"}
	for _, other := range folded {
		other.await("folded", func() error {
			if has, want := other.status().Vector()[log], r.end("session", 0)-1; has != want {
				return fmt.Errorf("%s has %s up to %d of %d", other.cfg.Region, log, has, want)
			}
			return nil
		})
	}
	return log
}

// What a directory or a backup has is compared with what a mirror has in the offsets of the log: a
// directory that the mirror of a log with holes cannot continue is given up for a backup that
// it can.
func TestBeginsWithWhatAMappedMirrorContinues(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		log := a.transactions(20, b, c)
		b.stop()
		early := b.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
		b.start()
		a.transactions(6, b, c)
		b.backup()
		b.stop()
		b.disk = early
		// The directory has the log up to offset 79, and the mirror what follows offset 93 of the
		// log, which it has at 70.
		topic, expired := b.cfg.TopicOf(log), kadm.Offsets{}
		expired.AddOffset(topic, 0, 70, -1)
		b.deleteRecords(expired)
		b.start()
		if row := b.status().Shards[0]; !strings.HasPrefix(row.Began, "backup") {
			t.Errorf("it began with %s", row.Began)
		}
		a.transactions(2, b, c)
		b.consistent()
	})
}

// The old state of a shard is kept until the new one has come to where it was, as the log
// counts, and not its mirror.
func TestRestoreShardsUntilAMappedMirror(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		log := a.transactions(20, b, c)
		b.backup()
		a.transactions(6, b, c)
		want := b.status().Vector()[log]
		b.restored(b.restoreShards(timeline.Request{Shards: []int32{0}}))
		f, err := b.disk.Open(filepath.Join(dataDir, "renewing", "shard-0000.json"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		text, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		var note struct {
			Until events.Vector `json:"until"`
		}
		if err := json.Unmarshal(text, &note); err != nil || note.Until[log] != want {
			t.Errorf("proved at %s, want %s at %d: %v", note.Until, log, want, err)
		}
	})
}

// notSaid has the link topic of a region be as if the link had not said yet where in its log the
// record at a position of its mirror is. say ends that.
func (r *region) notSaid(at events.Position) (say func()) {
	r.w.Helper()
	book, err := linkbook.Open(r.w.Context(), []kgo.Opt{kgo.SeedBrokers(r.address()), kgo.Dialer(r.w.net.DialContext)}, linkbook.Config{
		Topic: replicator.LinkTopic, Link: fmt.Sprintf("%s→%s", at.Origin, r.cfg.Region), Instance: fmt.Sprintf("test-%d", at.Offset),
	})
	if err != nil {
		r.w.Fatal(err)
	}
	r.w.Cleanup(book.Close)
	p := linkbook.Partition{Topic: string(at.Stream), Partition: at.Partition}
	_, version := book.Runs(p)
	plan := &linkbook.Plan{Dest: at.Offset, Count: 1, CRC: 1, Last: 1, Runs: []mapping.Run{{Source: at.Offset, Dest: at.Offset}}}
	if _, err := book.Step(r.w.Context(), p, version, nil, plan); err != nil {
		r.w.Fatal(err)
	}
	return func() {
		r.w.Helper()
		plans := slices.DeleteFunc(book.Plans(p), func(other linkbook.Plan) bool { return other.Dest != at.Offset })
		if err := book.Drop(r.w.Context(), plans); err != nil {
			r.w.Fatal(err)
		}
	}
}

// A link that has ended between the appending of a batch and saying where in the log it
// is holds up what comes from there on in that log, and no other: it says so, and goes on when it is
// known. What was there before is folded, though it is read with the rest, and told.
func TestMirrorOfWhichTheLinkHasNotSaid(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		settle([]*region{a, b, c})
		b.stop()
		early := b.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
		b.start()
		known, next, at := a.put("k", "known"), a.put("k", "next"), a.put("k", "v")
		b.has("k", "v")
		b.stop()
		a.down() // and the link gets no further
		sayNext, say := b.notSaid(next), b.notSaid(at)
		b.disk = early
		if err := b.tryStart(); err != nil {
			t.Fatal(err)
		}
		b.troubled("the link has not said yet", at.Log.String())
		for i := range 12 { // some in the same shard
			key := fmt.Sprint("other-", i)
			c.put(key, "v")
			b.within(5*time.Second, "the folding of another log", func() { b.has(key, "v") })
		}
		if e, err := b.getAtLeast("k", events.Vector{known.Log: known.Offset + 1}, 1); err != nil || string(e.Value) != "known" {
			t.Errorf("%+v, %v", e, err)
		}
		if _, err := b.getAtLeast("k", events.Vector{next.Log: next.Offset + 1}, 1); events.KindOf(err) != events.KindNotReady {
			t.Errorf("%v", err)
		}
		if found, _, _ := b.history("k", nil); len(found) != 1 || found[0].Position != known {
			t.Errorf("history: %+v, want what is at %s", found, known)
		}
		counted := b.counted()
		b.within(10*time.Second, "a rebuild", func() { b.rebuild(api.RebuildModelParams{Name: "event-counts"}) })
		if got := b.counted(); got != counted || counted == 0 {
			t.Errorf("%d events are counted when logs are read again, %d before", got, counted)
		}
		sayNext()
		b.within(5*time.Second, "the folding of what it says first", func() { b.has("k", "next") })
		say()
		b.has("k", "v")
		a.up()
		a.put("k", "w")
		b.has("k", "w")
	})
}

// A shard that is closed and opened again while a mirror is waited for waits again, and loses
// nothing when the link says where the records are and goes on at once, whenever the node looks.
func TestReopenedWhileAMirrorIsWaitedFor(t *testing.T) {
	for _, after := range []time.Duration{2 * time.Second, 2500 * time.Millisecond, 3 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			two(t, func(a, b *region) {
				a.start()
				b.start()
				b.backup()
				b.stop()
				early := b.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
				b.start()
				at := a.put("k", "v")
				b.has("k", "v")
				b.stop()
				a.down()
				say := b.notSaid(at)
				b.disk = early
				if err := b.tryStart(); err != nil {
					t.Fatal(err)
				}
				b.troubled("the link has not said yet", at.Log.String())
				lineage := b.restoreShards(timeline.Request{Shards: []int32{at.Partition}})[at.Partition]
				b.await("opened again", func() error {
					if row := b.status().Shards[at.Partition]; row.Lineage != lineage || row.State != "open" {
						return fmt.Errorf("%+v", row)
					}
					return nil
				})
				time.Sleep(after) // it has read so far, and looks now and then
				say()
				b.produce(&kgo.Record{Topic: b.cfg.TopicOf(at.Log), Partition: at.Partition, Key: []byte("next"), Value: []byte("v")})
				b.has("next", "v")
				b.has("k", "v")
			})
		})
	}
}
