package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/refill"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// archivedRegion has lived: it has some keys, in several segments, all of which are
// archived. The node is stopped. It returns what its topics held.
func archivedRegion(r *region, more func()) map[events.Log][]*kgo.Record {
	r.w.Helper()
	if r.Region == nil {
		archives(r)
		r.start()
	}
	for i := range 40 {
		r.put(fmt.Sprintf("key-%d", i%17), fmt.Sprint("value-", i))
		if _, err := r.Put(r.w.Context(), api.PutParams{Stream: "config", Key: fmt.Append(nil, "option-", i%9), Value: fmt.Append(nil, i)}); err != nil {
			r.w.Fatal(err)
		}
		if i%10 == 9 {
			time.Sleep(5 * time.Second)
		}
	}
	r.produce(&kgo.Record{Topic: "session", Partition: 1, Key: []byte("bare"), Timestamp: time.UnixMilli(12_345), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "h"}}})
	more()
	held := map[events.Log][]*kgo.Record{}
	for stream := range r.cfg.Streams {
		for p := range int32(partitions) {
			l := events.Log{Origin: events.FirstOrigin(us), Stream: stream, Partition: p}
			if held[l] = r.committed(string(stream), p); len(held[l]) > 0 {
				r.archived(l, held[l][len(held[l])-1].Offset+1)
			}
		}
	}
	return held
}

// lose takes everything from a region but its bucket.
func (r *region) lose() {
	r.w.Helper()
	r.stop()
	r.down()
	if err := os.RemoveAll(r.dir); err != nil {
		r.w.Fatal(err)
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		r.w.Fatal(err)
	}
	r.disk = vfs.NewCrashableMem()
	r.up()
}

func (r *region) refillJob() refill.Job {
	return refill.Job{Config: r.cfg, Bucket: r.bucket, FS: r.disk, Log: slog.New(slog.DiscardHandler), KafkaOpts: r.opts}
}

// holds makes sure that the topics hold what they held; shifted: at offsets without
// holes.
func (r *region) holds(held map[events.Log][]*kgo.Record, shifted bool) {
	r.w.Helper()
	for l, want := range held {
		got := r.committed(string(l.Stream), l.Partition)
		if len(got) != len(want) {
			r.w.Errorf("%s: %d records, want %d", l, len(got), len(want))
			continue
		}
		for i, w := range want {
			g := got[i]
			offset := w.Offset
			if shifted {
				offset = int64(i)
			}
			if g.Offset != offset || !g.Timestamp.Equal(w.Timestamp) || string(g.Key) != string(w.Key) || string(g.Value) != string(w.Value) ||
				(g.Value == nil) != (w.Value == nil) || !reflect.DeepEqual(g.Headers, w.Headers) {
				r.w.Errorf("%s: record %d is %+v, want %+v", l, i, g, w)
			}
		}
	}
}

// A region's disk and its Kafka are both lost. From its bucket alone the records come back
// into the topics, at the offsets that they had, and the state is what it was.
func TestRefillAndRestore(t *testing.T) {
	one(t, func(r *region) {
		held := archivedRegion(r, func() {})
		before := r.status()
		r.lose()
		done, err := refill.Run(r.w.Context(), r.refillJob())
		if err != nil {
			t.Fatal(err)
		}
		r.holds(held, false)
		for _, l := range done.Logs {
			if !l.Same || l.Records != int64(len(held[l.Log])) {
				t.Errorf("%+v", l)
			}
		}
		f, err := r.disk.Open(dataDir + "/" + refill.Report)
		if err != nil {
			t.Fatal(err)
		}
		var report api.Refilled
		if err := errors.Join(json.NewDecoder(f).Decode(&report), f.Close()); err != nil || !reflect.DeepEqual(report, *done) {
			t.Errorf("report %+v, %v, want %+v", report, err, *done)
		}
		if _, err := pipeline.Restore(r.w.Context(), r.job()); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.put("after", "the loss")
		r.has("after", "the loss")
		r.has("key-3", "value-37")
		after := r.status()
		for i, st := range before.Logs {
			if got := after.Logs[i]; got.Log != st.Log || got.Next < st.Next || got.Next == st.Next && got != st {
				t.Errorf("%+v, before the loss %+v", got, st)
			}
		}
	})
}

// Records of logs with holes come to lie one behind the other, and the report says where.
func TestRefillMaps(t *testing.T) {
	one(t, func(r *region) {
		held := archivedRegion(r, func() {
			r.transact(kgo.TryCommit, bareRecord("tx", "committed"), bareRecord("tx2", "committed"))
			r.transact(kgo.TryAbort, bareRecord("tx", "aborted"))
			r.transact(kgo.TryCommit, bareRecord("tx", "again"), bareRecord("tx2", "again"))
		})
		r.lose()
		done, err := refill.Run(r.w.Context(), r.refillJob())
		if err != nil {
			t.Fatal(err)
		}
		r.holds(held, true)
		mapped := 0
		for _, l := range done.Logs {
			if !l.Same {
				mapped++
			}
			i := 0
			for _, run := range l.Runs {
				for k := range run.Records {
					if want := held[l.Log][i]; want.Offset != run.Log+k || int64(i) != run.Topic+k {
						t.Errorf("%s: record %d was at %d, the report says %+v", l.Log, i, want.Offset, run)
					}
					i++
				}
			}
			if i != len(held[l.Log]) {
				t.Errorf("%s: runs of %d records, want %d", l.Log, i, len(held[l.Log]))
			}
		}
		if mapped == 0 {
			t.Error("no log was mapped")
		}
	})
}

