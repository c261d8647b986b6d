package backupbench

import (
	"context"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
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

// copiers is how many objects a plain copy has under way: as many as backups and
// restores have.
const copiers = 2

// inParallel does something with each object.
func inParallel(ctx context.Context, objects map[string][]byte, do func(ctx context.Context, name string, body []byte) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copiers)
	for name, body := range objects {
		g.Go(func() error { return do(ctx, name, body) })
	}
	return g.Wait()
}
