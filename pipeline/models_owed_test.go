package pipeline_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// counts waits until event-counts has counted so many events, all that there are, and is made
// of nothing more.
func (r *region) counts(total int64) {
	r.w.Helper()
	r.await("counted", func() error {
		d, err := r.ShowModel(r.w.Context(), api.ShowModelParams{Name: "event-counts"})
		if err != nil || d.States[derived.Running] != partitions || d.Since != nil {
			return fmt.Errorf("%+v, %v", d, err)
		}
		return nil
	})
	if got := r.counted(); got != total {
		r.w.Errorf("%d events are counted, want %d", got, total)
	}
}

// What read models of events had is in no backup: a node that begins with one reads the logs
// again for them, by itself, and what has expired of these in the archive.
func TestModelsOfARestoredState(t *testing.T) {
	for name, begin := range map[string]func(r *region){
		"a node that begins with a backup": func(r *region) {
			if err := r.disk.RemoveAll(filepath.Join(dataDir, "state")); err != nil {
				r.w.Fatal(err)
			}
			r.start()
		},
		"shards that are restored while it runs": func(r *region) {
			r.start()
			r.restored(r.restoreShards(timeline.Request{Shards: []int32{0, 1, 2}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				held := archivedRegion(r, func() {
					r.behind("0")
					r.backup()
				})
				total := r.counted()
				r.expire(held)
				for i := range 9 {
					r.put(fmt.Sprint("later-", i), "v")
					total++
				}
				r.has("later-8", "v")
				r.counts(total)
				r.stop()
				begin(r)
				r.behind("0")
				r.counts(total)
				r.put("and-on", "v")
				r.behind("0")
				r.counts(total + 1)
				r.stop()
				r.start()
				r.counts(total + 1)
			})
		})
	}
}

// So does one that serves its state out of the bucket, when it is here.
func TestModelsOfAStateInPlace(t *testing.T) {
	one(t, func(r *region) {
		_, gate, want := lost(r, 1)
		r.start()
		d, err := r.ShowModel(r.w.Context(), api.ShowModelParams{Name: "event-counts"})
		if err != nil || d.Since == nil {
			t.Errorf("before it is here: %+v, %v", d, err)
		}
		close(gate.opened)
		r.here(want)
		r.counts(31)
	})
}