// ownConfigs are what a topic's own configuration says of what is held off.
func (r *region) ownConfigs(topic string) map[string]string {
	client := r.dial()
	defer client.Close()
	described, err := kadm.NewClient(client).DescribeTopicConfigs(r.w.Context(), topic)
	if err != nil {
		r.w.Fatal(err)
	}
	values := map[string]string{}
	for _, c := range described[0].Configs {
		switch c.Key {
		case "retention.ms", "retention.bytes", "cleanup.policy":
			values[c.Key] = c.MaybeValue()
		}
	}
	return values
}

// One that is broken off, wherever, goes on and writes nothing twice; meanwhile no record
// is deleted by its age, and afterwards as before.
func TestRefillGoesOn(t *testing.T) {
	one(t, func(r *region) {
		held := archivedRegion(r, func() {})
		r.lose()
		client := r.dial()
		if _, err := kadm.NewClient(client).CreateTopics(r.w.Context(), partitions, 1, nil, "session", "config"); err != nil {
			t.Fatal(err)
		}
		client.Close()
		r.setTopic("session", "retention.ms", "123456789")
		want := r.ownConfigs("session")
		for objects := 1; ; objects++ {
			ctx, stop := context.WithCancel(r.w.Context())
			job, left := r.refillJob(), objects
			job.Fetched = func(int64) {
				if got := r.ownConfigs("session"); got["retention.ms"] != "-1" || got["retention.bytes"] != "-1" {
					t.Errorf("meanwhile: %v", got)
				}
				if left--; left == 0 {
					stop()
				}
			}
			done, err := refill.Run(ctx, job)
			stop()
			if err == nil {
				if objects < 4 || !done.Resumed {
					t.Errorf("after %d objects: %+v", objects, done)
				}
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			other := r.refillJob()
			other.Request.Target = timeline.Target{Ago: time.Second}
			_, err = refill.Run(r.w.Context(), other)
			wantKind(t, err, events.KindRefused, "the newest")
		}
		r.holds(held, false)
		if got := r.ownConfigs("session"); !reflect.DeepEqual(got, want) {
			t.Errorf("configured as %v, want %v", got, want)
		}
	})
}

// Topics that hold anything else are refused and stay as they are.
func TestRefillRefused(t *testing.T) {
	t.Run("not empty", func(t *testing.T) {
		one(t, func(r *region) {
			held := archivedRegion(r, func() {})
			r.stop()
			_, err := refill.Run(r.w.Context(), r.refillJob())
			wantKind(t, err, events.KindRefused, "empty topics", "us-east-1")
			r.holds(held, false)
		})
	})
	t.Run("a node runs", func(t *testing.T) {
		one(t, func(r *region) {
			archivedRegion(r, func() {})
			_, err := refill.Run(r.w.Context(), r.refillJob())
			wantKind(t, err, events.KindRefused, "in use")
		})
	})
	t.Run("somebody else has written", func(t *testing.T) {
		one(t, func(r *region) {
			archivedRegion(r, func() {})
			r.lose()
			ctx, stop := context.WithCancel(r.w.Context())
			job := r.refillJob()
			job.Fetched = func(int64) { stop() }
			if _, err := refill.Run(ctx, job); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			r.produce(&kgo.Record{Topic: "session", Partition: 2, Key: []byte("x")})
			_, err := refill.Run(r.w.Context(), r.refillJob())
			if kind := events.KindOf(err); kind != events.KindRefused && kind != events.KindInconsistent {
				t.Fatal(err)
			}
			wantKind(t, err, events.KindOf(err), "topic session", "partition 2")
		})
	})
	t.Run("other partitions", func(t *testing.T) {
		one(t, func(r *region) {
			archivedRegion(r, func() {})
			r.lose()
			client := r.dial()
			defer client.Close()
			if _, err := kadm.NewClient(client).CreateTopics(r.w.Context(), partitions+1, 1, nil, "session"); err != nil {
				t.Fatal(err)
			}
			_, err := refill.Run(r.w.Context(), r.refillJob())
			wantKind(t, err, events.KindRefused, "4 partitions", "3")
		})
	})
	t.Run("nothing archived", func(t *testing.T) {
		one(t, func(r *region) {
			_, err := refill.Run(r.w.Context(), r.refillJob())
			wantKind(t, err, events.KindNotFound)
		})
	})
}
