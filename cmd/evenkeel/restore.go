package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

func (t *tool) restoreCommand() *cobra.Command {
	c := cli.Group("restore", "Bring a region back to where it was, from its bucket", t.restorePlanCommand(), t.restoreRunCommand(), t.restoreProofCommand(), t.restoreShardsCommand(), t.restoreKeyCommand(), t.restoreKafkaCommand())
	c.Long = c.Short + `.

What to bring back is all that is archived, unless a flag says otherwise: a backup as it is, a vector,
offsets of some logs, or a time. A time means, of each log, everything before the first record that came
after it; a record came at its timestamp, or when it was archived, whichever is earlier.`
	return c
}

func (t *tool) restorePlanCommand() *cobra.Command {
	b := &backups{tool: t}
	var target targetFlags
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say how a restore would be done: vector, objects, bytes, time; and what would not be there",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			req, err := target.request()
			if err != nil {
				return err
			}
			plan, err := ask(ctx, b, func(own pipeline.Backups) (*timeline.Plan, error) {
				return own.PlanRestore(ctx, api.PlanRestoreParams{Request: req})
			}, func(client *api.Client) (*timeline.Plan, error) {
				return client.PlanRestore(ctx, api.PlanRestoreParams{Request: req})
			})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), plan, func(w io.Writer) error { return restorePlanTable(w, plan) })
		},
	}
	b.flags(c)
	target.add(c)
	c.Flags().StringVar(&b.identity, "identity", "", "with --config: file with the identity to open segments with (default the configured one)")
	return c
}

