package pipeline_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// hide has a region's Kafka give nothing of a topic to whoever reads it, until it is shown again, to new readers.
func (r *region) hide(topic string) (show func()) {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	found, err := kadm.NewClient(client).ListTopics(r.w.Context(), topic)
	if err != nil {
		r.w.Fatal(err)
	}
	id := found[topic].ID
	var hidden atomic.Bool
	hidden.Store(true)
	r.kafka.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.kafka.KeepControl()
		fetch := req.(*kmsg.FetchRequest)
		if hidden.Load() {
			fetch.Topics = slices.DeleteFunc(fetch.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Topic == topic || t.TopicID == id })
		}
		return nil, nil, false
	})
	return func() { hidden.Store(false) }
}

// A region of which a log holds what a delete of another hides, and is not folded that far anywhere: nothing is collected
// before it is.
func TestNothingIsCollectedWhileARegionLags(t *testing.T) {
	long(t)
	for name, lag := range map[string]func(w *world, a, c *region, p int32) (end func(*region)){
		"all states are lost": func(w *world, a, c *region, _ int32) func(*region) {
			a.put("k", "v")
			for _, r := range w.regions {
				r.has("k", "v")
			}
			c.delete("k")
			w.goneEverywhere("k")
			show := map[*region]func(){}
			for _, r := range w.regions {
				r.stop()
				r.disk = vfs.NewCrashableMem()
				show[r] = r.hide(r.cfg.TopicOf(events.Log{Origin: events.FirstOrigin(a.cfg.Region), Stream: "session"}))
			}
			for _, r := range w.regions {
				r.start()
			}
			return func(r *region) { show[r]() }
		},
		"the fold has stopped": func(w *world, a, c *region, p int32) func(*region) {
			for _, r := range w.regions {
				r.stop()
				r.cfg.Limits.MaxBatchBytes = 32 << 20
				r.start()
			}
			a.produceZeros(p, 3, 15<<20, 64<<20)
			a.produce(&kgo.Record{Topic: "session", Partition: p, Key: []byte("k"), Value: []byte("v")})
			for _, r := range w.regions {
				r.troubled("the batch at offset 0 of the log is larger")
			}
			c.delete("k")
			return func(r *region) { r.cfg.Limits.MaxBatchBytes = 64 << 20 }
		},
		"a transaction is open": func(w *world, a, c *region, p int32) func(*region) {
			client := a.dial(kgo.TransactionalID("open"), kgo.TransactionTimeout(14*time.Minute))
			w.Cleanup(client.Close)
			record := &kgo.Record{Topic: "session", Partition: p, Key: []byte("other"), Value: []byte("v")}
			if err := errors.Join(client.BeginTransaction(), client.ProduceSync(w.Context(), record).FirstErr()); err != nil {
				t.Fatal(err)
			}
			a.produce(&kgo.Record{Topic: "session", Partition: p, Key: []byte("k"), Value: []byte("v")})
			time.Sleep(time.Second) // so that the delete is the later one
			c.delete("k")
			return func(r *region) {
				if r != a {
					return
				}
				if err := client.EndTransaction(w.Context(), kgo.TryAbort); err != nil {
					t.Error(err)
				}
			}
		},
		"nobody can say where the log ends": func(w *world, a, c *region, p int32) func(*region) {
			a.put("k", "v")
			c.has("k", "v")
			c.delete("k")
			var away atomic.Bool
			away.Store(true)
			a.kafka.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
				a.kafka.KeepControl()
				isOwn := slices.ContainsFunc(req.(*kmsg.ListOffsetsRequest).Topics, func(t kmsg.ListOffsetsRequestTopic) bool { return t.Topic == "session" })
				return nil, errors.New("not now"), isOwn && away.Load()
			})
			return func(*region) { away.Store(false) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				a, _, c := keeping(w, 2*time.Minute)
				p := a.cfg.PartitionOf([]byte("k"))
				end := lag(w, a, c, p)
				time.Sleep(10 * time.Minute)
				for _, r := range w.regions {
					r.upkept(0, 0)
					if left, want := r.slicesLeft("session"), fmt.Sprintf("k in eu-central-1/session/%d", p); !slices.Contains(left, want) {
						t.Fatalf("%s has %s, want %s", r.cfg.Region, left, want)
					}
				}
				if stalled := gather(t, c.registry)["evenkeel_collect_stalled_seconds{}"]; stalled < 8*60 {
					t.Errorf("stalled for %v seconds", stalled)
				}
				for _, r := range w.regions {
					r.stop()
					end(r)
				}
				for _, r := range w.regions {
					r.start()
				}
				for _, r := range w.regions {
					r.upkept(1, 2)
					r.await("gone", func() error { return r.gone("k") })
					r.consistent()
				}
			}, us, west, eu)
		})
	}
}

