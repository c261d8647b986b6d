package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// noise is a value that no compression makes smaller.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// setTopic changes a config of a topic in the region's Kafka.
func (r *region) setTopic(topic, name, value string) {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	_, err := kadm.NewClient(client).AlterTopicConfigs(r.w.Context(), []kadm.AlterConfig{{Name: name, Value: &value}}, topic)
	if err != nil {
		r.w.Fatal(err)
	}
}

// What may not be written is refused before anything is written.
func TestPutRefused(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Limits.MaxValueBytes = 1_000
		r.start()
		key := api.Bytes("k")
		for name, c := range map[string]struct {
			p     api.PutParams
			kind  events.Kind
			parts []string
		}{
			"value too large":       {api.PutParams{Stream: "session", Key: key, Value: noise(1_001)}, events.KindInvalid, []string{"1001 bytes", "1000", "limits.max_value_bytes"}},
			"no key":                {api.PutParams{Stream: "session", Value: noise(1)}, events.KindInvalid, []string{"key"}},
			"key too large":         {api.PutParams{Stream: "session", Key: noise(events.MaxKeyBytes + 1), Value: noise(1)}, events.KindInvalid, []string{"key", "32769"}},
			"unknown stream":        {api.PutParams{Stream: "sessions", Key: key, Value: noise(1)}, events.KindNotFound, []string{`"sessions"`, "config, session"}},
			"no stream":             {api.PutParams{Key: key, Value: noise(1)}, events.KindNotFound, []string{"config, session"}},
			"bad payload":           {api.PutParams{Stream: "session", Key: key, Value: []byte("{"), Type: "erlmcp.session.started.v1", ContentType: "application/json"}, events.KindInvalid, []string{"value"}},
			"bad protobuf":          {api.PutParams{Stream: "session", Key: key, Value: []byte{0xff}, Type: "erlmcp.session.started.v1", ContentType: "application/protobuf"}, events.KindInvalid, []string{"value"}},
			"delete with a value":   {api.PutParams{Stream: "session", Key: key, Value: noise(1), Type: events.TypeDelete}, events.KindInvalid, []string{"delete"}},
			"control characters":    {api.PutParams{Stream: "session", Key: key, Value: noise(1), Type: "a\nb"}, events.KindInvalid, []string{"type", "control character"}},
			"content type too long": {api.PutParams{Stream: "session", Key: key, Value: noise(1), ContentType: string(bytes.Repeat([]byte("x"), 2_000))}, events.KindInvalid, []string{"content type"}},
			"structured mode":       {api.PutParams{Stream: "session", Key: key, Value: noise(1), ContentType: "application/cloudevents+json"}, events.KindInvalid, []string{"structured"}},
		} {
			t.Run(name, func(t *testing.T) {
				_, err := r.Put(r.w.Context(), c.p)
				wantKind(t, err, c.kind, c.parts...)
			})
		}
		for p := range int32(partitions) {
			if end := r.end("session", p); end != 0 {
				t.Errorf("partition %d ends at %d", p, end)
			}
		}
	})
}

// The largest value that the configuration allows can be written and read, and
// mirrored too unless it is larger than Kafka's default, whatever it is made of.
func TestPutLargest(t *testing.T) {
	long(t)
	for name, limit := range map[string]int64{"default": 1_000_000, "small": 1, "raised": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			two(t, func(a, b *region) {
				for _, r := range []*region{a, b} {
					r.cfg.Limits.MaxValueBytes = limit
					r.start()
				}
				if name == "raised" {
					a.setTopic("session", "max.message.bytes", "4000000")
				}
				key, value := string(noise(events.MaxKeyBytes)), noise(int(limit))
				res, err := a.Put(a.w.Context(), api.PutParams{Stream: "session", Key: []byte(key), Value: value})
				if err != nil {
					t.Fatal(err)
				}
				a.has(key, string(value))
				if name == "raised" {
					return // links have a limit of their own
				}
				b.has(key, string(value))
				if e, err := b.Get(b.w.Context(), api.GetParams{Stream: "session", Key: []byte(key)}); err != nil || e.Position != res.Position || e.Clock != res.Clock {
					t.Errorf("written at %s, read at %s: %v", res.Position, e.Position, err)
				}
			})
		})
	}
}