func restorePlanTable(w io.Writer, p *timeline.Plan) error {
	fmt.Fprintf(w, "To %s of %s, which is the vector\n  %s\n\n", p.Target, p.Region, p.Vector)
	base := "nothing: all of it is archived"
	if p.Base != "" {
		base = fmt.Sprintf("backup %s, begun at %s", p.Base, p.Created.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "It begins with %s.\n", base)
	if p.Attested != "" {
		fmt.Fprintf(w, "Compared with what other regions have attested, that backup %s\n", p.Attested)
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, s := range p.Shards {
		segments := "none"
		if s.First > 0 {
			segments = fmt.Sprintf("%d to %d", s.First, s.Last)
		}
		rows = append(rows, []string{strconv.Itoa(int(s.Shard)), strconv.Itoa(s.Tables), term.Bytes(s.TableBytes), segments, term.Bytes(s.Bytes), term.Count(s.Records)})
	}
	if err := term.Table(w, []string{"SHARD", "TABLES", "SIZE", "SEGMENTS", "SIZE", "RECORDS"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s objects, %s, %s records; about %s at %s\n", term.Count(p.Objects), term.Bytes(p.Bytes), term.Count(p.Records),
		time.Duration(p.Seconds*float64(time.Second)).Round(time.Second), ratesText(p.Rates))
	for _, c := range p.Classes {
		if c.Class != "" {
			fmt.Fprintf(w, "of storage class %s: %s objects, %s\n", c.Class, term.Count(c.Objects), term.Bytes(c.Bytes))
		}
	}
	if err := p.NotArchived(); err != nil {
		fmt.Fprintf(w, "! %s\n", err)
	}
	return lacksLines(w, p.Lacks)
}

func ratesText(r timeline.Rates) string {
	if r.Drill != "" {
		return fmt.Sprintf("%s/s, as restore drill %s has measured it", term.Bytes(int64(r.BytesPerS)), r.Drill)
	}
	return fmt.Sprintf("%s/s and %s records/s, which is a careful guess", term.Bytes(int64(r.BytesPerS)), term.Count(int64(r.RecordsPerS)))
}

func lacksLines(w io.Writer, lacks []string) error {
	for _, l := range lacks {
		if _, err := fmt.Fprintf(w, "! %s\n", l); err != nil {
			return err
		}
	}
	return nil
}

func (t *tool) restoreRunCommand() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use:   "run (--config FILE [--dir DIR] [--identity FILE | --instant] | --name NAME) [--to-time T | --to-vector V | --to-offset LOG@OFFSET | --backup ID]",
		Short: "Restore into an empty directory and prove it",
		Long: `Restore into an empty directory and prove it: every digest is computed anew from what was restored
and compared with the backup's; where segments are replayed, the hash chain of the records and the
digests that the region itself had are compared wherever a segment ends. All of that is the region's own
word: a backup that was made while the region had diverged proves itself. So the state is compared with what
other regions have attested of their logs, too, as far as the region's Kafka still tells, before it is in its
place; where it does not, the report says so, and nothing is refused. Any difference: exit code 6. A state that
differs from what was attested is had all the same with --accept-diverged. restore-report.json in the directory
says what was done, proved and compared.

With --config no node is needed: the state goes to the node's data directory (or to --dir), which must
hold no state; start the node afterwards and it replays the rest from its logs. A restore that is broken
off, by whatever, goes on when the same command is given again.
With --instant nothing but the segments is fetched: what they hold is replayed on top of the backup before them, and
the node that is started afterwards serves at once, reading the tables where they are, brings them here and
proves them; then restore-report.json is there. Not with --name, --copy or --identity, nor of some shards or streams.
With --name the node at --server restores into restores/NAME in its data directory, beside its state.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if f.instant {
				return t.restoreInstant(c, f)
			}
			restored, err := t.restore(c, f)
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), restored, func(w io.Writer) error { return restoredTable(w, restored) })
		},
	}
	configFlag(c, &f.path)
	f.target.add(c)
	c.Flags().StringVar(&f.dir, "dir", "", "with --config: directory to restore into (default the node's state)")
	c.Flags().StringVar(&f.name, "name", "", "have the running node restore beside its state, under this name")
	c.Flags().BoolVar(&f.instant, "instant", false, "with --config: fetch no tables now, and have the node serve them out of the bucket meanwhile")
	c.Flags().StringVar(&f.copy, "copy", "", "with --config: restore from the copy with this name (backup.copies) instead of the bucket")
	c.Flags().StringVar(&f.identity, "identity", "", "with --config: file with the identity to open the backup with, e.g. the recovery key's (default the configured one)")
	c.Flags().BoolVar(&f.ahead, "ahead", false, "with --config: do not compare with where the logs in Kafka end: they are to come, or elsewhere")
	c.Flags().BoolVar(&f.anew, "anew", false, "forget what a restore into this directory has done that was broken off")
	c.Flags().BoolVar(&f.diverged, "accept-diverged", false, "also a state that is not the one that other regions have attested")
	return c
}

// restoreFlags say what to restore to where.
type restoreFlags struct {
	target                          targetFlags
	path, dir, name, copy, identity string
	anew, instant, ahead, diverged  bool
}

func (t *tool) restore(c *cobra.Command, f restoreFlags) (*api.Restored, error) {
	req, err := f.target.request()
	if err != nil {
		return nil, err
	}
	if f.name != "" {
		for _, flag := range []string{"config", "dir", "copy", "identity", "ahead"} {
			if c.Flags().Changed(flag) {
				return nil, events.Errorf(events.KindInvalid, "--%s does not go with --name: a node restores out of its own bucket, with the identity that it is configured with, beside its own state", flag)
			}
		}
		client, err := t.client()
		if err != nil {
			return nil, err
		}
		defer term.Waiting(c.ErrOrStderr(), "the restore")()
		return client.Restore(c.Context(), api.RestoreParams{Request: req, Name: f.name, Anew: f.anew, AcceptDiverged: f.diverged})
	}
	if f.path == "" {
		return nil, events.Errorf(events.KindInvalid, "say with --config which node's state to restore, or with --name to have a running node do it")
	}
	cfg, err := config.Load(f.path, os.Environ())
	if err != nil {
		return nil, err
	}
	return restoreOffline(c.Context(), c.ErrOrStderr(), cfg, f, req)
}

func restoreOffline(ctx context.Context, progressTo io.Writer, cfg *config.Config, f restoreFlags, req timeline.Request) (*api.Restored, error) {
	bucket, err := needBucket(ctx, cfg, f.copy)
	if err != nil {
		return nil, err
	}
	job := pipeline.RestoreJob{
		Config: cfg, Bucket: bucket, Log: newLogger(cfg), Request: req, Dir: f.dir, Keep: true, Anew: f.anew,
		Compare: true, AcceptDiverged: f.diverged,
	}
	if f.identity != "" {
		if job.Opener, err = config.ReadIdentity(f.identity); err != nil {
			return nil, err
		}
	}
	if job.Dir == "" {
		job.Dir = pipeline.StateDir(cfg)
	}
	job.Ends = logEnds(ctx, progressTo, cfg, f)
	var progress *term.Progress
	job.Planned = func(p *timeline.Plan) {
		fmt.Fprintf(progressTo, "to the vector %s\n", p.Vector)
		progress = term.NewProgress(progressTo, "bytes", p.Bytes, 0)
	}
	job.Fetched = func(bytes int64) { progress.Add(bytes) }
	restored, err := pipeline.Restore(ctx, job)
	if progress != nil {
		progress.End()
	}
	return restored, err
}

// logEnds is where the logs end that a node will read who has the state; nil: nobody knows,
// or they are others.
func logEnds(ctx context.Context, warnTo io.Writer, cfg *config.Config, f restoreFlags) events.Vector {
	if f.ahead || f.dir != "" && f.dir != pipeline.StateDir(cfg) {
		return nil
	}
	ends, err := pipeline.LogEnds(ctx, cfg, nil)
	if err != nil {
		fmt.Fprintf(warnTo, "not compared with where the logs end: %s\n", err)
	}
	return ends
}

func restoredTable(w io.Writer, r *api.Restored) error {
	from := "Nothing but segments"
	if r.Backup != "" {
		from = fmt.Sprintf("Backup %s of %s", r.Backup, r.Created.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "%s of %s is restored in %s and proved.\n", from, r.Region, r.Dir)
	if r.Replayed.Segments > 0 {
		fmt.Fprintf(w, "Replayed: %s records of %s segments; %s chains and %s digests that the region itself had are the same.\n",
			term.Count(r.Replayed.Records), term.Count(r.Replayed.Segments), term.Count(r.Replayed.Chains), term.Count(r.Replayed.Marks))
	}
	fmt.Fprintf(w, "Compared with what other regions have attested, it %s\n\n", r.AttestedText())
	if err := statesTable(w, r.States); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d tables, %s, in %.2f s\n", r.Tables, term.Bytes(r.Bytes), r.Duration)
	return lacksLines(w, r.Lacks)
}

func statesTable(w io.Writer, states []events.LogState) error {
	var rows [][]string
	for _, st := range states {
		rows = append(rows, []string{st.Log.String(), term.Count(st.Next), term.Count(st.Keys), st.Digest.String(), st.Chain.String()})
	}
	return term.Table(w, []string{"LOG", "NEXT OFFSET", "SLICES", "DIGEST (RECOMPUTED)", "CHAIN"}, rows)
}

func (t *tool) restoreProofCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "proof DIR|REPORT",
		Short: "Compute the digests of a restored state anew and compare them with its report",
		Long: `Compute the digests of a restored state anew, from what is at rest, and compare them with the report
beside it. The state must not be in use, and have gone no further since. Exit code 6 if anything differs, 7 if the
state is still being brought here from its backup and not proved yet.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			proof, err := pipeline.ProveRestored(vfs.Default, args[0])
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), proof, func(w io.Writer) error {
				fmt.Fprintf(w, "The state in %s is what the report says: %s of %s.\n\n", proof.Dir, proof.Target, proof.Region)
				return statesTable(w, proof.States)
			})
		},
	}
}
