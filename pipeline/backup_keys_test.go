package pipeline_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// A key is replaced as the runbook says: no chain is sealed partly for the old one and partly for the new one, the node drills
// both as long as it has both, and goes on without the old one; either key of a time alone opens what is of that time.
func TestKeyIsReplaced(t *testing.T) {
	one(t, func(r *region) {
		withDeltas(r)
		filled(r)
		time.Sleep(3 * time.Minute)
		old := r.newest()
		identity, recipient, err := seal.Generate(false, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r.stop()
		b := r.cfg.Backup
		b.Recipients, b.Identity = []string{recipient, keys[1].recipient}, config.Secret(keys[0].identity+"\n"+identity)
		r.start()
		for range 3 {
			r.written("key-00", time.Now().String())
			time.Sleep(time.Minute)
		}
		if k := r.kinds(); strings.Count(k, "f") != 2 || !strings.HasSuffix(k, "d") {
			t.Errorf("there is %s", k)
		}
		if said := strings.Join(r.status().Problems, "\n"); !strings.Contains(said, "out of turn") || !strings.Contains(said, "backup.recipients") {
			t.Errorf("problems: %s", said)
		}
		fresh, both := r.newest(), []string{seal.KeyID(recipient), seal.KeyID(keys[1].recipient)}
		slices.Sort(both)
		for _, id := range fresh.Path() {
			m, err := catalog.Manifest(r.w.Context(), r.bucket, us, id)
			if err != nil || m.StoredBytes() > 0 && !slices.Equal(m.Keys(), both) {
				t.Errorf("backup %s: %+v, %v", id, m.Keys(), err)
			}
		}
		for i, c := range []struct {
			backup, identity string
			opens            bool
		}{
			{old.ID, keys[0].identity, true}, {old.ID, keys[1].identity, true}, {old.ID, identity, false},
			{fresh.ID, identity, true}, {fresh.ID, keys[1].identity, true}, {fresh.ID, keys[0].identity, false},
		} {
			job := r.job()
			job.Dir, job.Request.Backup = fmt.Sprint("elsewhere-", i), c.backup
			if job.Opener, err = seal.NewOpener("test", c.identity); err != nil {
				t.Fatal(err)
			}
			if _, err := pipeline.Restore(r.w.Context(), job); (err == nil) != c.opens || err != nil && !errors.Is(err, seal.ErrNoKey) {
				t.Errorf("restore %d: %v", i, err)
			}
		}
		for _, identities := range []string{b.Identity.Reveal(), identity} {
			r.stop()
			b.Identity = config.Secret(identities)
			r.start()
			for range 10 {
				if d := r.drill(); d.Err() != nil {
					t.Fatalf("%+v", d)
				}
			}
		}
	})
}
