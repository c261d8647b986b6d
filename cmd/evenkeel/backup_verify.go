package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	verification "github.com/evenkeel/evenkeel/snapshotter/verify"
)

func (t *tool) backupVerifyCommand() *cobra.Command {
	b := &backups{tool: t}
	var p api.VerifyBackupsParams
	c := &cobra.Command{
		Use:   "verify [ID]",
		Short: "Check that backups are what they say (the newest unless an id or --all is given)",
		Long: `Check that backups are what they say: the newest, the one with an id, or all. The levels, each of
which includes those before:

  manifests  the manifest is whole, and every object is there in its size
  hashes     every object has its SHA-256; needs no key
  decode     every table can be opened and is one; needs a key
  restore    the backup is restored below the data directory, proved, and deleted again

With --all the archive is verified too: that the headers of its segments follow each other; their hashes; and
that every record can be decoded and the chains are what the headers say. Gaps are shown.

Exit code 6 if anything is damaged; its objects are named. Exit code 5 if there is nothing at all.`,
		Args: cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			p.Backup = first(args)
			report, err := ask(ctx, b, func(own pipeline.Backups) (*verification.Report, error) {
				var progress *term.Progress
				defer func() {
					if progress != nil {
						progress.End()
					}
				}()
				return own.Verify(ctx, p, verification.Progress{
					Planned: func(bytes int64) { progress = term.NewProgress(c.ErrOrStderr(), "bytes", bytes, 0) },
					Looked:  func(bytes int64) { progress.Add(bytes) },
				})
			}, func(client *api.Client) (*verification.Report, error) {
				defer term.Waiting(c.ErrOrStderr(), "the verification")()
				return client.VerifyBackups(ctx, p)
			})
			if err != nil {
				return err
			}
			if err := t.out.Show(c.OutOrStdout(), report, func(w io.Writer) error { return verifiedTable(w, report) }); err != nil {
				return err
			}
			return report.Err()
		},
	}
	b.flags(c)
	c.Flags().BoolVar(&p.All, "all", false, "all backups that exist, and the archive")
	c.Flags().StringVar(&p.Level, "level", pipeline.DefaultVerifyLevel, "how deep: "+strings.Join(verification.Levels, ", "))
	c.Flags().StringVar(&b.identity, "identity", "", "with --config: file with the identity to open tables with (default the configured one)")
	return c
}

func verifiedTable(w io.Writer, r *verification.Report) error {
	var rows [][]string
	for _, b := range r.Backups {
		result := "ok"
		if n := len(b.Damaged); n > 0 {
			result = fmt.Sprintf("%d DAMAGED", n)
		}
		rows = append(rows, []string{b.ID, strconv.Itoa(b.Objects), term.Bytes(b.Bytes), r.Level, result})
	}
	if err := term.Table(w, []string{"BACKUP", "OBJECTS", "SIZE", "VERIFIED TO", "RESULT"}, rows); err != nil {
		return err
	}
	damaged, err := verifiedArchive(w, r)
	if err != nil {
		return err
	}
	for _, b := range r.Backups {
		damaged = append(damaged, b.Damaged...)
	}
	for _, d := range damaged {
		fmt.Fprintf(w, "\n! %s: %s", d.Object, d.Error)
	}
	if len(r.Damaged()) > 0 {
		fmt.Fprintln(w)
	}
	return nil
}

// verifiedArchive shows what was found of the archive; nothing if there is none.
func verifiedArchive(w io.Writer, r *verification.Report) (damaged []inventory.Problem, err error) {
	if len(r.Archive) == 0 {
		return nil, nil
	}
	var rows [][]string
	for _, a := range r.Archive {
		result := "ok"
		if n := len(a.Damaged); n > 0 {
			result = fmt.Sprintf("%d DAMAGED", n)
		}
		rows = append(rows, []string{
			strconv.Itoa(int(a.Shard)), fmt.Sprintf("%d to %d", a.From, a.To), a.Oldest.Format(time.RFC3339), a.Newest.Format(time.RFC3339),
			term.Bytes(a.Bytes), strconv.Itoa(len(a.Gaps)), r.Level, result,
		})
		damaged = append(damaged, a.Damaged...)
	}
	fmt.Fprintln(w)
	err = term.Table(w, []string{"SHARD", "SEGMENTS", "FROM", "TO", "SIZE", "GAPS", "VERIFIED TO", "RESULT"}, rows)
	for _, a := range r.Archive {
		for _, object := range a.Void {
			fmt.Fprintf(w, "\n! %s was damaged, and is not needed: a segment behind it has again what it had", object)
		}
		for _, g := range a.Gaps {
			fmt.Fprintf(w, "\n! %s: offsets %d to %d are not archived: %s", g.Log, g.From, g.To-1, g.Reason)
		}
	}
	return damaged, err
}

