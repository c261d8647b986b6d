package catalog_test

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/objstoretest"
)

// Of 32 publishers of one id exactly one wins, and its manifest is the one that is
// there: in memory and on a real S3 server. Answers get lost, and the store is asked to
// try again later; who meets what is its own knows it.
func TestRacingPublishers(t *testing.T) {
	for name, bucket := range map[string]objstore.Bucket{"memory": checked(t), "S3": objstoretest.S3(t)} {
		for round := range 3 {
			errs := make([]error, 32)
			var g errgroup.Group
			for i := range errs {
				g.Go(func() error {
					m := manifest(us, round)
					m.Software = fmt.Sprint("publisher ", i)
					faulty := faults.NewSeed(bucket, uint64(32*round+i),
						faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.FailAfter, Probability: 0.4},
						faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.Conflict, Probability: 0.4})
					for errs[i] = catalog.Publish(t.Context(), faulty, m); objstore.IsTemporary(errs[i]); {
						errs[i] = catalog.Publish(t.Context(), faulty, m)
					}
					return nil
				})
			}
			_ = g.Wait() // its goroutines return nil
			winner := -1
			for i, err := range errs {
				switch {
				case err == nil && winner >= 0:
					t.Errorf("%s: publishers %d and %d both won", name, winner, i)
				case err == nil:
					winner = i
				case !errors.Is(err, objstore.ErrExists):
					t.Errorf("%s: publisher %d: %v", name, i, err)
				}
			}
			m, err := catalog.Load(t.Context(), bucket, us, manifest(us, round).ID)
			if err != nil || m.Software != fmt.Sprint("publisher ", winner) {
				t.Errorf("%s: publisher %d won, and there is that of %v: %v", name, winner, m, err)
			}
		}
	}
}
