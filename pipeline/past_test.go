package pipeline_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// counting counts what is read of a bucket.
type counting struct {
	objstore.Bucket
	ranges, bytes, whole atomic.Int64
}

func (c *counting) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	c.ranges.Add(1)
	c.bytes.Add(length)
	return c.Bucket.GetRange(ctx, name, offset, length)
}

func (c *counting) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	body, info, err := c.Bucket.Get(ctx, name)
	c.whole.Add(info.Size)
	return body, info, err
}

// Every backup has every key as it was then, through a node and without one, by its
// id and by the time.
func TestGetAt(t *testing.T) {
	long(t)
	two(t, func(a, b *region) {
		a.cfg.Backup.Schedule.Segment = 2 * time.Second
		a.start()
		b.start()
		past := map[string]map[string]string{} // by backup
		times := map[string]time.Time{}
		now := map[string]string{}
		for round := range 3 {
			for i := range 8 {
				key, value := fmt.Sprintf("key-%d", (i+round*3)%12), fmt.Sprintf("value-%d-%d", round, i)
				from := []*region{a, b}[i%2]
				from.put(key, value)
				a.has(key, value)
				b.has(key, value)
				now[key] = value
			}
			if round == 1 {
				if _, err := a.Put(a.w.Context(), api.PutParams{Stream: "session", Key: []byte("key-5")}); err != nil {
					t.Fatal(err)
				}
				a.await("deleted", func() error { return a.gone("key-5") })
				delete(now, "key-5")
			}
			made := a.backup()
			past[made.ID], times[made.ID] = maps.Clone(now), time.Now()
			time.Sleep(time.Minute)
		}
		a.backup() // that nothing came since the last segment is known from it
		direct := pipeline.Backups{Config: a.cfg, Bucket: a.bucket}
		ids := slices.Sorted(maps.Keys(past))
		for _, id := range ids {
			at := times[id]
			for i := range 12 {
				key := fmt.Sprintf("key-%d", i)
				want, there := past[id][key]
				for name, get := range map[string]func() (*api.EntryAt, error){
					"node": func() (*api.EntryAt, error) {
						return a.GetAt(a.w.Context(), api.GetAtParams{Stream: "session", Key: []byte(key), PastTarget: api.PastTarget{Backup: id}})
					},
					"bucket": func() (*api.EntryAt, error) {
						return direct.GetAt(a.w.Context(), api.GetAtParams{Stream: "session", Key: []byte(key), PastTarget: api.PastTarget{Backup: id}})
					},
					"time": func() (*api.EntryAt, error) {
						return direct.GetAt(a.w.Context(), api.GetAtParams{Stream: "session", Key: []byte(key), PastTarget: api.PastTarget{Time: &at}})
					},
				} {
					e, err := get()
					switch {
					case !there && events.KindOf(err) != events.KindNotFound:
						t.Errorf("%s, %s in %s: %+v, %v", name, key, id, e, err)
					case there && (err != nil || string(e.Value) != want || name != "time" && e.Backup != id || len(e.Context) == 0):
						t.Errorf("%s, %s in %s: %+v, %v; want %s", name, key, id, e, err, want)
					}
				}
			}
		}
		if pins := a.pins(); pins > 0 {
			t.Errorf("%d pins are left", pins)
		}
		newest, err := direct.GetAt(a.w.Context(), api.GetAtParams{Stream: "session", Key: []byte("key-6")})
		if err != nil || newest.Backup <= ids[len(ids)-1] {
			t.Errorf("of the newest: %+v, %v", newest, err)
		}
	})
}

func (r *region) gone(key string) error {
	_, err := r.Get(r.w.Context(), api.GetParams{Stream: "session", Key: []byte(key)})
	if events.KindOf(err) == events.KindNotFound {
		return nil
	}
	return fmt.Errorf("%s is there: %w", key, err)
}

// A key is found by reading little of a backup, whatever its size.
func TestGetAtReadsLittle(t *testing.T) {
	one(t, func(r *region) {
		_, _, _ = lost(r, 1)
		bucket := &counting{Bucket: r.bucket.(*gated).Bucket}
		direct := pipeline.Backups{Config: r.cfg, Bucket: bucket}
		e, err := direct.GetAt(r.w.Context(), api.GetAtParams{Stream: "session", Key: []byte("key-07")})
		if err != nil || string(e.Value) != large(7) {
			t.Fatal(err)
		}
		if n := bucket.ranges.Load(); n > partitions*8 {
			t.Errorf("%d parts of objects were read", n)
		}
		if n := bucket.whole.Load(); n > 100_000 {
			t.Errorf("%d bytes of whole objects were read", n)
		}
	})
}

func TestGetAtRefuses(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		before := time.Now()
		time.Sleep(time.Minute)
		b := r.backup()
		for name, c := range map[string]struct {
			p     api.GetAtParams
			kind  events.Kind
			parts []string
		}{
			"another stream":    {api.GetAtParams{Stream: "nobody", Key: []byte("k")}, events.KindNotFound, []string{"nobody"}},
			"no key":            {api.GetAtParams{Stream: "session"}, events.KindInvalid, []string{"key"}},
			"another backup":    {api.GetAtParams{Stream: "session", Key: []byte("k"), PastTarget: api.PastTarget{Backup: "x"}}, events.KindNotFound, []string{`"x"`}},
			"a key that is not": {api.GetAtParams{Stream: "session", Key: []byte("k")}, events.KindNotFound, []string{`"k"`, b.ID}},
			"not archived":      {api.GetAtParams{Stream: "session", Key: []byte("key-01"), PastTarget: api.PastTarget{Time: &before}}, events.KindNotFound, []string{"nothing is archived", b.ID}},
			"both":              {api.GetAtParams{Stream: "session", Key: []byte("key-01"), PastTarget: api.PastTarget{Time: &before, Backup: b.ID}}, events.KindInvalid, []string{"not several"}},
		} {
			_, err := r.GetAt(r.w.Context(), c.p)
			if events.KindOf(err) != c.kind {
				t.Errorf("%s: %v", name, err)
				continue
			}
			wantKind(t, err, c.kind, c.parts...)
		}
	})
}