// What Kafka refuses is refused: nothing is gained by trying again.
func TestPutRefusedByKafka(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.setTopic("session", "max.message.bytes", "10000")
		_, err := r.Put(r.w.Context(), api.PutParams{Stream: "session", Key: []byte("k"), Value: noise(20_000)})
		wantKind(t, err, events.KindRefused, "stream session of us-east-1", "kafka refuses it", "MESSAGE_TOO_LARGE")
		_, err = r.Load(r.w.Context(), api.LoadParams{Stream: "session", Source: "s", Events: []api.LoadEvent{
			{ID: "1", Key: []byte("a"), Value: noise(20_000)}, {ID: "2", Key: []byte("b"), Value: noise(10)},
		}})
		wantKind(t, err, events.KindRefused, "1 of 2 events", "MESSAGE_TOO_LARGE")
		r.put("k", "small")
		r.has("k", "small")
	})
}

func TestPutAndDelete(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		get := func(want string) {
			t.Helper()
			r.await("what was put", func() error {
				e, err := r.Get(r.w.Context(), api.GetParams{Stream: "session", Key: []byte("k")})
				got := fmt.Sprint(events.KindOf(err))
				if err == nil {
					got = fmt.Sprintf("%q %s %s", e.Value, e.Type, e.ContentType)
				}
				if got != want {
					return fmt.Errorf("got %s, %v", got, err)
				}
				return nil
			})
		}
		get("not found")
		put := func(p api.PutParams) *api.PutResult {
			t.Helper()
			p.Stream, p.Key = "session", []byte("k")
			res, err := r.Put(r.w.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		a := put(api.PutParams{Value: []byte("\x00\xff"), Type: "my.type.v1", ContentType: "a/b"})
		get(`"\x00\xff" my.type.v1 a/b`)
		b := put(api.PutParams{Value: []byte{}})
		get(`"" evenkeel.put.v1 `)
		c := put(api.PutParams{})
		get("not found")
		if a.Clock >= b.Clock || b.Clock >= c.Clock || a.ID == b.ID || a.Position.Offset != 0 || c.Position.Offset != 2 || a.Position.Log != c.Position.Log {
			t.Errorf("%+v, %+v, %+v", a, b, c)
		}
	})
}

// If Kafka does not take a write, its caller is told in bounded time what is not
// known; when Kafka is back, writes go on.
func TestPutWithoutKafka(t *testing.T) {
	long(t)
	for name, take := range map[string]func(r *region) (bringBack func()){
		"it is down":          func(r *region) func() { r.down(); return r.up },
		"it takes no writes":  func(r *region) func() { return r.holdWrites() },
		"it has lost leaders": func(r *region) func() { return r.refuseWrites(kerr.NotLeaderForPartition) },
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.start()
				r.put("k", "before")
				bringBack := take(r)
				put := func(ctx context.Context, value string) error {
					_, err := r.Put(ctx, api.PutParams{Stream: "session", Key: []byte("k"), Value: []byte(value)})
					return err
				}
				for i := range 3 {
					r.within(31*time.Second, "put", func() {
						wantKind(t, put(r.w.Context(), fmt.Sprintf("lost-%d", i)), events.KindNotReady, "stream session of us-east-1", "may or may not")
					})
				}
				ctx, leave := context.WithTimeout(r.w.Context(), time.Second)
				defer leave()
				r.within(time.Second, "put of a caller who leaves", func() {
					if err := put(ctx, "left"); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v", err)
					}
				})
				bringBack()
				r.await("written again", func() error { return put(r.w.Context(), "after") })
				r.has("k", "after")
				// Nothing that was given up lands behind what came later.
				time.Sleep(time.Minute)
				r.has("k", "after")
			})
		})
	}
}

// refuseWrites has every write fail in a way that clients try again.
func (r *region) refuseWrites(err *kerr.Error) (stop func()) {
	return r.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: -1}).Remove
}

