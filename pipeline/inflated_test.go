package pipeline_test

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
)

// heap watches how large the heap of the process gets, while it is collected as in a process
// that has little memory.
type heap struct {
	peak uint64
	end  func()
}

func watchHeap(limit int64) *heap {
	runtime.GC()
	before, percent := debug.SetMemoryLimit(limit), debug.SetGCPercent(100)
	h, done := &heap{}, make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		for {
			metrics.Read(sample)
			h.peak = max(h.peak, sample[0].Value.Uint64())
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	h.end = func() {
		close(done)
		watching.Wait()
		debug.SetMemoryLimit(before)
		debug.SetGCPercent(percent)
	}
	return h
}

// produceZeros writes records of so many zeros, which compress to next to nothing, in batches of up to so
// many bytes.
func (r *region) produceZeros(partition int32, records, bytes, batchBytes int) {
	r.w.Helper()
	client := r.dial(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(int32(batchBytes)), kgo.ProducerLinger(10*time.Millisecond))
	defer client.Close()
	value := make([]byte, bytes)
	for written := 0; written < records; {
		var some []*kgo.Record
		for range min(64, records-written) {
			some = append(some, &kgo.Record{Topic: "session", Partition: partition, Key: fmt.Appendf(nil, "zeros-%d", written%100), Value: value})
			written++
		}
		if err := client.ProduceSync(r.w.Context(), some...).FirstErr(); err != nil {
			r.w.Fatal(err)
		}
	}
}

// A node that is far behind on a log which compresses as well as anything does has of it in memory what it
// has room for, and not what a few fetches decompress to.
func TestCatchUpInLittleMemory(t *testing.T) {
	const (
		records = 2_048     // of 1 MiB
		little  = 384 << 20 // what the collector is told to do with
		most    = 640 << 20
	)
	var h *heap
	one(t, func(r *region) {
		r.cfg.Streams["session"] = config.Stream{Topic: "session", Merge: "append"}
		r.cfg.Backup.Schedule.Segment = 4 * time.Second
		r.start()
		r.stop()
		for p := range int32(2) {
			r.produceZeros(p, records/2, 1<<20, 8<<20)
		}
		h = watchHeap(little)
		r.start()
		r.await("folded and archived", func() error {
			s := r.status()
			if n := api.Known(s.Events); n != records {
				return fmt.Errorf("%d of %d are folded", n, records)
			}
			if len(s.Archive) == 0 {
				return errors.New("nothing is archived")
			}
			for _, p := range s.Archive {
				if p.Records == nil || *p.Records > 0 {
					return fmt.Errorf("archived: %+v", p)
				}
			}
			return nil
		})
		h.end()
	})
	t.Logf("%d MiB of records, %d MiB of memory at most", records, h.peak>>20)
	if h.peak > most {
		t.Errorf("%d MiB of memory, want at most %d", h.peak>>20, most>>20)
	}
}

// A batch that takes too much memory stops its log in every region, and nothing else; which it is, and why, is
// told and counted. With more memory all go on, and nothing is left out.
func TestBatchTooLargeForMemory(t *testing.T) {
	simulate(t, func(w *world) {
		for _, r := range w.regions {
			r.cfg.Limits.MaxBatchBytes, r.cfg.Backup.Schedule.Segment = 32<<20, 4*time.Second
			r.start()
		}
		a := w.regions[0]
		at := a.put("k", "before")
		a.produceZeros(at.Partition, 3, 15<<20, 64<<20)
		a.produce(&kgo.Record{Topic: "session", Partition: at.Partition, Key: []byte("k"), Value: []byte("behind")})
		others := map[string]bool{}
		for i := range 20 {
			key := fmt.Sprint("other-", i)
			if a.put(key, "v").Partition != at.Partition {
				others[key] = true
			}
		}
		for _, r := range w.regions {
			for key := range others {
				r.has(key, "v")
			}
			r.has("k", "before")
			r.await("told", func() error {
				problems := strings.Join(r.status().Problems, "\n")
				for _, part := range []string{at.Log.String(), "the batch at offset 1 ", "limits.max_batch_bytes", "the archive of " + at.Log.String() + " has stopped"} {
					if !strings.Contains(problems, part) {
						return fmt.Errorf("%q does not say %q", problems, part)
					}
				}
				return nil
			})
			if n := r.gauge("evenkeel_fold_batches_too_large_total", ""); n != 1 {
				t.Errorf("%s: %g batches are too large", r.cfg.Region, n)
			}
			_, err := r.Get(w.Context(), api.GetParams{Stream: "session", Key: []byte("k"), Freshness: api.Freshness{AtLeast: events.Vector{at.Log: 2}}})
			wantKind(t, err, events.KindNotReady, "the batch at offset 1")
		}
		for _, r := range w.regions {
			r.stop()
			r.cfg.Limits.MaxBatchBytes = 64 << 20
			r.start()
		}
		for _, r := range w.regions {
			r.has("k", "behind")
			r.await("archived", func() error {
				for _, p := range r.status().Archive {
					if p.Records == nil || *p.Records > 0 {
						return fmt.Errorf("%+v", p)
					}
				}
				return nil
			})
		}
		noneParked(w.regions...)
		for _, r := range w.regions[1:] {
			if x, y := a.status().Digest, r.status().Digest; *x != *y {
				t.Errorf("%s: digest %s, and %s", r.cfg.Region, y, x)
			}
		}
	}, us, eu, west)
}
