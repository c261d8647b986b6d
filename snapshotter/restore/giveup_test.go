package restore_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

// Whoever gives up between two readings is told that, not that the backup is
// damaged: one bad reading is no proof.
func TestGivingUpIsNotDamage(t *testing.T) {
	for _, effect := range []faults.Effect{faults.FlipBit, faults.TruncateBody, faults.TearBody, faults.FailBefore} {
		t.Run(effect.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket, m := some(t)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				faulty := faults.New(bucket, faults.Rule{Effect: effect})
				tgt := &target{}
				report, err := restore.Run(ctx, source(faulty), catalog.Chain{m}, tgt, nil)
				if !errors.Is(err, context.DeadlineExceeded) || events.KindOf(err) != events.KindFailed || report != nil {
					t.Errorf("%v, %v; want the end of the context, kind failed", report, err)
				}
				if len(tgt.finished) > 0 {
					t.Errorf("finished %v", tgt.finished)
				}
			})
		})
	}
}

// After each of some verified tables the caller gives up: no more is
// fetched than is under way beside it, and nothing is finished.
func TestCancelAfterEachTable(t *testing.T) {
	beside := int32(max(4, 2*runtime.GOMAXPROCS(0)) - 1)
	for after := int32(1); after < 4; after++ {
		var contents []string
		for n := range after + beside + 1 {
			contents = append(contents, fmt.Sprint("table ", n))
		}
		bucket, m := backup(t, contents)
		ctx, cancel := context.WithCancel(t.Context())
		var fetched atomic.Int32 // by several at a time
		tgt := &target{}
		report, err := restore.Run(ctx, source(bucket), catalog.Chain{m}, tgt, func(int64) {
			if fetched.Add(1) == after {
				cancel()
			}
		})
		cancel()
		if n := fetched.Load(); report != nil || !errors.Is(err, context.Canceled) || n < after || n > after+beside || len(tgt.finished) > 0 {
			t.Errorf("after %d tables: %v, %v, fetched %d, finished %v", after, report, err, n, tgt.finished)
		}
	}
}

// A table whose hash is right and whose size is not what the manifest says is
// refused: one of the two lies.
func TestWrongSizeIsRefused(t *testing.T) {
	for _, off := range []int64{-1, 1} {
		synctest.Test(t, func(t *testing.T) {
			bucket, m := some(t)
			m.Shards[1].Tables[0].Size += off
			report, err := restore.Run(t.Context(), source(bucket), catalog.Chain{m}, &target{}, nil)
			if report != nil || events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), m.Shards[1].Tables[0].Name) {
				t.Errorf("size off by %d: %v, %v", off, report, err)
			}
		})
	}
}
