package backupbench

import (
	"context"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

// timed measures how long something takes, and the processor time of the whole
// process meanwhile, which is unknown (0) where there is no /proc.
func timed(do func() error) (took, cpu time.Duration, err error) {
	before, beforeErr := report.CPUTime(os.Getpid())
	begun := time.Now()
	err = do()
	took = time.Since(begun)
	after, afterErr := report.CPUTime(os.Getpid())
	if beforeErr == nil && afterErr == nil {
		cpu = after - before
	}
	return took, cpu, err
}

// uploads and downloads are how many objects a plain copy has under way: as many as backups
// and restores have.
const uploads = 2

func downloads() int { return 2 * min(fullShards, restore.Shards()) }

// inParallel does something with each object, with so many at a time.
func inParallel(ctx context.Context, most int, objects map[string][]byte, do func(ctx context.Context, name string, body []byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(most)
	for name, body := range objects {
		g.Go(func() error { return do(ctx, name, body) })
	}
	return g.Wait()
}
