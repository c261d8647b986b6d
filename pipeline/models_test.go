package pipeline_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// entries are those of a model, read in small pages.
func (r *region) entries(name, prefix string) (list []string, err error) {
	p := api.QueryModelParams{Name: name, Prefix: []byte(prefix), Limit: 2}
	for {
		page, err := r.QueryModel(r.w.Context(), p)
		if err != nil {
			return nil, err
		}
		for _, row := range page.Rows {
			list = append(list, strings.TrimSpace(fmt.Sprintf("%s of %s %s", row.Key, row.Of, row.Log)))
		}
		if page.Next == nil {
			return list, nil
		}
		p.After = page.Next
	}
}

func (r *region) awaitEntries(name string, want ...string) {
	r.w.Helper()
	r.await("entries of "+name, func() error {
		got, err := r.entries(name, "")
		if err == nil && !reflect.DeepEqual(got, want) {
			err = fmt.Errorf("%v, want %v", got, want)
		}
		return err
	})
}

// Both regions see who has which sessions, whoever wrote last; a node that keeps a
// model only later has the same.
func TestModels(t *testing.T) {
	two(t, func(a, b *region) {
		t := a.w.T // of the bubble
		a.cfg.Models = []string{"sessions-by-user", "event-counts"}
		b.cfg.Models = nil
		a.start()
		b.start()
		put := func(r *region, key, value string) {
			t.Helper()
			if _, err := r.Put(t.Context(), api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 9 {
			put(a, fmt.Sprintf("s-%d", i), fmt.Sprintf(`{"user": "user-%d"}`, i%2))
		}
		a.awaitEntries("sessions-by-user",
			"user-0 of s-0", "user-0 of s-2", "user-0 of s-4", "user-0 of s-6", "user-0 of s-8", "user-1 of s-1", "user-1 of s-3", "user-1 of s-5", "user-1 of s-7")
		b.await("events of the other region", func() error {
			if s, err := b.Status(t.Context()); err != nil || api.Known(s.Events) != 9 {
				return fmt.Errorf("%v, %v", s, err)
			}
			return nil
		})
		for i := range 8 {
			put(b, fmt.Sprintf("s-%d", i), `{"user": "eve"}`)
		}
		want := []string{"eve of s-0", "eve of s-1", "eve of s-2", "eve of s-3", "eve of s-4", "eve of s-5", "eve of s-6", "eve of s-7", "user-0 of s-8"}
		a.awaitEntries("sessions-by-user", want...)
		_, err := b.QueryModel(t.Context(), api.QueryModelParams{Name: "sessions-by-user"})
		wantKind(t, err, events.KindNotFound, `"sessions-by-user"`, b.cfg.Region.String())

		b.stop()
		b.cfg.Models = []string{"sessions-by-user", "event-counts"}
		b.start()
		b.awaitEntries("sessions-by-user", want...)
		b.counts(17) // the logs are read again for it
		a.checkModels(17)
		b.checkModels(17)
		if got, err := a.entries("sessions-by-user", "eve"); err != nil || len(got) != 8 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// counted is the sum of what event-counts has.
func (r *region) counted() (sum int64) {
	r.w.Helper()
	page, err := r.QueryModel(r.w.Context(), api.QueryModelParams{Name: "event-counts", Limit: api.MaxScanEntries})
	if err != nil || page.Next != nil {
		r.w.Fatalf("%+v, %v", page, err)
	}
	for _, row := range page.Rows {
		var n int64
		if _, err := fmt.Sscan(string(row.Value), &n); err != nil {
			r.w.Fatal(err)
		}
		sum += n
	}
	return sum
}

// rebuild rebuilds a model and waits until it is done.
func (r *region) rebuild(p api.RebuildModelParams) (d *api.ModelDetails) {
	r.w.Helper()
	d, err := r.RebuildModel(r.w.Context(), p)
	if err != nil || len(d.Shards) != partitions {
		r.w.Fatalf("%+v, %v", d, err)
	}
	r.await("rebuilt", func() error {
		if d, err = r.ShowModel(r.w.Context(), api.ShowModelParams{Name: p.Name}); err == nil && d.States[derived.Running] != partitions {
			err = fmt.Errorf("%+v", d)
		}
		return err
	})
	return d
}

// checkModels wants what is listed and shown of the models to be true.
func (r *region) checkModels(counted int64) {
	r.w.Helper()
	t := r.w.T
	list, err := r.ListModels(t.Context())
	if err != nil || len(list.Models) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if m := list.Models[0]; m.Name != "event-counts" || !m.OfEvents || m.States[derived.Running] != partitions || m.Since != nil || m.Stale != 0 || m.Missing != 0 {
		t.Errorf("%+v", m)
	}
	if got := r.counted(); got != counted {
		t.Errorf("%s: %d events are counted, want %d", r.cfg.Region, got, counted)
	}
	r.rebuild(api.RebuildModelParams{Name: "sessions-by-user"})
	r.rebuild(api.RebuildModelParams{Name: "event-counts", FromNow: true})
	if got := r.counted(); got != 0 {
		t.Errorf("%s: %d events are counted from now on", r.cfg.Region, got)
	}
	r.rebuild(api.RebuildModelParams{Name: "event-counts"}) // out of the logs, which have everything
	if got := r.counted(); got != 17 {
		t.Errorf("%s: %d events are counted when the logs are read again, want 17", r.cfg.Region, got)
	}
	_, err = r.QueryModel(t.Context(), api.QueryModelParams{Name: "event-counts", Limit: api.MaxScanEntries + 1})
	wantKind(t, err, events.KindInvalid, "10000")
	_, err = r.ShowModel(t.Context(), api.ShowModelParams{Name: "nobody's"})
	wantKind(t, err, events.KindNotFound, "nobody's", "event-counts")
}
