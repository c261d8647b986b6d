package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

const newestBackup = "newest"

// parseAt reads what --at says: the id of a backup, "newest", a time, or how long before
// now.
func parseAt(text string, now time.Time) (backup string, at *time.Time, err error) {
	if text == newestBackup {
		return "", nil, nil
	}
	if format.ValidID(text) {
		return text, nil, nil
	}
	t, err := parseTime(text, now)
	if err != nil {
		return "", nil, events.Errorf(events.KindInvalid, "--at: %q is neither the id of a backup nor %q nor a time like 2026-11-26T10:00:00Z, nor how long ago, like 2h", text, newestBackup)
	}
	return "", &t, nil
}

// getAt prints a key as a backup has it, and says on standard error which one that was.
func (t *tool) getAt(c *cobra.Command, b *backups, at string, args []string) error {
	ctx := c.Context()
	p := api.GetAtParams{Stream: events.Stream(args[0]), Key: []byte(args[1])}
	var err error
	if p.Backup, p.Time, err = parseAt(at, time.Now()); err != nil {
		return err
	}
	e, err := ask(ctx, b, func(own pipeline.Backups) (*api.EntryAt, error) { return own.GetAt(ctx, p) },
		func(client *api.Client) (*api.EntryAt, error) { return client.GetAt(ctx, p) })
	if err != nil {
		return err
	}
	return t.out.Show(c.OutOrStdout(), e, func(w io.Writer) error {
		fmt.Fprintf(c.ErrOrStderr(), "as backup %s of %s has it\n", e.Backup, e.Created.Format(time.RFC3339))
		return printEntry(w, &e.Entry)
	})
}
