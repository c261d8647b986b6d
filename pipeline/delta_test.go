package pipeline_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// written writes a value and waits until the node has it.
func (r *region) written(key, value string) {
	r.w.Helper()
	r.put(key, value)
	r.has(key, value)
}

// kinds are those of the backups that exist, in order.
func (r *region) kinds() (kinds string) {
	r.w.Helper()
	list, err := r.ListBackups(r.w.Context())
	if err != nil {
		r.w.Fatal(err)
	}
	for _, b := range list.Backups {
		kinds += b.Kind[:1]
	}
	return kinds
}

// newest is the newest backup, as show tells it.
func (r *region) newest() *format.Manifest {
	r.w.Helper()
	d, err := r.ShowBackup(r.w.Context(), api.ShowBackupParams{})
	if err != nil {
		r.w.Fatal(err)
	}
	return d.Manifest
}

// withDeltas says that a region backs up what has changed each minute. The next full
// backup comes in a day.
func withDeltas(r *region) {
	time.Sleep(time.Until(pipeline.LastSlot(us, 24*time.Hour, time.Now()).Add(24*time.Hour + time.Second)))
	b := r.cfg.Backup
	b.Schedule.Full, b.Schedule.Delta, b.Schedule.Segment, b.MaxChain, b.KeepLast = 24*time.Hour, time.Minute, 4*time.Second, 48, 1
	b.Keep.Full, b.Keep.Delta, b.Keep.Delta10m, b.Keep.Delta60s = 30*24*time.Hour, 7*24*time.Hour, 48*time.Hour, 24*time.Hour
}

// Each minute there is a delta, small, on a short chain, and it restores to what was there.
func TestDeltas(t *testing.T) {
	long(t)
	const minutes = 125 // until deltas of all tiers stand on one another
	one(t, func(r *region) {
		withDeltas(r)
		filled(r)
		r.await("backed up", func() error {
			if k := r.kinds(); k != "f" {
				return fmt.Errorf("there is %q", k)
			}
			return nil
		})
		full := r.newest()
		for i := range minutes {
			r.written(fmt.Sprintf("key-%02d", i%40), fmt.Sprintf("value-%d", i))
			time.Sleep(time.Minute)
			m := r.newest()
			if m.Kind != format.Delta || time.Since(m.Created) > time.Minute+time.Second || m.Parents[0] != full.ID {
				t.Fatalf("after %d minutes the newest is %s %s on %q", i+1, m.Kind, m.ID, m.Parents)
			}
			if n := len(m.Parents); n > 1+3+5+9 {
				t.Errorf("after %d minutes a delta builds on %d backups", i+1, n)
			}
		}
		time.Sleep(time.Minute)
		restored, err := r.restore("newest")
		if err != nil || restored.Digest != *r.status().Digest || !reflect.DeepEqual(restored.States, r.status().Logs) {
			t.Errorf("%+v, %v", restored, err)
		}
		if n := len(r.kinds()); n < minutes-5 || n > minutes+5 {
			t.Errorf("%d backups in %d minutes: %s", n, minutes+1, r.kinds())
		}
		if v, err := r.VerifyBackups(r.w.Context(), api.VerifyBackupsParams{All: true, Level: "decode"}); err != nil || v.Err() != nil {
			t.Errorf("%+v, %v", v, err)
		}
		s := r.status()
		if s.Backup.LastDelta == nil || s.Backup.LastDelta.Backup != r.newest().ID || s.Backup.DeltaEvery != 60 || len(s.Problems) > 0 {
			t.Errorf("%+v, %q", s.Backup, s.Problems)
		}
		// A node that has lost its disk begins with the chain.
		at := r.status().Logs
		r.stop()
		if err := r.disk.RemoveAll(dataDir); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.await("folded", func() error {
			if !reflect.DeepEqual(r.status().Logs, at) {
				return errors.New("not yet")
			}
			return nil
		})
		if !strings.Contains(r.log.String(), "shard is restored and proved") {
			t.Error("it was folded from nothing")
		}
	})
}

