package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/projections/derived"
)

func (t *tool) modelsCommand() *cobra.Command {
	c := cli.Group("models", "Look things up by what is no key, and look after the read models that allow it",
		t.modelsListCommand(), t.modelsShowCommand(), t.modelsQueryCommand(), t.modelsRebuildCommand())
	c.Long = c.Short + `.

The configuration says which models there are (models). What they have is made of the
state or of events, is in no backup and can be made anew at any time.`
	return c
}

func (t *tool) modelsListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the read models, what they are doing and what they have",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			list, err := client.ListModels(c.Context())
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), list, func(w io.Writer) error { return modelsTable(w, list.Models) })
		},
	}
}

func modelsTable(w io.Writer, models []api.ModelSummary) error {
	var rows [][]string
	for _, m := range models {
		made, streams := "views", "all"
		if m.OfEvents {
			made = "events"
		}
		if m.Streams != nil {
			streams = joinStreams(m.Streams)
		}
		rows = append(rows, []string{
			m.Name, strconv.Itoa(m.Version), made, streams, modelState(m), modelEntries(m), since(m),
		})
	}
	return term.Table(w, []string{"MODEL", "VERSION", "MADE OF", "STREAMS", "STATE", "ENTRIES", "SINCE"}, rows)
}

func joinStreams(streams []events.Stream) string {
	var names []string
	for _, s := range streams {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}

// modelState names the states that shards are in, the worst first, and how far
// building is.
func modelState(m api.ModelSummary) string {
	shards, texts := 0, []string{}
	for _, n := range m.States {
		shards += n
	}
	for _, state := range []derived.State{derived.Stopped, api.ModelAbsent, derived.Building, derived.Running} {
		n := m.States[state]
		if n == 0 {
			continue
		}
		text := string(state)
		if n < shards {
			text += fmt.Sprintf(" in %d of %d shards", n, shards)
		}
		if state == derived.Building && m.Total > 0 {
			text += fmt.Sprintf(", %d %%", 100*m.Done/m.Total)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

func modelEntries(m api.ModelSummary) string {
	switch {
	case m.Missing > 0:
		return "incomplete"
	case m.Stale > 0:
		return "stale"
	}
	return "current"
}

// since tells from when on a model has what it is made of.
func since(m api.ModelSummary) string {
	if m.Since == nil {
		return "the beginning"
	}
	return m.Since.Format(time.RFC3339)
}

func (t *tool) modelsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show MODEL",
		Short: "Show a read model in every shard",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			d, err := client.ShowModel(c.Context(), api.ShowModelParams{Name: args[0]})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), d, func(w io.Writer) error { return modelTable(w, d) })
		},
	}
}

func modelTable(w io.Writer, d *api.ModelDetails) error {
	if err := modelsTable(w, []api.ModelSummary{d.ModelSummary}); err != nil {
		return err
	}
	fmt.Fprintln(w)
	var rows [][]string
	var notes notes
	for _, s := range d.Shards {
		served, begun := "-", "-"
		if s.Served {
			served, begun = strconv.Itoa(s.ServedVersion), s.Begun.Format(time.RFC3339)
		}
		done := "-"
		if s.State == derived.Building {
			done = fmt.Sprintf("%s of %s", term.Count(s.Done), term.Count(s.Total))
		}
		rows = append(rows, []string{strconv.Itoa(int(s.Partition)), string(s.State), done, served, begun, s.Since.String()})
		where := fmt.Sprintf("shard %d", s.Partition)
		notes.add(where, s.Stopped)
		if s.Owed {
			notes.add(where, "logs are read again for it as soon as it is known how far they can be")
		}
		notes.add(where, s.Waiting)
		if s.Stale != "" {
			notes.add(where, fmt.Sprintf("entries are stale, they show %s: %s", s.Until, s.Stale))
		}
	}
	if err := term.Table(w, []string{"SHARD", "STATE", "DONE", "SERVED VERSION", "BEGUN", "NOTHING FROM BEFORE"}, rows); err != nil {
		return err
	}
	return notes.write(w)
}

