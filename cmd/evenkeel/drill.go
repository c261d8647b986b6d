package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

func (t *tool) drillCommand() *cobra.Command {
	c := cli.Group("drill", "Rehearse restores, and see how that went", t.drillRestoreCommand(), t.drillListCommand(), t.drillShowCommand())
	c.Long = c.Short + `.

Nodes drill by themselves (backup.schedule.drill). All of this works without a node too, with --config.`
	return c
}

func (t *tool) drillRestoreCommand() *cobra.Command {
	b := &backups{tool: t}
	c := &cobra.Command{
		Use:   "restore",
		Short: "Restore the newest state and one of a random time to a scratch place, prove them, delete them again, and report",
		Long: `Restore all that is in the bucket, and the state of a random time, to a scratch place below the data
directory, prove them as every restore is proved, and delete them again. A time to which no restore is promised
(what was written then was never archived, or is older than backup.keep.segment) is the backup before it. What
failed in the drill before is restored again, until that succeeds or it is pruned. The report is kept in the
bucket. Exit code 6 if a restore failed.

It is made with the configured identity, or with those in --identity FILE and no other. The report names the keys that
have opened the backups, never an identity; so a drill with the recovery key alone, from where it is kept, proves that
this key opens them: evenkeel drill restore --config FILE --identity recovery.key. "drill show" and "backup status" tell
what each key has proved alone, and how long ago.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			end := term.Waiting(c.ErrOrStderr(), "the drill")
			d, err := ask(ctx, b, func(own pipeline.Backups) (*format.Drill, error) { return own.Drill(ctx) },
				func(client *api.Client) (*format.Drill, error) { return client.DrillRestore(ctx) })
			end()
			if err != nil {
				return err
			}
			if err := t.out.Show(c.OutOrStdout(), d, func(w io.Writer) error { return drillTable(w, d) }); err != nil {
				return err
			}
			return d.Err()
		},
	}
	b.flags(c)
	c.Flags().StringVar(&b.identity, "identity", "", "with --config: file with the identity to open backups with (default the configured one)")
	return c
}

func (t *tool) listDrills(c *cobra.Command, b *backups, p api.ListDrillsParams) (*api.DrillList, error) {
	ctx := c.Context()
	return ask(ctx, b, func(own pipeline.Backups) (*api.DrillList, error) { return own.Drills(ctx, p) },
		func(client *api.Client) (*api.DrillList, error) { return client.ListDrills(ctx, p) })
}

func (t *tool) drillListCommand() *cobra.Command {
	b := &backups{tool: t}
	p := api.ListDrillsParams{}
	c := &cobra.Command{
		Use:   "list",
		Short: "List restore drills, newest first",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := t.listDrills(c, b, p)
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), list, func(w io.Writer) error { return drillsTable(w, list) })
		},
	}
	b.flags(c)
	c.Flags().IntVar(&p.Most, "limit", 20, "how many at the most")
	return c
}

func (t *tool) drillShowCommand() *cobra.Command {
	b := &backups{tool: t}
	c := &cobra.Command{
		Use:   "show [ID]",
		Short: "Show the report of a restore drill (the newest unless an id is given)",
		Args:  cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := t.listDrills(c, b, api.ListDrillsParams{Drill: first(args)})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), list, func(w io.Writer) error {
				if len(list.Drills) == 0 {
					text := "There was no restore drill yet"
					if len(list.Unread) > 0 {
						text = "There is no report of a restore drill that can be read"
					}
					fmt.Fprintln(w, text+"; make one with: evenkeel drill restore")
				} else if err := drillTable(w, &list.Drills[0]); err != nil {
					return err
				}
				return unreadLines(w, list.Unread)
			})
		},
	}
	b.flags(c)
	return c
}

// unreadLines says why reports are not there.
func unreadLines(w io.Writer, unread []string) error {
	for _, why := range unread {
		if _, err := fmt.Fprintf(w, "\n! the report of a drill cannot be read, and is passed over: %s\n", why); err != nil {
			return err
		}
	}
	return nil
}

func drillsTable(w io.Writer, list *api.DrillList) error {
	var rows [][]string
	for _, d := range list.Drills {
		result, proved := "proved", "NOTHING"
		if d.Err() != nil {
			result = "FAILED"
		}
		if at := d.Proved(); !at.IsZero() {
			proved = at.Format(time.RFC3339)
		}
		var keys []string
		for _, t := range d.Trials {
			keys = append(keys, t.OpenedBy...)
		}
		slices.Sort(keys)
		rows = append(rows, []string{d.ID, d.Created.Format(time.RFC3339), fmt.Sprint(len(d.Trials)), result, proved, strings.Join(slices.Compact(keys), ", ")})
	}
	if err := term.Table(w, []string{"DRILL", "MADE", "RESTORES", "RESULT", "PROVED THE STATE OF", "OPENED WITH KEYS"}, rows); err != nil {
		return err
	}
	return unreadLines(w, list.Unread)
}

// proofsTable shows what is proved with each key alone; nothing if that is not known of any.
func proofsTable(w io.Writer, proofs []format.Proof) error {
	if len(proofs) == 0 {
		return nil
	}
	var rows [][]string
	for _, p := range proofs {
		rows = append(rows, []string{p.Key, p.StateTime.Format(time.RFC3339), ago(p.StateTime), p.Drill})
	}
	fmt.Fprintln(w)
	return term.Table(w, []string{"KEY", "HAS ALONE PROVED THE STATE OF", "AGE", "IN DRILL"}, rows)
}

func drillTable(w io.Writer, d *format.Drill) error {
	fmt.Fprintf(w, "Restore drill %s of %s, made at %s by %s\n\n", d.ID, d.Region, d.Created.Format(time.RFC3339), d.Owner)
	var rows [][]string
	for _, t := range d.Trials {
		result := fmt.Sprintf("%d logs proved", len(t.States))
		if t.Error != "" {
			result = "FAILED"
		}
		at := ""
		if !t.StateTime.IsZero() {
			at = t.StateTime.Format(time.RFC3339)
		}
		rows = append(rows, []string{t.Aim, t.Backup, at, term.Bytes(t.Bytes), fmt.Sprintf("%.2f s", t.TookSeconds), strings.Join(t.OpenedBy, ", "), result})
	}
	if err := term.Table(w, []string{"RESTORED", "BEGUN WITH", "STATE OF", "FETCHED", "TOOK", "OPENED WITH KEYS", "RESULT"}, rows); err != nil {
		return err
	}
	if err := proofsTable(w, d.Proofs); err != nil {
		return err
	}
	for _, t := range d.Trials {
		if t.Attested != "" {
			fmt.Fprintf(w, "\n%s: compared with what other regions have attested it %s\n", t.Aim, t.Attested)
		}
		if t.Error != "" {
			fmt.Fprintf(w, "\n! %s: %s\n", t.Aim, t.Error)
		}
	}
	return nil
}
