package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// partly is a bucket of which some objects cannot be read for a while: that fails, or
// hangs.
type partly struct {
	objstore.Bucket
	names []string
	hangs bool
	away  atomic.Pointer[chan struct{}] // closed when they can be read again
}

var errUnplugged = errors.New("unplugged")

func (p *partly) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if back := p.away.Load(); back != nil && slices.Contains(p.names, name) {
		if !p.hangs {
			return nil, fmt.Errorf("object %s: %w", name, errUnplugged)
		}
		select {
		case <-*back:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return p.Bucket.GetRange(ctx, name, offset, length)
}

func (p *partly) unplug() {
	back := make(chan struct{})
	p.away.Store(&back)
}

func (p *partly) plugIn() { close(*p.away.Swap(nil)) }

// unplugged starts a region that has lost its state (see lost) on a bucket without what one of
// its shards has there, one that has nothing to replay; the rest comes here.
func (r *region) unplugged(hangs bool) (bucket *partly, waits int32) {
	r.w.Helper()
	_, gate, want := lost(r, 1)
	m, err := catalog.Newest(r.w.Context(), r.bucket, us)
	if err != nil {
		r.w.Fatal(err)
	}
	for p, shard := range m.Shards {
		replayed := *want.Shards[p].Events
		for _, st := range shard.States {
			replayed -= st.Events
		}
		if replayed == 0 {
			waits = int32(p)
		}
	}
	bucket = &partly{Bucket: gate.Bucket, hangs: hangs}
	for _, t := range m.Shards[waits].Tables {
		bucket.names = append(bucket.names, t.Name)
	}
	gate.Bucket = bucket
	r.start()
	bucket.unplug() // before anything of it has been read but where its logs stand
	close(gate.opened)
	r.eventsFolded(api.Known(want.Events))
	return bucket, waits
}

// While one shard waits for what it still has in the bucket, the others of its node go on,
// and it says why it waits; it goes on by itself, in order, with nothing folded twice or
// passed over. So does a node that is stopped meanwhile.
func TestShardWaitsApart(t *testing.T) {
	long(t)
	for name, hangs := range map[string]bool{"what fails": false, "what hangs": true} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				bucket, waits := r.unplugged(hangs)
				total := api.Known(r.status().Events)
				want := map[int32]int64{} // events of the shards, when all is folded
				for _, s := range r.status().Shards {
					want[s.Partition] = *s.Events
				}
				waitsAt := want[waits]
				write := func(partition int32, key, value string) {
					r.produce(&kgo.Record{Topic: "session", Partition: partition, Key: []byte(key), Value: []byte(value)})
					want[partition]++
					total++
				}
				var theirs []string // keys of the shard that waits
				for i := range 30 {
					key := fmt.Sprintf("key-%02d", i)
					p := r.put(key, "first").Partition
					if want[p]++; p == waits {
						theirs = append(theirs, key)
					}
					total++
				}
				for i := range 20 {
					for p := range int32(partitions) {
						write(p, fmt.Sprintf("new-%d", p), fmt.Sprint(i))
					}
					write(waits, theirs[i%len(theirs)], fmt.Sprint("again ", i))
					time.Sleep(time.Second)
				}
				r.await("going on without it", func() error {
					for _, s := range r.status().Shards {
						if n := want[s.Partition]; s.Partition != waits && *s.Events != n {
							return fmt.Errorf("shard %d has %d events of %d", s.Partition, *s.Events, n)
						}
					}
					return nil
				})
				r.paces(int(waits), api.PaceBucket)
				if n := *r.status().Shards[waits].Events; n != waitsAt {
					t.Errorf("%d events are folded in the shard that waits, there were %d", n, waitsAt)
				}
				if !hangs {
					if n := r.gauge("evenkeel_state_shards_waiting", ""); n != 1 {
						t.Errorf("%v shards wait by the metrics", n)
					}
					r.troubled(fmt.Sprintf("shard %d", waits), "unplugged")
					for _, s := range r.status().Shards {
						if strings.Contains(s.Waits, "unplugged") != (s.Partition == waits) {
							t.Errorf("%+v", s)
						}
					}
					r.within(stopLimit, "stop", r.stop)
					if err := r.tryStart(); err != nil {
						t.Fatal(err)
					}
					write(waits, theirs[0], "after another start")
					time.Sleep(time.Minute)
				}
				bucket.plugIn()
				r.eventsFolded(total)
				r.has(fmt.Sprint("new-", waits), "19")
				r.paces(int(waits), api.PaceKeepingUp)
				r.await("ready", func() error { return r.Ready(r.w.Context()) })
				state := r.status()
				r.here(state)

				// Folded from the beginning it is the same.
				r.stop()
				if err := r.disk.RemoveAll(filepath.Join(dataDir, "state")); err != nil {
					t.Fatal(err)
				}
				r.bucket = objstore.NewMemory("another")
				r.start()
				r.eventsFolded(total)
				r.here(state)
			})
		})
	}
}

