package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func (t *tool) historyCommand() *cobra.Command {
	var limit int
	var from, until string
	past := &backups{tool: t}
	c := &cobra.Command{
		Use:   "history STREAM KEY",
		Short: "List a key's events, of all regions, from the logs, mirrors and archive of the node's region",
		Long: `List a key's events, of all regions, from the logs and mirrors of the node's region: oldest first, by
the clocks by which they count and then by position. The partitions that the key is in are read from their
beginning, or from a time on. What the logs do not have any more comes out of the archive in the region's bucket;
with --config all of it does, and no node and no Kafka is needed.

What neither has is named. Exit code 3 if something is missing from the logs' beginning on, or of the time that was
asked for.`,
		Args: cli.Args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			p := api.HistoryParams{Stream: events.Stream(args[0]), Key: []byte(args[1])}
			for _, flag := range []struct {
				text string
				into **time.Time
			}{{from, &p.Since}, {until, &p.Until}} {
				if flag.text == "" {
					continue
				}
				at, err := parseTime(flag.text, time.Now())
				if err != nil {
					return err
				}
				*flag.into = &at
			}
			return t.history(c, past, p, limit)
		},
	}
	past.flags(c)
	c.Flags().StringVar(&past.identity, "identity", "", "with --config: file with the identity to open backups with (default the configured one)")
	c.Flags().IntVar(&limit, "limit", api.DefaultHistoryEvents, fmt.Sprintf("the newest so many events, 1 to %d", api.MaxHistoryEvents))
	c.Flags().StringVar(&from, "from", "", "leave out what was written before: a time like 2026-11-26T10:00:00Z, or how long ago, like 2h or 7d")
	c.Flags().StringVar(&until, "until", "", "leave out what was written later, as get --at does")
	return c
}

// parseTime reads a time, or how long before now it was.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := config.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, events.Errorf(events.KindInvalid, "%q is no time: want one like 2026-11-26T10:00:00Z, or how long ago, like 2h or 7d", text)
	}
	return at, nil
}

func (t *tool) history(c *cobra.Command, b *backups, p api.HistoryParams, limit int) error {
	ctx := c.Context()
	var progress *term.Progress
	said := int64(0)
	tell := func(done, total int64) {
		if progress == nil {
			if done == total {
				return // all of it at once
			}
			progress = term.NewProgress(c.ErrOrStderr(), "offsets", total, 0)
		}
		progress.Add(done - said)
		said = done
	}
	h, err := ask(ctx, b, func(own pipeline.Backups) (*api.History, error) { return own.History(ctx, p, limit, tell) },
		func(client *api.Client) (*api.History, error) { return client.History(ctx, p, limit, tell) })
	if progress != nil {
		progress.End()
	}
	if err != nil {
		return err
	}
	if err := t.out.Show(c.OutOrStdout(), h, func(w io.Writer) error { return historyTable(w, h) }); err != nil {
		return err
	}
	switch {
	case h.Lacks():
		return events.Errorf(events.KindPartial, "events of the key may be missing: of some offsets neither the logs nor the archive has anything")
	case len(h.Events) == 0:
		return events.Errorf(events.KindNotFound, "no event of key %q in stream %s", p.Key, p.Stream)
	}
	return nil
}

func historyTable(w io.Writer, h *api.History) error {
	var rows [][]string
	var notes notes
	for _, e := range h.Events {
		value := shortened(e.Value)
		if e.Parked != "" {
			value = "parked: " + e.Parked
		}
		rows = append(rows, []string{
			e.Effective.Time().Format(time.RFC3339Nano), e.Op, e.Type, e.Position.String(), e.Written.Format(time.RFC3339), term.Bytes(int64(len(e.Value))), value,
		})
	}
	if err := term.Table(w, []string{"CLOCK", "OP", "TYPE", "POSITION", "WRITTEN", "SIZE", "VALUE"}, rows); err != nil {
		return err
	}
	if h.Omitted > 0 {
		notes.add("", fmt.Sprintf("%s older events are left out (--limit)", term.Count(h.Omitted)))
	}
	for _, l := range h.Logs {
		if l.Start > 0 {
			notes.add(l.Log.String(), fmt.Sprintf("reaches back to offset %d only", l.Start))
		}
		for _, g := range l.Gaps {
			notes.add(l.Log.String(), fmt.Sprintf("offsets %d to %d are missing: %s", g.From, g.To-1, g.Why))
		}
	}
	return notes.write(w)
}
