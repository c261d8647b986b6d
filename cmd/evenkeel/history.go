package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func (t *tool) historyCommand() *cobra.Command {
	var limit int
	var from string
	c := &cobra.Command{
		Use:   "history STREAM KEY",
		Short: "List a key's events, of all regions, from the logs and mirrors of the node's region",
		Long: `List a key's events, of all regions, from the logs and mirrors of the node's region: oldest first, by
the clocks by which they count and then by position. The partitions that the key is in are read from their
beginning, or from a time on.

Exit code 3 if the logs do not reach back to their beginning: older events have expired.`,
		Args: cli.Args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			p := api.HistoryParams{Stream: events.Stream(args[0]), Key: []byte(args[1])}
			if from != "" {
				since, err := parseTime(from, time.Now())
				if err != nil {
					return err
				}
				p.Since = &since
			}
			return t.history(c, p, limit)
		},
	}
	c.Flags().IntVar(&limit, "limit", api.DefaultHistoryEvents, fmt.Sprintf("the newest so many events, 1 to %d", api.MaxHistoryEvents))
	c.Flags().StringVar(&from, "from", "", "leave out what was written before: a time like 2026-11-26T10:00:00Z, or how long ago, like 2h")
	return c
}

// parseTime reads a time, or how long before now it was.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, events.Errorf(events.KindInvalid, "%q is no time: want one like 2026-11-26T10:00:00Z, or how long ago, like 2h", text)
	}
	return at, nil
}

func (t *tool) history(c *cobra.Command, p api.HistoryParams, limit int) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	var progress *term.Progress
	said := int64(0)
	h, err := client.History(c.Context(), p, limit, func(done, total int64) {
		if progress == nil {
			if done == total {
				return // all of it at once
			}
			progress = term.NewProgress(c.ErrOrStderr(), "offsets", total, 0)
		}
		progress.Add(done - said)
		said = done
	})
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
	case !h.Complete && h.Omitted == 0:
		return events.Errorf(events.KindPartial, "the logs do not reach back to their beginning: older events of the key may have expired")
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
	}
	return notes.write(w)
}