// A partition of which Kafka does not answer to what is written holds up neither the others, nor the end of the node.
func TestCollectingWaitsForNoPartition(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Tombstones.Keep, r.cfg.Backup, r.bucket = 2*time.Minute, nil, nil
		r.start()
		found := map[int32]string{}
		for i := 0; len(found) < partitions; i++ {
			key := fmt.Sprint("k", i)
			if p := r.cfg.PartitionOf([]byte(key)); found[p] == "" {
				found[p] = key
				r.put(key, "v")
				r.delete(key)
			}
		}
		var away atomic.Bool
		away.Store(true)
		r.kafka.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
			r.kafka.KeepControl()
			for _, topic := range req.(*kmsg.ProduceRequest).Topics {
				for _, p := range topic.Partitions {
					if away.Load() && p.Partition == 0 && bytes.Contains(p.Records, []byte(events.CollectKey)) {
						return nil, errors.New("away"), true
					}
				}
			}
			return nil, nil, false
		})
		time.Sleep(20 * time.Minute)
		if left, want := r.slicesLeft("session"), []string{fmt.Sprintf("%s in us-east-1/session/0", found[0])}; !slices.Equal(left, want) {
			t.Errorf("left are %v, want %v", left, want)
		}
		if failures := gather(t, r.registry)["evenkeel_collect_failures_total{}"]; failures == 0 {
			t.Error("no failure is told")
		}
		r.within(time.Minute, "stopping", r.stop)
		away.Store(false)
		r.start()
		r.collected(1)
	})
}

// That nothing is collected is told, and which region is waited for; so is what fails.
func TestCollectingTellsOfItself(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		for _, r := range w.regions {
			r.cfg.Tombstones.Keep = time.Minute
			r.start()
		}
		a, c := w.regions[0], w.regions[2]
		a.put("k", "v")
		for _, r := range w.regions {
			r.has("k", "v")
			r.consistent()
		}
		time.Sleep(2 * divergence.IdleInterval) // attested, too
		c.stop()
		a.delete("k")
		time.Sleep(30 * time.Minute)
		series := gather(t, a.registry)
		for name, want := range map[string]float64{
			"evenkeel_collect_tombstones{}": 1, "evenkeel_collect_failures_total{}": 0,
			`evenkeel_collect_behind_records{origin="us-east-1"}`: 0, `evenkeel_collect_behind_records{origin="us-west-1"}`: 0,
			`evenkeel_collect_behind_records{origin="eu-central-1"}`: 1,
		} {
			if got, ok := series[name]; !ok || got != want {
				t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
			}
		}
		if stalled := series["evenkeel_collect_stalled_seconds{}"]; stalled < 29*60 || stalled > 31*60 {
			t.Errorf("stalled for %v seconds", stalled)
		}
		a.stop()
		time.Sleep(10 * time.Minute) // are not in it
		a.start()
		time.Sleep(5 * time.Minute)
		if stalled := gather(t, a.registry)["evenkeel_collect_stalled_seconds{}"]; stalled < 33*60 || stalled > 37*60 {
			t.Errorf("stalled for %v seconds when it was started again", stalled)
		}
		var refusing atomic.Bool
		refusing.Store(true)
		a.kafka.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			a.kafka.KeepControl()
			topics := req.(*kmsg.ListOffsetsRequest).Topics
			byTime := len(topics) > 0 && len(topics[0].Partitions) > 0 && topics[0].Partitions[0].Timestamp > 0
			return nil, errors.New("not now"), refusing.Load() && byTime
		})
		c.start()
		a.await("failing", func() error {
			if n := gather(t, a.registry)["evenkeel_collect_failures_total{}"]; n == 0 {
				return errors.New("nothing failed")
			}
			return nil
		})
		a.collected(0)
		refusing.Store(false)
		a.collected(1)
		a.await("told", func() error {
			series := gather(t, a.registry)
			stalled, behind, left := series["evenkeel_collect_stalled_seconds{}"], series[`evenkeel_collect_behind_records{origin="eu-central-1"}`], series["evenkeel_collect_tombstones{}"]
			if stalled > 30 || behind > 0 || left > 0 {
				return fmt.Errorf("stalled for %v s, %v behind, %v left", stalled, behind, left)
			}
			return nil
		})
	}, us, west, eu)
}
