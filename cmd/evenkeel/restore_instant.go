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
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// restoredInPlace is a state whose tables are still in the bucket.
type restoredInPlace struct {
	Target   string           `json:"target"`
	Vector   events.Vector    `json:"vector"`
	Backup   string           `json:"backup"`
	Created  time.Time        `json:"created"`
	Replayed restore.Replayed `json:"replayed"`
	Lacks    []string         `json:"lacks"`
	Dir      string           `json:"dir"`
	Bytes    int64            `json:"bytes"` // that are to be brought here

	Attested   *api.Agreement `json:"attested,omitempty"`   // as in the report
	Unattested string         `json:"unattested,omitempty"` // as in the report
}

// restoreInstant refers to a backup from a new state directory, and replays what is
// archived behind it.
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
		fmt.Fprintf(w, "Backup %s of %s and %s records behind it, %s of %s, can be served from %s.\nCompared with what other regions have attested, it %s\nStart the node: it reads the %s that are still in the bucket where they are, brings them here and proves them;\nevenkeel shards says how far that is.\n",
			restored.Backup, restored.Created.Format(time.RFC3339), term.Count(restored.Replayed.Records), restored.Target, cfg.Region, restored.Dir, api.AttestedText(restored.Attested, restored.Unattested), term.Bytes(restored.Bytes))
		return lacksLines(w, restored.Lacks)
	})
}

func inPlace(ctx context.Context, progressTo io.Writer, cfg *config.Config, f restoreFlags) (*restoredInPlace, error) {
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
	var progress *term.Progress
	job := pipeline.RestoreJob{
		Config: cfg, Bucket: bucket, Log: newLogger(cfg), Request: req, Dir: r.Dir, Keep: true, Anew: f.anew, Ends: logEnds(ctx, progressTo, cfg, f),
		Compare: true, AcceptDiverged: f.diverged,
		Planned: func(p *timeline.Plan) {
			fmt.Fprintf(progressTo, "to the vector %s\n", p.Vector)
			var bytes int64
			for _, s := range p.Shards {
				bytes += s.Bytes
			}
			progress = term.NewProgress(progressTo, "bytes", bytes, 0)
		},
		Fetched: func(bytes int64) { progress.Add(bytes) },
	}
	done, err := pipeline.RestoreInPlace(ctx, job)
	if progress != nil {
		progress.End()
	}
	if err != nil {
		return nil, err
	}
	plan := done.Plan
	r.Target, r.Vector, r.Backup, r.Created, r.Lacks = plan.Target, plan.Vector, plan.Base, plan.Created, plan.Lacks
	r.Replayed, r.Bytes, r.Attested, r.Unattested = done.Replayed, done.Bytes, done.Attested, done.Unattested
	return r, nil
}