func (t *tool) backupPruneCommand() *cobra.Command {
	b := &backups{tool: t}
	var yes, dryRun bool
	c := &cobra.Command{
		Use:   "prune [--yes]",
		Short: "Delete old backups by backup.keep and backup.keep_last; without --yes only say which",
		Long: `Delete backups that backup.keep and backup.keep_last do not keep, tables that no backup refers to, and
segments that no point in time of backup.keep.segment needs.
Without --yes it says what would go, and why the rest stays. What it does is planned and stored first:
if it is interrupted, the next prune finishes it. The newest backup that can be restored is never
deleted, nor is one that is being restored, nor one of which Object Lock holds an object: that stays
whole, with what it builds on, until nothing of it is held. Exit code 3 if the store does not let something go.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if yes && dryRun {
				return events.Errorf(events.KindInvalid, "--yes or --dry-run, not both")
			}
			ctx := c.Context()
			p := api.PruneBackupsParams{Run: yes}
			report, err := ask(ctx, b, func(own pipeline.Backups) (*prune.Report, error) { return own.Prune(ctx, p) },
				func(client *api.Client) (*prune.Report, error) { return client.PruneBackups(ctx, p) })
			if err != nil {
				return err
			}
			if err := t.out.Show(c.OutOrStdout(), report, func(w io.Writer) error { return pruneTable(w, report, b.again("evenkeel backup prune --yes")) }); err != nil {
				return err
			}
			if n := len(report.Left); n > 0 {
				return events.Errorf(events.KindPartial, "%d objects could not be deleted, e.g. %s", n, report.Left[0].Error)
			}
			return nil
		},
	}
	b.flags(c)
	c.Flags().BoolVar(&yes, "yes", false, "delete")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted (the default)")
	return c
}

// pruneSegmentsTable shows what becomes of the archive; nothing if there is none.
func pruneSegmentsTable(w io.Writer, segments []prune.Segments) error {
	var rows [][]string
	for _, s := range segments {
		rows = append(rows, []string{
			strconv.Itoa(int(s.Shard)), strconv.Itoa(s.Delete), term.Bytes(s.Bytes), strconv.Itoa(s.Keep), strconv.FormatInt(s.From, 10), s.Why,
		})
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return term.Table(w, []string{"SHARD", "SEGMENTS TO DELETE", "SIZE", "TO KEEP", "FROM NUMBER", "WHY"}, rows)
}

// heldShown is how many objects a table names that Object Lock holds.
const heldShown = 10

// pruneTable shows what became of backups, or would by the command that deletes.
func pruneTable(w io.Writer, r *prune.Report, deletes string) error {
	does := map[bool]string{false: "delete", true: "keep"}
	var rows [][]string
	for _, b := range r.Backups {
		rows = append(rows, []string{b.Backup, b.Kind, b.Created.Format(time.RFC3339), term.Bytes(b.Bytes), does[b.Keep], b.Why})
	}
	if err := term.Table(w, []string{"BACKUP", "KIND", "CREATED", "SIZE", "", "WHY"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, l := range r.Leftovers {
		rows = append(rows, []string{l.Backup, strconv.Itoa(l.Objects), term.Bytes(l.Bytes), does[l.Keep], l.Why})
	}
	for _, id := range r.Late {
		rows = append(rows, []string{id, "1", "", "delete", "its manifest came too late, or is left of an earlier prune"})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		if err := term.Table(w, []string{"LEFT OVER OF", "OBJECTS", "SIZE", "", "WHY"}, rows); err != nil {
			return err
		}
	}
	if err := pruneSegmentsTable(w, r.Segments); err != nil {
		return err
	}
	for _, h := range r.Held[:min(len(r.Held), heldShown)] {
		fmt.Fprintf(w, "\nheld by Object Lock %s: %s", h.Hold, h.Object)
	}
	if more := len(r.Held) - heldShown; more > 0 {
		fmt.Fprintf(w, "\nand %s more, all with -o json", term.Count(more))
	}
	for _, l := range r.Left {
		fmt.Fprintf(w, "\n! not deleted: %s: %s", l.Object, l.Error)
	}
	if r.DryRun {
		_, err := fmt.Fprintf(w, "\nNothing was deleted. To delete: %s\n", deletes)
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d objects were deleted.\n", len(r.Deleted))
	return err
}
