package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
)

func (t *tool) backupShowCommand() *cobra.Command {
	b := &backups{tool: t}
	c := &cobra.Command{
		Use:   "show [ID]",
		Short: "Show what a backup holds: the states of all logs, objects, sizes, keys (the newest unless an id is given)",
		Args:  cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			p := api.ShowBackupParams{Backup: first(args)}
			d, err := ask(ctx, b, func(own pipeline.Backups) (*api.BackupDetails, error) { return own.Show(ctx, p) },
				func(client *api.Client) (*api.BackupDetails, error) { return client.ShowBackup(ctx, p) })
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), d, func(w io.Writer) error { return manifestTable(w, d.Manifest) })
		},
	}
	b.flags(c)
	return c
}

// first is the first argument, empty if there is none.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func manifestTable(w io.Writer, m *format.Manifest) error {
	kind := "a full backup"
	if m.Kind == format.Delta {
		kind = fmt.Sprintf("a delta on %s, of %d backups in all", m.Parent(), len(m.Path()))
	}
	fmt.Fprintf(w, "Backup %s of %s, made at %s by %s (format %d): %s\n%s of tables, %s in the bucket; keys: %s\n\n",
		m.ID, m.Region, m.Created.Format(time.RFC3339), m.Software, m.Format, kind, term.Bytes(m.Bytes()), term.Bytes(m.StoredBytes()),
		tableKeys(len(slices.Collect(m.Tables())), m.Keys()))
	if m.Groups != nil {
		fmt.Fprintf(w, "%s offsets of consumer groups go with it.\n\n", term.Count(m.Groups.Offsets))
	}
	var logs, objects [][]string
	for _, s := range m.Shards {
		for _, st := range s.States {
			logs = append(logs, []string{st.Log.String(), term.Count(st.Next), term.Count(st.Keys), st.Chain.String(), st.Digest.String()})
		}
		for _, tab := range s.Tables {
			stored, _ := tab.Stored()
			objects = append(objects, []string{strconv.Itoa(int(s.Partition)), tab.Name, term.Bytes(tab.Size), term.Bytes(stored)})
		}
	}
	if err := term.Table(w, []string{"LOG", "NEXT OFFSET", "SLICES", "CHAIN", "DIGEST"}, logs); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return term.Table(w, []string{"SHARD", "OBJECT", "TABLE", "STORED"}, objects)
}

func (t *tool) backupStatusCommand() *cobra.Command {
	b := &backups{tool: t}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how far back the loss of everything but the bucket would throw each stream, by reading the bucket",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			s, err := ask(ctx, b, func(own pipeline.Backups) (*api.BackupStatus, error) {
				if b.copy != "" {
					own.Copies = nil // they are copies of the bucket
				}
				return own.StatusAlone(ctx)
			}, func(client *api.Client) (*api.BackupStatus, error) { return client.BackupStatus(ctx) })
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), s, func(w io.Writer) error { return backupStatusTable(w, s) })
		},
	}
	b.flags(c)
	return c
}

func backupStatusTable(w io.Writer, s *api.BackupStatus) error {
	schedule := "on demand only"
	if s.Every > 0 {
		schedule = "every " + seconds(s.Every)
	}
	if s.DeltaEvery > 0 {
		schedule += ", deltas every " + seconds(s.DeltaEvery)
	}
	fmt.Fprintf(w, "%d backups, made %s; encryption: %s, keys: %s\n", s.Backups, schedule, s.Encryption, keysText(s.Keys))
	runLine(w, "full backup", s.Last)
	runLine(w, "delta", s.LastDelta)
	fmt.Fprintln(w, drillText(s))
	for _, r := range s.Recipients {
		fmt.Fprintln(w, recipientText(r))
	}
	if s.Sample != nil {
		fmt.Fprintln(w, sampleText(s.Sample))
	}
	fmt.Fprintln(w, pruneText(s))
	if len(s.Copies) > 0 {
		fmt.Fprintln(w)
		if err := copiesTable(w, s.Copies); err != nil {
			return err
		}
		for _, c := range s.Copies {
			fmt.Fprintf(w, "\n%s\n", copyDrillText(c))
			for _, r := range c.Recipients {
				fmt.Fprintln(w, recipientText(r))
			}
		}
	}
	fmt.Fprintln(w)
	if err := pointsTable(w, s); err != nil {
		return err
	}
	if err := archiveTable(w, s.Archive); err != nil {
		return err
	}
	for _, id := range s.Damaged {
		fmt.Fprintf(w, "\n! backup %s is damaged; see: evenkeel backup verify %s --level manifests", id, id)
	}
	var rotten []inventory.Problem
	if s.Sample != nil {
		rotten = s.Sample.Damaged
	}
	for _, d := range rotten {
		fmt.Fprintf(w, "\n! %s: %s", d.Object, d.Error)
	}
	for _, object := range s.Ahead {
		fmt.Fprintf(w, "\n! %s is dated in the future: a clock was wrong, or is", object)
	}
	for _, why := range s.DrillsUnread {
		fmt.Fprintf(w, "\n! the report of a drill cannot be read: %s", why)
	}
	if s.Error != "" {
		fmt.Fprintf(w, "\n! the bucket could not be read since: %s", s.Error)
	}
	if len(s.Damaged)+len(rotten)+len(s.Ahead)+len(s.DrillsUnread) > 0 || s.Error != "" {
		fmt.Fprintln(w)
	}
	return nil
}

