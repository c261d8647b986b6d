package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func (t *tool) backupCopyCommand() *cobra.Command {
	b := &backups{tool: t}
	c := &cobra.Command{
		Use:   "copy [NAME]",
		Short: "Bring the copies of the backups up to date (all, or the one with a name)",
		Long: `Bring the copies of the backups that are configured (backup.copies) up to date: all, or the one with
a name. Nodes do so by themselves (backup.schedule.copy). What a copy has is passed over, so a copy that broke
off goes on where it was.`,
		Args: cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			p := api.CopyBackupsParams{Copy: first(args)}
			result, err := ask(ctx, b, func(own pipeline.Backups) (*api.CopyResult, error) {
				progress := term.NewProgress(c.ErrOrStderr(), "bytes", 0, 0)
				defer progress.End()
				return own.Copy(ctx, p, func(bytes int64) { progress.Add(bytes) })
			}, func(client *api.Client) (*api.CopyResult, error) {
				defer term.Waiting(c.ErrOrStderr(), "the copying")()
				return client.CopyBackups(ctx, p)
			})
			if err != nil {
				return err
			}
			if err := t.out.Show(c.OutOrStdout(), result, func(w io.Writer) error { return copiesTable(w, result.Copies) }); err != nil {
				return err
			}
			return result.Err()
		},
	}
	b.flags(c)
	return c
}

func copiesTable(w io.Writer, made []api.CopyStatus) error {
	var rows [][]string
	for _, c := range made {
		result, newest, archived, proved := "up to date", "unknown", "unknown", "NOTHING"
		if c.Error != "" {
			result = "FAILED"
		}
		if c.Newest != nil {
			newest = c.Newest.Format(time.RFC3339)
		} else if c.Checked != nil {
			newest = "NONE"
		}
		if c.Archived != nil {
			archived = c.Archived.Format(time.RFC3339)
		}
		switch {
		case c.Drill != nil && c.Drill.Proved != nil:
			proved = ago(*c.Drill.Proved)
		case c.Drill == nil && c.Checked == nil:
			proved = "unknown"
		}
		if c.Report == nil { // only looked at
			rows = append(rows, []string{c.Copy, "", "", "", "", "", newest, archived, proved, ""})
			continue
		}
		rows = append(rows, []string{
			c.Copy, strconv.Itoa(len(c.Report.Backups)), strconv.Itoa(c.Report.Segments), term.Bytes(c.Report.Bytes),
			strconv.Itoa(len(c.Report.Skipped)), seconds(c.Duration), newest, archived, proved, result,
		})
	}
	if err := term.Table(w, []string{"COPY", "BACKUPS COPIED", "SEGMENTS", "BYTES", "SKIPPED", "TOOK", "NEWEST RESTORABLE", "ARCHIVE UP TO", "PROVED AGE", "RESULT"}, rows); err != nil {
		return err
	}
	for _, c := range made {
		if c.Error != "" {
			fmt.Fprintf(w, "\n! %s: %s\n", c.Copy, c.Error)
		}
		if c.Drill != nil && c.Drill.Error != "" {
			fmt.Fprintf(w, "\n! %s: its last restore drill, %s ago, failed: %s\n", c.Copy, ago(c.Drill.Created), c.Drill.Error)
		}
		if c.DrillError != "" {
			fmt.Fprintf(w, "\n! %s: the last restore drill by schedule could not be made: %s\n", c.Copy, c.DrillError)
		}
		if c.Damaged > 0 {
			fmt.Fprintf(w, "\n! %s: objects of %d backups are missing or damaged; see: evenkeel backup verify --all --level manifests --config FILE --copy %s\n", c.Copy, c.Damaged, c.Copy)
		}
	}
	return nil
}

// copyDrillText says how a copy is drilled.
func copyDrillText(c api.CopyStatus) string {
	switch {
	case c.Undrilled != "":
		return fmt.Sprintf("copy %s is not drilled by schedule: %s", c.Copy, c.Undrilled)
	case c.DrillEvery == 0:
		return fmt.Sprintf("copy %s is drilled on demand only", c.Copy)
	}
	return fmt.Sprintf("copy %s is drilled every %s", c.Copy, seconds(c.DrillEvery))
}

func (t *tool) backupThawCommand() *cobra.Command {
	b := &backups{tool: t}
	p := api.ThawBackupParams{}
	c := &cobra.Command{
		Use:   "thaw [ID]",
		Short: "Have the archived objects of a backup made readable (the newest unless an id is given)",
		Long: `Have the objects of a backup made readable that the store keeps in a class which archives them; the
store takes hours for it. Exit code 7 until all are readable: ask again, and restore then.`,
		Args: cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			p.Backup = first(args)
			thawed, err := ask(ctx, b, func(own pipeline.Backups) (*api.Thawed, error) { return own.Thaw(ctx, p) },
				func(client *api.Client) (*api.Thawed, error) { return client.ThawBackup(ctx, p) })
			if err != nil {
				return err
			}
			if err := t.out.Show(c.OutOrStdout(), thawed, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%d of %d objects of backup %s can be read\n", thawed.Ready, thawed.Objects, thawed.Backup)
				return err
			}); err != nil {
				return err
			}
			return thawed.Err()
		},
	}
	b.flags(c)
	c.Flags().IntVar(&p.Days, "days", 3, "for how many days, from when it can be read")
	return c
}