func (t *tool) modelsRebuildCommand() *cobra.Command {
	var fromNow, less, noWait bool
	c := &cobra.Command{
		Use:   "rebuild MODEL",
		Short: "Make the entries of a read model anew; what it has is served meanwhile",
		Long: `Make the entries of a read model anew; what it has is served meanwhile.

A model of views is made of the state. A model of events is made by reading the logs again:
what Kafka has of them, and before that what is archived. If that is less than the model has
now it is refused.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			d, err := client.RebuildModel(c.Context(), api.RebuildModelParams{Name: args[0], FromNow: fromNow, AcceptLess: less})
			if err != nil {
				return err
			}
			if !noWait {
				if d, err = watchBuild(c.Context(), client, d, c.ErrOrStderr()); err != nil {
					return err
				}
			}
			if err := t.out.Show(c.OutOrStdout(), d, func(w io.Writer) error { return modelTable(w, d) }); err != nil {
				return err
			}
			if n := d.States[derived.Stopped]; n > 0 {
				return events.Errorf(events.KindFailed, "model %s has stopped in %d shards", d.Name, n)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&fromNow, "from-now", false, "of a model of events: give up what it has and begin anew with the next event, without reading logs")
	c.Flags().BoolVar(&less, "accept-less", false, "of a model of events: rebuild it even if the logs do not reach back as far as it does")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is done")
	return c
}

const buildPollInterval = 300 * time.Millisecond

// watchBuild shows how far a build is until it is over. It goes on in the node if
// nobody watches.
func watchBuild(ctx context.Context, client *api.Client, d *api.ModelDetails, w io.Writer) (*api.ModelDetails, error) {
	what := "slices"
	if d.OfEvents {
		what = "events"
	}
	progress := term.NewProgress(w, what, d.Total, 0)
	defer progress.End()
	tick := time.NewTicker(buildPollInterval)
	defer tick.Stop()
	for shown := int64(0); d.States[derived.Building] > 0; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		var err error
		if d, err = client.ShowModel(ctx, api.ShowModelParams{Name: d.Name}); err != nil {
			return nil, err
		}
		if d.Done > shown { // a shard that is done is not counted any more
			progress.Add(d.Done - shown)
			shown = d.Done
		}
	}
	return d, nil
}

func (t *tool) modelsQueryCommand() *cobra.Command {
	var prefix, after string
	var limit int
	c := &cobra.Command{
		Use:   "query MODEL",
		Short: "List the entries of a read model, in order, and what they come from",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			next, err := parseAfter(after)
			if err != nil {
				return err
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			page, err := client.QueryModel(c.Context(), api.QueryModelParams{Name: args[0], Prefix: []byte(prefix), After: next, Limit: limit})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), page, func(w io.Writer) error { return modelRowsTable(w, page) })
		},
	}
	c.Flags().StringVar(&prefix, "prefix", "", "only entries whose key begins with it")
	c.Flags().StringVar(&after, "after", "", "go on behind a page, as it says at its end")
	c.Flags().IntVar(&limit, "limit", api.DefaultScanEntries, fmt.Sprintf("at most so many entries, 1 to %d", api.MaxScanEntries))
	return c
}

// parseAfter reads what modelRowsTable says at the end of a page: hexadecimal.
func parseAfter(text string) (next []byte, err error) {
	if _, err := fmt.Sscanf(text, "%x", &next); err != nil && text != "" {
		return nil, events.Errorf(events.KindInvalid, "--after %q: want what the page before says at its end", text)
	}
	return next, nil
}

func modelRowsTable(w io.Writer, page *api.ModelRows) error {
	var rows [][]string
	for _, r := range page.Rows {
		of := r.Log
		if of == "" {
			of = fmt.Sprintf("%s %s", r.Stream, printable(r.Of))
		}
		rows = append(rows, []string{printable(r.Key), of, printable(r.Value)})
	}
	if err := term.Table(w, []string{"KEY", "OF", "VALUE"}, rows); err != nil {
		return err
	}
	if page.Next != nil {
		fmt.Fprintf(w, "There are more; go on with --after %x\n", []byte(page.Next))
	}
	var notes notes
	for _, text := range page.Stale {
		notes.add("entries are stale", text)
	}
	return notes.write(w)
}
