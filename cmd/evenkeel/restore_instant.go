package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

// restoredInPlace is a state whose tables are still in the bucket.
type restoredInPlace struct {
	Backup  string    `json:"backup"`
	Created time.Time `json:"created"`
	Dir     string    `json:"dir"`
	Bytes   int64     `json:"bytes"` // that are to be brought here
}

// restoreInstant refers to a backup from a new state directory.
func (t *tool) restoreInstant(c *cobra.Command, f restoreFlags) error {
	if f.path == "" || f.name != "" || f.copy != "" || f.identity != "" {
		return events.Errorf(events.KindInvalid, "--instant needs --config, and goes with neither --name nor --copy nor --identity: "+
			"the node that is started afterwards reads its own bucket, with the identity that it is configured with")
	}
	cfg, err := config.Load(f.path, os.Environ())
	if err != nil {
		return err
	}
	restored, err := inPlace(c.Context(), c.ErrOrStderr(), cfg, f)
	if err != nil {
		return err
	}
	return t.out.Show(c.OutOrStdout(), restored, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Backup %s of %s can be served from %s. Start the node: it reads the %s that are still in the bucket\nwhere they are, brings them here and proves them; evenkeel shards says how far that is.\n",
			restored.Backup, restored.Created.Format(time.RFC3339), restored.Dir, term.Bytes(restored.Bytes))
		return err
	})
}

func inPlace(ctx context.Context, warnTo io.Writer, cfg *config.Config, f restoreFlags) (*restoredInPlace, error) {
	bucket, err := needBucket(ctx, cfg, "")
	if err != nil {
		return nil, err
	}
	req, err := f.target.request()
	if err != nil {
		return nil, err
	}
	r := &restoredInPlace{Dir: f.dir}
	if r.Dir == "" {
		r.Dir = pipeline.StateDir(cfg)
	}
	m, err := pipeline.RestoreInPlace(ctx, pipeline.RestoreJob{
		Config: cfg, Bucket: bucket, Log: newLogger(cfg), Request: req, Dir: r.Dir, Ends: logEnds(ctx, warnTo, cfg, f),
	})
	if err != nil {
		return nil, err
	}
	r.Backup, r.Created, r.Bytes = m.ID, m.Created, m.Bytes()
	return r, nil
}
