package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

func (t *tool) restoreRunCommand() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use:   "run (--config FILE [--dir DIR] [--identity FILE] | --name NAME) [--backup ID]",
		Short: "Restore a backup into an empty directory and prove it",
		Long: `Restore a backup (the newest unless --backup names one) and prove it: every digest is computed
anew from what was restored and compared with the backup's.

With --config no node is needed: the state goes to the node's data directory (or to --dir), which must
hold no state; start the node afterwards and it replays the rest from its logs.
With --name the node at --server restores into restores/NAME in its data directory, beside its state.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			restored, err := t.restore(c, f)
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), restored, func(w io.Writer) error { return restoredTable(w, restored) })
		},
	}
	configFlag(c, &f.path)
	c.Flags().StringVar(&f.backup, "backup", "", "id of the backup (default the newest)")
	c.Flags().StringVar(&f.dir, "dir", "", "with --config: directory to restore into (default the node's state)")
	c.Flags().StringVar(&f.name, "name", "", "have the running node restore beside its state, under this name")
	c.Flags().StringVar(&f.copy, "copy", "", "with --config: restore from the copy with this name (backup.copies) instead of the bucket")
	c.Flags().StringVar(&f.identity, "identity", "", "with --config: file with the identity to open the backup with, e.g. the recovery key's (default the configured one)")
	return c
}

// restoreFlags say what to restore to where.
type restoreFlags struct{ path, backup, dir, name, copy, identity string }

func (t *tool) restore(c *cobra.Command, f restoreFlags) (*api.Restored, error) {
	if f.name != "" {
		if f.identity != "" {
			return nil, events.Errorf(events.KindInvalid, "--identity needs --config: a node uses the identity that it is configured with")
		}
		client, err := t.client()
		if err != nil {
			return nil, err
		}
		return client.Restore(c.Context(), api.RestoreParams{Backup: f.backup, Name: f.name})
	}
	if f.path == "" {
		return nil, events.Errorf(events.KindInvalid, "say with --config which node's state to restore, or with --name to have a running node do it")
	}
	cfg, err := config.Load(f.path, os.Environ())
	if err != nil {
		return nil, err
	}
	return restoreOffline(c.Context(), c.ErrOrStderr(), cfg, f)
}

func restoreOffline(ctx context.Context, progressTo io.Writer, cfg *config.Config, f restoreFlags) (*api.Restored, error) {
	bucket, err := needBucket(ctx, cfg, f.copy)
	if err != nil {
		return nil, err
	}
	var opener *seal.Opener
	if f.identity != "" {
		if opener, err = config.ReadIdentity(f.identity); err != nil {
			return nil, err
		}
	}
	dir := f.dir
	if dir == "" {
		dir = pipeline.StateDir(cfg)
	}
	var progress *term.Progress
	report, err := pipeline.Restore(ctx, pipeline.RestoreJob{
		Config: cfg, Bucket: bucket, Opener: opener, Log: newLogger(cfg), Backup: f.backup, Dir: dir,
		Planned: func(bytes int64) { progress = term.NewProgress(progressTo, "bytes", bytes, 0) },
		Fetched: func(bytes int64) { progress.Add(bytes) },
	})
	if progress != nil {
		progress.End()
	}
	if err != nil {
		return nil, err
	}
	restored := pipeline.ToRestored(report, dir)
	return &restored, nil
}

func restoredTable(w io.Writer, r *api.Restored) error {
	fmt.Fprintf(w, "Backup %s of %s is restored in %s and proved.\n\n", r.Backup, r.Created.Format(time.RFC3339), r.Dir)
	var rows [][]string
	for _, st := range r.States {
		rows = append(rows, []string{st.Log.String(), term.Count(st.Next), term.Count(st.Keys), st.Digest.String()})
	}
	if err := term.Table(w, []string{"LOG", "NEXT OFFSET", "SLICES", "DIGEST (RECOMPUTED)"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d tables, %s, in %.2f s\n", r.Tables, term.Bytes(r.Bytes), r.Duration)
	return err
}