// A write that has to know what its key holds does not wait for ever for what its shard has in the bucket. Others
// do not ask, and those of other shards go on.
func TestWritesWhileTheBucketHangs(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Streams["session"] = config.Stream{Topic: "session", Merge: "multivalue"}
		bucket, waits := r.unplugged(true)
		var theirs, ours string
		for i := range 30 {
			key := fmt.Sprintf("key-%02d", i)
			if r.cfg.PartitionOf([]byte(key)) == waits {
				theirs = key
			} else {
				ours = key
			}
		}
		put := func(key string) error {
			_, err := r.do("", key, "v", &events.Vector{})
			return err
		}
		var busy, late atomic.Int32
		r.within(6*time.Second, "writes", func() {
			var writing sync.WaitGroup
			for range 300 {
				writing.Go(func() {
					err := put(theirs)
					if wantKind(t, err, events.KindNotReady); errors.Is(err, api.ErrBusy) {
						busy.Add(1)
					} else if strings.Contains(err.Error(), "nothing was written, what the key holds could not be read within 5s") {
						late.Add(1)
					}
				})
			}
			writing.Wait()
		})
		if busy.Load() != 44 || late.Load() != 256 {
			t.Errorf("%d are turned away, and %d come to nothing", busy.Load(), late.Load())
		}
		r.within(time.Second, "others", func() {
			if err := put(ours); err != nil {
				t.Error(err)
			}
			if _, err := r.do("", theirs, "v", nil); err != nil {
				t.Error(err)
			}
		})
		bucket.plugIn()
		r.await("written", func() error { return put(theirs) })
	})
}

// flat is a value that compresses well: far more of such records is fetched at a time than a shard
// keeps while it waits.
func flat(n int) []byte { return bytes.Repeat([]byte("x"), n) }

// A shard that has far more to fold than is kept of it while it waits comes to have
// all of it.
func TestShardCatchesUpApart(t *testing.T) {
	one(t, func(r *region) {
		_, gate, want := lost(r, 1)
		m, err := catalog.Newest(r.w.Context(), r.bucket, us)
		if err != nil {
			t.Fatal(err)
		}
		const waits, many = int32(1), 100
		bucket := &partly{Bucket: gate.Bucket}
		for _, table := range m.Shards[waits].Tables[1:] { // the first says where the logs stand
			bucket.names = append(bucket.names, table.Name)
		}
		gate.Bucket = bucket
		bucket.unplug()
		close(gate.opened)
		var records []*kgo.Record
		for i := range many {
			records = append(records, &kgo.Record{Topic: "session", Partition: waits, Key: fmt.Appendf(nil, "key-%02d", i%30), Value: flat(200_000)})
		}
		r.produce(records...)
		if err := r.tryStart(); err != nil {
			t.Fatal(err)
		}
		r.paces(int(waits), api.PaceBucket)
		r.produce(&kgo.Record{Topic: "session", Partition: waits, Key: []byte("key-00"), Value: []byte("last")})
		time.Sleep(time.Minute)
		bucket.plugIn()
		r.behind("0")
		r.has("key-00", "last")
		r.eventsFolded(api.Known(want.Events) + many + 1)
		if err := r.Ready(r.w.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Whatever is out of reach when, and for how long: what shards have in the end is what
// is folded from the beginning.
func TestShardsWaitApartAtRandom(t *testing.T) {
	long(t)
	wentApart := false
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			one(t, func(r *region) {
				rng := rand.New(rand.NewPCG(seed, 1))
				_, gate, _ := lost(r, 1)
				m, err := catalog.Newest(r.w.Context(), r.bucket, us)
				if err != nil {
					t.Fatal(err)
				}
				bucket := &partly{Bucket: gate.Bucket, hangs: seed%2 == 1}
				for table := range m.Tables() {
					if rng.IntN(4) > 0 {
						bucket.names = append(bucket.names, table.Name)
					}
				}
				gate.Bucket = bucket
				r.start()
				isAway := false
				for range 20 {
					if rng.IntN(2) == 0 {
						if isAway {
							bucket.plugIn()
						} else {
							bucket.unplug()
						}
						isAway = !isAway
					}
					var records []*kgo.Record
					for range rng.IntN(60) {
						key := fmt.Sprintf("key-%02d", rng.IntN(40))
						value := noise(1 + rng.IntN(60_000))
						if rng.IntN(3) > 0 {
							value = flat(1 + rng.IntN(200_000))
						}
						records = append(records, &kgo.Record{Topic: "session", Partition: rng.Int32N(partitions), Key: []byte(key), Value: value})
					}
					r.produce(records...)
					time.Sleep(time.Duration(rng.IntN(4_000)) * time.Millisecond)
					for _, s := range r.status().Shards {
						wentApart = wentApart || s.Load.Pace == api.PaceBucket
					}
				}
				if isAway {
					bucket.plugIn()
				}
				close(gate.opened)
				r.behind("0")
				state := r.status()
				r.here(state)
				r.stop()
				if err := r.disk.RemoveAll(filepath.Join(dataDir, "state")); err != nil {
					t.Fatal(err)
				}
				r.bucket = objstore.NewMemory("another")
				r.start()
				r.behind("0")
				r.here(state)
			})
		})
	}
	if !wentApart {
		t.Error("no shard had to wait: the test tests too little")
	}
}