// drillText says what restore drills have proved.
func drillText(s *api.BackupStatus) string {
	schedule := "on demand only"
	if s.DrillEvery > 0 {
		schedule = "every " + seconds(s.DrillEvery)
	}
	switch d := s.Drill; {
	case d == nil:
		return "restore drills " + schedule + "; there was NONE yet"
	case d.Error != "":
		return fmt.Sprintf("restore drills %s; the last, %s ago, FAILED: %s", schedule, ago(d.Created), d.Error)
	case d.Proved != nil:
		return fmt.Sprintf("restore drills %s; the last, %s ago, proved the state of %s", schedule, ago(d.Created), d.Proved.Format(time.RFC3339))
	}
	return "restore drills " + schedule + "; none of the last has proved anything"
}

// recipientText says what drills have proved with a key that the newest backup is sealed for.
func recipientText(r api.RecipientProof) string {
	if r.Proved == nil {
		return fmt.Sprintf("key %s alone has NEVER been proved to open backups; drill it with: evenkeel drill restore --config FILE --identity FILE", r.Key)
	}
	return fmt.Sprintf("key %s alone has proved the state of %s, %s ago (drill %s)", r.Key, r.Proved.Format(time.RFC3339), ago(*r.Proved), r.Drill)
}

// sampleText says how objects are looked at between drills.
func sampleText(s *api.SampleStatus) string {
	text := fmt.Sprintf("objects are looked at between drills, %s a day", term.Bytes(s.BytesPerDay))
	if s.Objects != nil && s.Never != nil {
		text += fmt.Sprintf("; %s of %s never were", term.Count(*s.Never), term.Count(*s.Objects))
	}
	if s.Oldest != nil && s.Newest != nil {
		text += fmt.Sprintf("; the others within %s, the last %s ago", ago(*s.Oldest), ago(*s.Newest))
	}
	if s.Listed != nil {
		text += fmt.Sprintf("; whether all are there, %s ago", ago(*s.Listed))
	}
	if n := len(s.Damaged); n > 0 {
		text += fmt.Sprintf("; %s ARE DAMAGED OR MISSING", term.Count(n))
	}
	if s.Error != "" {
		text += "; the last pass FAILED: " + s.Error
	}
	return text
}

// pruneText says how old backups are deleted.
func pruneText(s *api.BackupStatus) string {
	text := "old backups are pruned on demand only"
	if s.PruneEvery > 0 {
		text = "old backups are pruned every " + seconds(s.PruneEvery)
	}
	if s.Pruned != nil {
		text += fmt.Sprintf("; the newest plan is %s old", ago(*s.Pruned))
	}
	for _, run := range s.Prunes {
		of := "the node's last prune"
		if run.Copy != "" {
			of = "that of copy " + run.Copy
		}
		text += fmt.Sprintf("\n%s, %s ago, deleted %s objects", of, ago(run.Began), term.Count(run.Deleted))
		if run.Left > 0 {
			text += fmt.Sprintf(" and had to leave %s", term.Count(run.Left))
		}
		if run.Held > 0 {
			text += fmt.Sprintf("; Object Lock holds %s, with what belongs to them", term.Count(run.Held))
		}
		if run.Error != "" {
			text += ", then FAILED: " + run.Error
		}
	}
	return text
}

// runLine says how the node's last backup of a kind went, if there was one.
func runLine(w io.Writer, kind string, run *api.BackupRun) {
	if run == nil {
		return
	}
	result := fmt.Sprintf("%s, %s", run.Backup, term.Bytes(run.Bytes))
	if run.Error != "" {
		result = "FAILED: " + run.Error
	}
	fmt.Fprintf(w, "the node's last %s, %s ago, took %s: %s\n", kind, ago(run.Began), seconds(run.Duration), result)
}

// backupPoints is what a node's status says of backups; nothing if there are none.
func backupPoints(w io.Writer, s *api.BackupStatus) error {
	if s == nil {
		return nil
	}
	fmt.Fprintln(w)
	return pointsTable(w, s)
}

func pointsTable(w io.Writer, s *api.BackupStatus) error {
	var rows [][]string
	for _, p := range s.Points {
		row := []string{p.Stream.String(), "NONE", "", "everything"}
		if p.Backup != "" {
			row = []string{p.Stream.String(), p.Backup, p.Created.Format(time.RFC3339), ago(p.Created)}
		}
		rows = append(rows, row)
	}
	return term.Table(w, []string{"STREAM", "NEWEST RESTORABLE BACKUP", "CREATED", "AGE"}, rows)
}

// archiveTable shows what the continuous backup lacks; nothing if there is none.
func archiveTable(w io.Writer, points []api.ArchivePoint) error {
	if len(points) == 0 {
		return nil
	}
	var rows [][]string
	for _, p := range points {
		row := []string{p.Stream.String(), "unknown", "unknown", "none", p.Error}
		if p.Records != nil && p.Age != nil {
			row[1], row[2] = term.Count(*p.Records), seconds(*p.Age)
		}
		switch {
		case !p.Newest.IsZero():
			row[3] = ago(p.Newest) + " ago"
		case p.Error != "":
			row[3] = "unknown"
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	return term.Table(w, []string{"STREAM", "NOT ARCHIVED", "FOR", "NEWEST SEGMENT", ""}, rows)
}

// seconds writes a duration for people.
func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}