// Where deltas cannot be made a full backup is, at most one an hour, and the node says why.
func TestFullOutOfTurn(t *testing.T) {
	long(t)
	for name, test := range map[string]struct {
		chain int
		harm  func(r *region) // once there is a delta
		says  string
		lasts bool // it makes deltas impossible again and again
	}{
		"what was written is not remembered": {48, func(r *region) {
			for i := range 10 {
				r.written(fmt.Sprintf("key-%02d", i), "forgotten")
			}
			r.ForgetTouched(events.VectorOf(r.status().Logs))
		}, "not remembered", false},
		"a chain that is too long": {3, func(*region) {}, "backup.max_chain (3)", true},
		"a damaged backup": {48, func(r *region) {
			for catalog.Tier(r.newest()) < 10*time.Minute { // so that more will build on it
				r.written("key-00", fmt.Sprint(time.Now()))
				time.Sleep(time.Minute)
			}
			for tab := range r.newest().Tables() {
				if err := r.bucket.(*objstore.Memory).Delete(r.w.Context(), tab.Name); err != nil {
					r.w.Fatal(err)
				}
			}
		}, "is damaged", false},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				withDeltas(r)
				r.cfg.Backup.MaxChain = test.chain
				filled(r)
				r.await("backed up", func() error {
					if k := r.kinds(); !strings.HasPrefix(k, "fd") {
						return fmt.Errorf("there is %q", k)
					}
					return nil
				})
				r.written("key-00", "before")
				time.Sleep(time.Minute)
				test.harm(r)
				minutes, told := 30, false
				for i := range minutes {
					r.written(fmt.Sprintf("key-%02d", i), "after")
					time.Sleep(time.Minute)
					said := strings.Join(r.status().Problems, "\n")
					told = told || strings.Contains(said, test.says) && (strings.Contains(said, "out of turn") || strings.Contains(said, "no deltas"))
				}
				k := r.kinds()
				if n := strings.Count(k, "f"); !told || n != 2 {
					t.Errorf("%d full backups, told: %t: %s; %q", n, told, k, r.status().Problems)
				}
				if goesOn := strings.HasSuffix(k, strings.Repeat("d", minutes/2)); goesOn == test.lasts {
					t.Errorf("in the end: %s", k)
				}
				time.Sleep(time.Hour)
				if n := strings.Count(r.kinds(), "f"); n > 3 || test.lasts && n < 3 {
					t.Errorf("%d full backups after an hour: %s", n, r.kinds())
				}
				if restored, err := r.restore("newest"); err != nil || !reflect.DeepEqual(restored.States, r.newest().States()) {
					t.Errorf("%+v, %v", restored, err)
				}
			})
		})
	}
}

// A newest manifest that cannot be read, or one of what the next delta builds on, is no reason to have
// no backups until the next full one is due.
func TestDeltasOnUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(text []byte) []byte{
		"damaged": func(text []byte) []byte { text[len(text)/3] ^= 1; return text },
		"a newer version": func([]byte) []byte {
			text := []byte(`{"format":99}`)
			return fmt.Appendf(text, "\nsha256:%x\n", sha256.Sum256(text))
		},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				withDeltas(r)
				filled(r)
				time.Sleep(5 * time.Minute)
				spoilt := r.newest()
				if spoilt.Kind != format.Delta {
					t.Fatalf("the newest is %s", spoilt.Kind)
				}
				if err := r.bucket.(*objstore.Memory).Damage(format.ManifestName(us, spoilt.ID), spoil); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if said := strings.Join(r.status().Problems, "\n"); !strings.Contains(said, "out of turn") && !strings.Contains(said, "no deltas") || !strings.Contains(said, spoilt.ID) {
					t.Errorf("problems: %s", said)
				}
				full := r.newest()
				if full.Kind != format.Full || full.ID <= spoilt.ID {
					t.Errorf("a minute later the newest is %s %s", full.Kind, full.ID)
				}
				time.Sleep(10 * time.Minute)
				if m := r.newest(); m.Kind != format.Delta || m.Parents[0] != full.ID || time.Since(m.Created) > time.Minute+time.Second {
					t.Errorf("the newest is %s %s on %q", m.Kind, m.ID, m.Parents)
				}
			})
		})
	}
}
