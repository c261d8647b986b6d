package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

const newestBackup = "newest"

// atHelp says what --at takes.
const atHelp = `a time like 2026-11-26T10:00:00Z, or how long ago, like 2h or 7d; a vector; the id of a backup, or "newest"`

// addAt adds the flags that read the past.
func addAt(c *cobra.Command, past *backups, at *string) {
	past.flags(c)
	c.Flags().StringVar(&past.identity, "identity", "", "with --config: file with the identity to open backups with (default the configured one)")
	c.Flags().StringVar(at, "at", "", atHelp)
}

// isAt says whether the past is to be read.
func (b *backups) isAt(at string, fresh *freshFlags) (bool, error) {
	switch {
	case at != "" && (fresh.atLeast.vector != nil || fresh.including != ""):
		return false, events.Errorf(events.KindInvalid, "--at reads the past, which does not get any newer: leave out --at-least and --including")
	case at == "" && (b.path != "" || b.copy != "" || b.identity != ""):
		return false, events.Errorf(events.KindInvalid, "--config, --copy and --identity need --at: only the past is read without a node")
	}
	return at != "", nil
}

// parseAt reads what --at says: the id of a backup, "newest", a vector, a time, or how
// long before now.
func parseAt(text string, now time.Time) (at api.PastTarget, err error) {
	switch {
	case text == newestBackup:
		return at, nil
	case format.ValidID(text):
		at.Backup = text
		return at, nil
	case strings.Contains(text, "@"):
		at.Vector, err = events.ParseVector(text)
		return at, err
	}
	t, err := parseTime(text, now)
	if err != nil {
		return at, events.Errorf(events.KindInvalid, "--at: %q is neither the id of a backup nor %q nor a vector, nor a time like 2026-11-26T10:00:00Z, nor how long ago, like 2h", text, newestBackup)
	}
	at.Time = &t
	return at, nil
}

// getAt prints a key as it was, and says on standard error of which point that is, and
// what it was made from.
func (t *tool) getAt(c *cobra.Command, b *backups, at string, args []string) error {
	ctx := c.Context()
	p := api.GetAtParams{Stream: events.Stream(args[0]), Key: []byte(args[1])}
	var err error
	if p.PastTarget, err = parseAt(at, time.Now()); err != nil {
		return err
	}
	e, err := ask(ctx, b, func(own pipeline.Backups) (*api.EntryAt, error) { return own.GetAt(ctx, p) },
		func(client *api.Client) (*api.EntryAt, error) { return client.GetAt(ctx, p) })
	if err != nil {
		return err
	}
	return t.out.Show(c.OutOrStdout(), e, func(w io.Writer) error {
		describePast(c.ErrOrStderr(), e.Context, &e.PastPoint)
		return printEntry(w, &e.Entry)
	})
}

// scanAt lists keys as they were.
func (t *tool) scanAt(c *cobra.Command, b *backups, at string, p api.ScanAtParams) error {
	ctx := c.Context()
	var err error
	if p.PastTarget, err = parseAt(at, time.Now()); err != nil {
		return err
	}
	page, err := ask(ctx, b, func(own pipeline.Backups) (*api.ScanAtResult, error) { return own.ScanAt(ctx, p) },
		func(client *api.Client) (*api.ScanAtResult, error) { return client.ScanAt(ctx, p) })
	if err != nil {
		return err
	}
	return t.out.Show(c.OutOrStdout(), page, func(w io.Writer) error {
		describePast(c.ErrOrStderr(), page.Context, &page.PastPoint)
		return scanTable(w, &page.ScanResult)
	})
}

// lacksShown is how many of the things that are not there are told in text.
const lacksShown = 3

func describePast(w io.Writer, vector events.Vector, p *api.PastPoint) {
	from := "segments alone"
	if p.Backup != "" {
		from = fmt.Sprintf("backup %s of %s", p.Backup, p.Created.Format(time.RFC3339))
	}
	if p.Segments > 0 && p.Backup != "" {
		from += " and the segments behind it"
	}
	fmt.Fprintf(w, "as it was at %s: the vector %s\nmade of %s (%s of %s records in %s segments; %s requests, %s)\n", p.Target, vector, from,
		term.Count(p.Found), term.Count(p.Records), term.Count(p.Segments), term.Count(p.Requests), term.Bytes(p.Bytes))
	for i, l := range p.Lacks {
		if i == lacksShown {
			fmt.Fprintf(w, "! and %d more like it (-o json)\n", len(p.Lacks)-i)
			break
		}
		fmt.Fprintf(w, "! %s\n", l)
	}
}
