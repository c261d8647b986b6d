package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func (t *tool) restoreKeyCommand() *cobra.Command {
	var p api.RestoreKeysParams
	var prefix, backup, at string
	c := &cobra.Command{
		Use:   "key STREAM (KEY | --prefix P) [--to-time T | --to-backup ID] [--yes]",
		Short: "Bring keys of the running region back to what they were; without --yes only say how",
		Long: `Bring a key, or all keys with a prefix, back to what they were: in the newest backup, the one with an id, or at
a time. Without --yes it says what they are, what they were and what would be written.

The region goes on meanwhile. What brings a key back is an event, written now into the region's log by a writer
who has seen what the key has; it wins over that, and reaches all regions as any other does. A key that did not
exist is deleted. What is already as it was is not written, so the command can be given again. By merge rule:

  lww         the value is put again
  multivalue  all values are replaced by the one that was, or by those that stood side by side
  fieldmap    fields are set and unset, counters counted by what they are away, elements added and removed.
              If a counter was not there, or a name was used in another way, the object is put anew: then what
              another region counts from its own counters comes back there, until it begins anew
  append      refused: events that were written stay

Values of secret streams (streams.NAME.secret) are never shown.`,
		Args: cli.Args(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, args []string) error {
			p.Stream = events.Stream(args[0])
			if hasPrefix := c.Flags().Changed("prefix"); hasPrefix == (len(args) == 2) {
				return events.Errorf(events.KindInvalid, "name a key, or give --prefix")
			}
			if len(args) == 2 {
				if p.Key = api.Bytes(args[1]); len(p.Key) == 0 {
					return events.Errorf(events.KindInvalid, "the key is empty")
				}
			}
			p.Prefix, p.Backup = api.Bytes(prefix), backup
			if at != "" {
				then, err := parseTime(at, time.Now())
				if err != nil {
					return fmt.Errorf("--to-time: %w", err)
				}
				p.Time = &then
			}
			return t.restoreKeys(c, p)
		},
	}
	c.Flags().StringVar(&prefix, "prefix", "", "all keys that begin with it")
	c.Flags().StringVar(&backup, "to-backup", "", "id of the backup (default the newest)")
	c.Flags().StringVar(&at, "to-time", "", "a time like 2026-11-26T10:00:00Z, or how long ago, like 2h or 7d")
	c.Flags().BoolVar(&p.Write, "yes", false, "write")
	c.MarkFlagsMutuallyExclusive("to-backup", "to-time")
	return c
}

// restoreKeys asks for page after page, all of them as one backup has them.
func (t *tool) restoreKeys(c *cobra.Command, p api.RestoreKeysParams) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	end := term.Waiting(c.ErrOrStderr(), "the restore")
	all, brokenOff := restorePages(c.Context(), client, p)
	end()
	if brokenOff != nil && (all == nil || !p.Write) {
		return brokenOff
	}
	if err := t.out.Show(c.OutOrStdout(), all, func(w io.Writer) error { return restoredKeysTable(w, all, p.Write) }); err != nil {
		return err
	}
	if brokenOff != nil { // also by an interruption, which is no reason to say nothing of what is in all regions
		return events.Errorf(events.KindPartial, "%s; of the keys behind %s some may have been brought back, too; the same command goes on", brokenOff, printable(all.Last))
	}
	return keysError(all)
}

// restorePages gives what it has also with an error; nil: nothing.
func restorePages(ctx context.Context, client *api.Client, p api.RestoreKeysParams) (*api.RestoredKeys, error) {
	var all *api.RestoredKeys
	for {
		page, err := client.RestoreKeys(ctx, p)
		if err != nil {
			return all, err
		}
		if all == nil {
			all = page
		} else {
			all.Keys, all.Same, all.More, all.Last = append(all.Keys, page.Keys...), all.Same+page.Same, page.More, page.Last
		}
		if !page.More {
			return all, nil
		}
		p.After = page.Last
		if p.PastTarget.Backup == "" { // the newest, or a time: of all pages the same
			p.PastTarget = api.PastTarget{Vector: page.Vector}
		}
	}
}

// keysError says that some keys are not what they were.
func keysError(all *api.RestoredKeys) error {
	failed, refused := 0, 0
	for _, k := range all.Keys {
		switch {
		case k.Refused:
			refused++
		case k.Error != "":
			failed++
		}
	}
	switch {
	case failed > 0:
		return events.Errorf(events.KindPartial, "%d keys could not be brought back, %d were refused; the others were", failed, refused)
	case refused > 0:
		return events.Errorf(events.KindRefused, "%d keys cannot be brought back", refused)
	}
	return nil
}

func restoredKeysTable(w io.Writer, all *api.RestoredKeys, wrote bool) error {
	fmt.Fprintf(w, "To %s; %s keys are what they were.\n\n", all.Target, term.Count(int64(all.Same)))
	var rows [][]string
	for _, k := range all.Keys {
		rows = append(rows, []string{printable(k.Key), describeValue(k.Now), describeValue(k.Then), whatIsDone(k, wrote)})
	}
	if err := term.Table(w, []string{"KEY", "NOW", "THEN", "EVENTS"}, rows); err != nil {
		return err
	}
	for _, k := range all.Keys {
		if k.Error != "" {
			fmt.Fprintf(w, "! %s: %s\n", printable(k.Key), k.Error)
		}
	}
	if !wrote {
		_, err := fmt.Fprintln(w, "\nNothing was written. To write: the same command with --yes")
		return err
	}
	return nil
}

// describeValue is what of a key's values fits into a table.
func describeValue(v *api.KeyValue) string {
	switch {
	case v == nil:
		return "-"
	case len(v.Values) == 0:
		return fmt.Sprintf("not shown, %s", term.Bytes(int64(v.Bytes)))
	}
	var values []string
	for _, value := range v.Values {
		values = append(values, shortened(value))
	}
	return strings.Join(values, " | ")
}

func whatIsDone(k api.RestoredKey, wrote bool) string {
	switch {
	case k.Refused:
		return "refused"
	case len(k.Events) == 0 && k.Error != "":
		return "not compared"
	case len(k.Events) == 0:
		return "none, it is what it was"
	case !wrote:
		return strings.Join(k.Events, ", ")
	case len(k.Written) == 0:
		return "not written"
	}
	var at []string
	for _, p := range k.Written {
		at = append(at, p.String())
	}
	return strings.Join(at, ", ")
}