// Reading needs a key and a stream that exist.
func TestReadRefused(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		_, err := r.Get(r.w.Context(), api.GetParams{Stream: "session"})
		wantKind(t, err, events.KindInvalid, "key")
		_, err = r.Get(r.w.Context(), api.GetParams{Stream: "nope", Key: []byte("k")})
		wantKind(t, err, events.KindNotFound, `"nope"`, "config, session")
		_, err = r.Get(r.w.Context(), api.GetParams{Stream: "session", Key: []byte("no\n")})
		wantKind(t, err, events.KindNotFound, "session", "us-east-1", `"no\n"`)
		_, err = r.Scan(r.w.Context(), api.ScanParams{Stream: "nope"})
		wantKind(t, err, events.KindNotFound, "config, session")
		for _, limit := range []int{-1, api.MaxScanEntries + 1} {
			_, err = r.Scan(r.w.Context(), api.ScanParams{Stream: "session", Limit: limit})
			wantKind(t, err, events.KindInvalid, fmt.Sprint(limit), fmt.Sprint(api.MaxScanEntries))
		}
		ctx, leave := context.WithCancel(r.w.Context())
		leave()
		r.put("k", "v")
		r.has("k", "v")
		if _, err := r.Scan(ctx, api.ScanParams{Stream: "session"}); !errors.Is(err, context.Canceled) {
			t.Errorf("a scan for nobody: %v", err)
		}
	})
}

// Pages follow one another without a gap and without a key twice, over all
// shards, however they are cut.
func TestScanPages(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		const n = 50
		value := noise(300_000) // 50 of them are more than one page takes
		for i := range n {
			r.put(fmt.Sprintf("big-%02d", i), string(value))
			r.put(fmt.Sprintf("small-%02d", i), "v")
		}
		r.put("z", "last")
		r.has("z", "last")
		r.await("folded", func() error {
			if s := r.status(); api.Known(s.Keys) != 2*n+1 {
				return fmt.Errorf("%d keys", s.Keys)
			}
			return nil
		})
		for name, c := range map[string]struct {
			p           api.ScanParams
			keys, pages int
		}{
			"by count":                      {api.ScanParams{Prefix: []byte("small-"), Limit: 7}, n, 8},
			"all but one in a page":         {api.ScanParams{Prefix: []byte("small-"), Limit: n - 1}, n, 2},
			"exactly one page":              {api.ScanParams{Prefix: []byte("small-"), Limit: n}, n, 1},
			"by bytes":                      {api.ScanParams{Prefix: []byte("big-")}, n, 2},
			"one by one":                    {api.ScanParams{Prefix: []byte("small-"), Limit: 1}, n, n},
			"after a key":                   {api.ScanParams{Prefix: []byte("small-"), After: []byte("small-39")}, 10, 1},
			"after a key that is not there": {api.ScanParams{Prefix: []byte("small-"), After: []byte("small-39a")}, 10, 1},
			"after the end":                 {api.ScanParams{Prefix: []byte("small-"), After: []byte("z")}, 0, 1},
			"no such prefix":                {api.ScanParams{Prefix: []byte("x")}, 0, 1},
			"everything":                    {api.ScanParams{Limit: api.MaxScanEntries}, 2*n + 1, 2},
		} {
			t.Run(name, func(t *testing.T) {
				p, last := c.p, string(c.p.After)
				p.Stream = "session"
				keys, pages := 0, 0
				for more := true; more; {
					page, err := r.Scan(r.w.Context(), p)
					if err != nil {
						t.Fatal(err)
					}
					size := 0
					for _, e := range page.Entries {
						if key := string(e.Key); key <= last {
							t.Errorf("key %s after %s", key, last)
						}
						last, size = string(e.Key), size+len(e.Value)
					}
					if size > api.MaxScanBytes+len(value) {
						t.Errorf("a page of %d bytes", size)
					}
					keys, pages, more, p.After = keys+len(page.Entries), pages+1, page.More, []byte(last)
					if page.Entries == nil {
						t.Error("no entries are null instead of an empty list")
					}
				}
				if keys != c.keys || pages != c.pages {
					t.Errorf("%d keys in %d pages, want %d in %d", keys, pages, c.keys, c.pages)
				}
			})
		}
	})
}
