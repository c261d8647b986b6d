package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

func (t *tool) restoreShardsCommand() *cobra.Command {
	var target targetFlags
	var all, dryRun, noWait, accept bool
	c := &cobra.Command{
		Use:   "shards (--shards 3,5 | --all) [--backup ID | --to-time T | --to-vector V] [--dry-run]",
		Short: "Have shards of the running region begin anew with a backup, and replay their logs",
		Long: `Have shards of the running region begin anew with a backup: the newest that is whole, or what a flag says.
This heals a state that is broken, or that has diverged though its records are the same ("evenkeel check",
layer fold). Before it is put in place it is compared with what other regions have attested of their logs, at
all offsets of which both know: a backup that was made of the wrong state is refused, and without a target the
newest one that agrees is taken. Of the region's own logs nobody else attests anything; if these are wrong, name
a backup from before.

The node that owns a shard fetches and proves the new state beside the old one, which serves meanwhile, and
then puts it in its place; the logs are replayed from there. Of a large shard (restore.instant_from_bytes) the
new state serves at once, out of the bucket, while it is brought here and proved. For a moment reads of the
shard are refused as not ready. Other shards go on, nodes are not restarted. The old state is kept until the
new one is proved and where the old one was. The next backup is a full one. With --dry-run it only says what the
shards would begin with, and how that compares with what other regions have attested.

A node that is killed meanwhile goes on when it is started. If another node takes the shard over before the
new state is in its place, the command has to be given again; given twice it does it once.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			req, err := target.request()
			if err != nil {
				return err
			}
			if all == (len(req.Shards) > 0) {
				return events.Errorf(events.KindInvalid, "say with --shards which shards begin anew, or with --all that all of the region do")
			}
			if req.Ago > 0 { // nodes begin at different moments
				req.Time, req.Ago = time.Now().Add(-req.Ago), 0
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			if dryRun {
				return t.planShards(c, client, req)
			}
			begun, err := client.RestoreShards(c.Context(), api.RestoreShardsParams{Request: req, AcceptDiverged: accept})
			if err != nil {
				return err
			}
			if !noWait {
				if err := followShards(c.Context(), c.ErrOrStderr(), client, begun); err != nil {
					return err
				}
			}
			return t.out.Show(c.OutOrStdout(), begun, func(w io.Writer) error { return restoringTable(w, begun) })
		},
	}
	target.add(c)
	_ = c.Flags().MarkHidden("streams")
	c.Flags().BoolVar(&all, "all", false, "all shards of the region")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what the shards would begin with")
	c.Flags().BoolVar(&accept, "accept-diverged", false, "also a state that is not the one that other regions have attested")
	c.Flags().BoolVar(&noWait, "no-wait", false, "only begin; evenkeel shards says how far it is")
	return c
}

// planShards says what shards would begin with: without a target not all that is archived, as
// that of other restores, but the newest backup.
func (t *tool) planShards(c *cobra.Command, client *api.Client, req timeline.Request) error {
	ctx, newest := c.Context(), req.IsNewest()
	if newest {
		backup, err := client.ShowBackup(ctx, api.ShowBackupParams{})
		if err != nil {
			return err
		}
		req.Backup = backup.Manifest.ID
	}
	plan, err := client.PlanRestore(ctx, api.PlanRestoreParams{Request: req})
	if err != nil {
		return err
	}
	return t.out.Show(c.OutOrStdout(), plan, func(w io.Writer) error {
		if err := restorePlanTable(w, plan); err != nil {
			return err
		}
		if newest {
			fmt.Fprint(w, "\nIf it is damaged, or is not what other regions have attested, the backup before it is taken.")
		}
		_, err := fmt.Fprintln(w, "\nNothing was begun. To begin: the same command without --dry-run")
		return err
	})
}

func restoringTable(w io.Writer, r *api.RestoringShards) error {
	var rows [][]string
	for _, s := range r.Shards {
		backup := s.Backup
		if backup == "" {
			backup = s.Target
		}
		rows = append(rows, []string{strconv.Itoa(int(s.Partition)), s.Node, backup, s.Lineage, s.Step})
	}
	return term.Table(w, []string{"SHARD", "NODE", "BEGINS WITH", "LINEAGE", "STEP"}, rows)
}

// restoreDone is the step of a shard whose restore is over.
const restoreDone = "done"

// followShards waits until all shards are proved and where they were, and tells how that
// goes on.
func followShards(ctx context.Context, progressTo io.Writer, client *api.Client, begun *api.RestoringShards) error {
	const interval = 500 * time.Millisecond
	told := map[int32]string{}
	for {
		s, err := client.Status(ctx)
		if err != nil && events.KindOf(err) != events.KindNotReady {
			return err
		}
		left := 0
		for i := range begun.Shards {
			shard := &begun.Shards[i]
			if shard.Step != restoreDone && err == nil {
				if err := followShard(s, shard); err != nil {
					return err
				}
			}
			if shard.Step != restoreDone {
				left++
			}
			if text := restoringText(&shard.ShardRestore); told[shard.Partition] != text {
				told[shard.Partition] = text
				fmt.Fprintf(progressTo, "shard %d: %s\n", shard.Partition, text)
			}
		}
		if left == 0 {
			return nil
		}
		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// followShard takes in what a status says of a shard.
func followShard(s *api.Status, shard *api.RestoringShard) error {
	for _, row := range s.Shards {
		switch {
		case row.Partition != shard.Partition:
			continue
		case row.Restoring != nil && row.Restoring.Lineage == shard.Lineage:
			shard.ShardRestore = *row.Restoring
			if shard.Step == api.RestoreFailed {
				return events.Errorf(events.KindFailed, "shard %d is as it was: %s", shard.Partition, shard.Error)
			}
		case row.Lineage == shard.Lineage:
			shard.Step, shard.Left, shard.Error = restoreDone, 0, ""
		case row.Lineage != "" && row.Node != shard.Node:
			return events.Errorf(events.KindNotReady, "shard %d has moved to node %s, which has a state of its own; give the command again if that has to be replaced too", shard.Partition, row.Node)
		}
	}
	return nil
}

// restoringText says how far the restore of a shard is.
func restoringText(r *api.ShardRestore) string {
	text := r.Step
	switch {
	case r.Step == api.RestoreFetching && r.Bytes > 0:
		text = fmt.Sprintf("%s, %s of %s", r.Step, term.Bytes(r.Fetched), term.Bytes(r.Bytes))
	case r.Step == api.RestoreReplaying:
		text = fmt.Sprintf("%s, %s records left", r.Step, term.Count(r.Left))
	}
	if r.Backup != "" {
		text += ", out of backup " + r.Backup
	}
	if r.Agrees != nil {
		text += ", which " + r.Agrees.String()
	}
	if r.Error != "" {
		text += ": " + r.Error
	}
	return text
}
