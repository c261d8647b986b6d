package snapshotter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// crash is one way in which a write of a backup can end badly.
type crash struct {
	name   string
	bucket func(b objstore.Bucket, nth int, cancel context.CancelFunc) objstore.Bucket // goes wrong at the nth Create
	stored bool                                                                        // the write that went wrong was done
}

var crashes = []crash{
	{"fails before", failing(faults.FailBefore), false},
	{"conflict", failing(faults.Conflict), false},
	{"denied", failing(faults.Deny), false},
	{"answer lost", failing(faults.FailAfter), true},
	{"lands later", failing(faults.Late), false},
	{"cancelled before", func(b objstore.Bucket, nth int, cancel context.CancelFunc) objstore.Bucket {
		return &cancelling{Bucket: b, nth: nth, before: cancel}
	}, false},
	{"cancelled after", func(b objstore.Bucket, nth int, cancel context.CancelFunc) objstore.Bucket {
		return &cancelling{Bucket: b, nth: nth, after: cancel}
	}, true},
}

func failing(effect faults.Effect) func(objstore.Bucket, int, context.CancelFunc) objstore.Bucket {
	return func(b objstore.Bucket, nth int, _ context.CancelFunc) objstore.Bucket {
		return faults.New(b, faults.Rule{Ops: []string{objstore.OpCreate}, Nth: nth, Effect: effect})
	}
}

// cancelling ends a context just before or just after the nth Create.
type cancelling struct {
	objstore.Bucket
	nth           int
	before, after context.CancelFunc
}

func (c *cancelling) Create(ctx context.Context, name string, body []byte) error {
	c.nth--
	if c.nth == 0 && c.before != nil {
		c.before()
	}
	err := c.Bucket.Create(ctx, name, body)
	if c.nth == 0 && c.after != nil {
		c.after()
	}
	return err
}

// Each write of a backup goes wrong in each way. Afterwards there is either a
// whole backup or none, a retry succeeds, and what lands late does no harm.
func TestCrashMatrix(t *testing.T) {
	// One shard, so that the nth write is always the same one.
	cuts := cutsOf([]string{"a first table", "a second one", "a third one"})
	const writes = 4
	for _, crash := range crashes {
		for nth := 1; nth <= writes; nth++ {
			t.Run(fmt.Sprintf("%s, write %d", crash.name, nth), func(t *testing.T) {
				memory := objstore.NewMemory("backups")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				bucket := crash.bucket(memory, nth, cancel)
				m, err := snapshotter.Full(ctx, bucket, cuts, config)
				published := nth == writes && crash.stored
				switch {
				case err == nil && (!published || ctx.Err() == nil):
					t.Errorf("the backup succeeded: %s", m.ID)
				case err != nil && m != nil:
					t.Error("a manifest together with an error")
				}
				want := 0
				if published {
					want = 1
				}
				if ids := audit(t, memory, cuts); len(ids) != want {
					t.Errorf("%d backups, want %d", len(ids), want)
				}
				if faulty, ok := bucket.(*faults.Bucket); ok && nth == writes && crash.name == "lands later" {
					if errs := faulty.Land(t.Context()); errors.Join(errs...) != nil {
						t.Errorf("landing: %v", errs)
					}
					want++
				}
				if _, err := snapshotter.Full(t.Context(), bucket, cuts, config); err != nil {
					t.Errorf("retry: %v", err)
				}
				if ids := audit(t, memory, cuts); len(ids) != want+1 {
					t.Errorf("%d backups after the retry, want %d", len(ids), want+1)
				}
			})
		}
	}
}

// A store that breaks its word leaves the beginning of each object that a backup writes. A torn
// table is nobody's. A torn manifest is seen and cannot be read, which whoever asks is told; the
// next backup is made all the same, and is the newest.
func TestTornWrites(t *testing.T) {
	cuts := cutsOf([]string{"a first table", "a second one", "a third one"})
	const writes = 4
	for nth := 1; nth <= writes; nth++ {
		synctest.Test(t, func(t *testing.T) {
			memory := objstore.NewMemory("backups")
			bucket := failing(faults.Torn)(memory, nth, nil)
			if m, err := snapshotter.Full(t.Context(), bucket, cuts, config); err == nil {
				t.Errorf("write %d: the backup succeeded: %s", nth, m.ID)
			}
			torn := names(t, memory, format.ManifestPrefix(region))
			if want := nth / writes; len(torn) != want {
				t.Fatalf("write %d: manifests: %q", nth, torn)
			}
			time.Sleep(time.Second)
			m, err := snapshotter.Full(t.Context(), bucket, cuts, config)
			if err != nil {
				t.Fatalf("write %d: retry: %v", nth, err)
			}
			if newest, err := catalog.Newest(t.Context(), memory, region); err != nil || newest.ID != m.ID {
				t.Errorf("write %d: the newest is %+v, %v", nth, newest, err)
			}
			for _, name := range torn {
				id, _ := format.ParseManifestName(region, name)
				if _, err := catalog.Load(t.Context(), memory, region, id); events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), name) {
					t.Errorf("%v, want that %s is damaged", err, name)
				}
				if err := memory.Lose(name); err != nil {
					t.Fatal(err)
				}
			}
			if ids := audit(t, memory, cuts); len(ids) != 1 || ids[0] != m.ID {
				t.Errorf("write %d: %q", nth, ids)
			}
		})
	}
}

// With several shards uploading at once the failure of one ends the others, and
// nothing is published.
func TestCrashOfOneShardEndsTheBackup(t *testing.T) {
	for _, crash := range crashes {
		for nth := 1; nth <= tablesOfSome; nth++ {
			memory := objstore.NewMemory("backups")
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := snapshotter.Full(ctx, guarded(crash.bucket(guarded(memory), nth, cancel)), someCuts(), config); err == nil {
				t.Errorf("%s, write %d: the backup succeeded", crash.name, nth)
			}
			cancel()
			if ids := audit(t, memory, someCuts()); len(ids) > 0 {
				t.Errorf("%s, write %d: published", crash.name, nth)
			}
		}
	}
}

// guarded lets one Create through at a time, so that counting them is safe.
func guarded(b objstore.Bucket) objstore.Bucket {
	return &oneAtATime{Bucket: b, turn: make(chan struct{}, 1)}
}

type oneAtATime struct {
	objstore.Bucket
	turn chan struct{}
}

func (o *oneAtATime) Create(ctx context.Context, name string, body []byte) error {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	return o.Bucket.Create(ctx, name, body)
}

// A backup that is told to end does, wherever it hangs.
func TestCancelledWhileTheBucketHangs(t *testing.T) {
	for _, name := range []string{"*/tables/*", "*/manifests/*"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := objstore.NewMemory("backups")
				hanging := faults.New(memory, faults.Rule{Name: name, Effect: faults.Wait, Delay: 24 * time.Hour})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				begun := time.Now()
				_, err := snapshotter.Full(ctx, hanging, someCuts(), config)
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Minute {
					t.Errorf("after %s: %v", time.Since(begun), err)
				}
				if ids := audit(t, memory, someCuts()); len(ids) > 0 {
					t.Errorf("published: %q", ids)
				}
			})
		})
	}
}
