package main

import (
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

// freshFlags say how new the state must be that is read.
type freshFlags struct {
	atLeast   vectorFlag
	including string
	timeout   time.Duration
}

func (f *freshFlags) add(c *cobra.Command) {
	c.Flags().Var(&f.atLeast, "at-least", "wait for a state that covers this vector: an at_least or context that a command printed")
	c.Flags().StringVar(&f.including, "including", "", "wait for a state that includes the event at this position, as put prints it")
	c.Flags().DurationVar(&f.timeout, "timeout", api.DefaultWait, fmt.Sprintf("how long to wait, at most %s", api.MaxWait))
}

func (f *freshFlags) freshness() (api.Freshness, error) {
	cut := events.Vector{}
	if f.atLeast.vector != nil {
		cut = *f.atLeast.vector
	}
	if f.including != "" {
		p, err := events.ParsePosition(f.including)
		if err != nil {
			return api.Freshness{}, err
		}
		cut = cut.Join(events.Vector{p.Log: p.Offset + 1})
	}
	if f.timeout <= 0 {
		return api.Freshness{}, events.Errorf(events.KindInvalid, "--timeout: want more than 0, got %s", f.timeout)
	}
	return api.Freshness{AtLeast: cut, TimeoutSeconds: f.timeout.Seconds()}, nil
}

func (t *tool) getCommand() *cobra.Command {
	var fresh freshFlags
	var at string
	past := &backups{tool: t}
	c := &cobra.Command{
		Use:   "get STREAM KEY",
		Short: "Print a key's value as the node's region has it, or had it at some time, and a line end; -o json tells all of it",
		Long: `Print a key's value as the node's region has it, and a line end; -o json tells all of it.

With --at it is the value that the key had then: at a time, at a vector (of the stream's logs, as context and
restore plan print it), or where a backup was made. It is read out of the bucket, without anything being
restored: the newest backup at or before that point, and on top what the archive has of the key since. A time means,
of each log, everything before the first record that came after it. What is missing from the archive is an error, and
never an older value. Standard error says which vector it is, and what it was made from. With --config no
node is needed.`,
		Args: cli.Args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			is, err := past.isAt(at, &fresh)
			if err != nil {
				return err
			}
			if is {
				return t.getAt(c, past, at, args)
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			freshness, err := fresh.freshness()
			if err != nil {
				return err
			}
			e, err := client.Get(c.Context(), api.GetParams{Stream: events.Stream(args[0]), Key: []byte(args[1]), Freshness: freshness})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), e, func(w io.Writer) error { return printEntry(w, e) })
		},
	}
	fresh.add(c)
	addAt(c, past, &at)
	return c
}

func printEntry(w io.Writer, e *api.Entry) error {
	if len(e.Siblings) > 0 {
		return siblingsTable(w, e)
	}
	_, err := w.Write(append(e.Value, '\n'))
	return err
}

// siblingsTable shows the values of writers who did not know of each other, and
// how to settle it.
func siblingsTable(w io.Writer, e *api.Entry) error {
	var rows [][]string
	for _, s := range e.Siblings {
		rows = append(rows, []string{s.Position.String(), s.Clock.Time().Format(time.RFC3339Nano), term.Bytes(int64(len(s.Value))), shortened(s.Value)})
	}
	if err := term.Table(w, []string{"WRITTEN AT", "CLOCK", "SIZE", "VALUE"}, rows); err != nil {
		return err
	}
	key, ok := shellWord(e.Key)
	if !ok || strings.HasPrefix(key, "-") { // which would be taken for a flag
		key = "KEY"
	}
	_, err := fmt.Fprintf(w, "\n%d writers did not know of each other. To settle it:\nevenkeel resolve %s %s VALUE --context %s\n",
		len(e.Siblings), e.Stream, key, e.Context)
	if err == nil && key == "KEY" {
		_, err = fmt.Fprintf(w, "KEY are the bytes %x.\n", []byte(e.Key))
	}
	return err
}

// shortened is what of a value fits into a table.
func shortened(value []byte) string {
	const most = 80
	if len(value) <= most {
		return printable(value)
	}
	return printable(value[:most]) + "…"
}

func (t *tool) scanCommand() *cobra.Command {
	var prefix, after string
	var afterHex []byte
	var limit int
	var fresh freshFlags
	var at string
	past := &backups{tool: t}
	c := &cobra.Command{
		Use:   "scan STREAM",
		Short: "List the keys of a stream, in order, with size and origin of their values; with --at as they were",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			is, err := past.isAt(at, &fresh)
			if err != nil {
				return err
			}
			behind := append([]byte(after), afterHex...) // one of them
			if is {
				return t.scanAt(c, past, at, api.ScanAtParams{Stream: events.Stream(args[0]), Prefix: []byte(prefix), After: behind, Limit: limit})
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			freshness, err := fresh.freshness()
			if err != nil {
				return err
			}
			page, err := client.Scan(c.Context(), api.ScanParams{
				Stream: events.Stream(args[0]), Prefix: []byte(prefix), After: behind, Limit: limit, Freshness: freshness,
			})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), page, func(w io.Writer) error { return scanTable(w, page) })
		},
	}
	c.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with it")
	c.Flags().StringVar(&after, "after", "", "begin behind this key")
	c.Flags().BytesHexVar(&afterHex, "after-hex", nil, "begin behind the key of these bytes, in hexadecimal: one that is no plain text")
	c.MarkFlagsMutuallyExclusive("after", "after-hex")
	c.Flags().IntVar(&limit, "limit", api.DefaultScanEntries, fmt.Sprintf("at most so many keys, 1 to %d", api.MaxScanEntries))
	fresh.add(c)
	addAt(c, past, &at)
	return c
}

func scanTable(w io.Writer, page *api.ScanResult) error {
	var rows [][]string
	for _, e := range page.Entries {
		at := e.Position.String()
		if n := len(e.Siblings); n > 0 {
			at += fmt.Sprintf(" and %d more", n-1)
		}
		rows = append(rows, []string{printable(e.Key), term.Bytes(int64(len(e.Value))), e.Clock.Time().Format(time.RFC3339Nano), at})
	}
	if err := term.Table(w, []string{"KEY", "SIZE", "CLOCK", "WRITTEN AT"}, rows); err != nil {
		return err
	}
	if page.More {
		last := page.Entries[len(page.Entries)-1].Key
		behind := fmt.Sprintf("--after-hex %x", []byte(last))
		if word, ok := shellWord(last); ok {
			behind = "--after " + word
		}
		_, err := fmt.Fprintf(w, "There are more; go on with %s\n", behind)
		return err
	}
	return nil
}
