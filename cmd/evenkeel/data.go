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

func (t *tool) putCommand() *cobra.Command {
	var typ, contentType string
	c := &cobra.Command{
		Use:   "put STREAM KEY [VALUE|-]",
		Short: "Write a value; without VALUE, or with -, it is read from standard input",
		Args:  cli.Args(cobra.RangeArgs(2, 3)),
		RunE: func(c *cobra.Command, args []string) error {
			value, err := valueArg(c.InOrStdin(), args[2:])
			if err != nil {
				return err
			}
			return t.put(c, api.PutParams{Stream: events.Stream(args[0]), Key: []byte(args[1]), Value: value, Type: typ, ContentType: contentType})
		},
	}
	c.Flags().StringVar(&typ, "type", "", "CloudEvents type of the event (default an opaque put)")
	c.Flags().StringVar(&contentType, "content-type", "", "media type of the value")
	return c
}

func (t *tool) deleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete STREAM KEY",
		Short: "Delete a key",
		Args:  cli.Args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return t.put(c, api.PutParams{Stream: events.Stream(args[0]), Key: []byte(args[1])})
		},
	}
}

func valueArg(stdin io.Reader, args []string) ([]byte, error) {
	if len(args) == 1 && args[0] != "-" {
		return []byte(args[0]), nil
	}
	value, err := io.ReadAll(io.LimitReader(stdin, events.MaxValueBytes+1))
	if value == nil {
		value = []byte{}
	}
	return value, err
}

func (t *tool) put(c *cobra.Command, p api.PutParams) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	res, err := client.Put(c.Context(), p)
	if err != nil {
		return err
	}
	return t.out.Show(c.OutOrStdout(), res, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, res.Position)
		return err
	})
}

func (t *tool) getCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get STREAM KEY",
		Short: "Print a key's value as the node's region has it, and a line end; -o json tells all of it",
		Args:  cli.Args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			e, err := client.Get(c.Context(), api.GetParams{Stream: events.Stream(args[0]), Key: []byte(args[1])})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), e, func(w io.Writer) error {
				_, err := w.Write(append(e.Value, '\n'))
				return err
			})
		},
	}
}

func (t *tool) scanCommand() *cobra.Command {
	var prefix, after string
	var limit int
	c := &cobra.Command{
		Use:   "scan STREAM",
		Short: "List the keys of a stream, in order, with size and origin of their values",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			page, err := client.Scan(c.Context(), api.ScanParams{
				Stream: events.Stream(args[0]), Prefix: []byte(prefix), After: []byte(after), Limit: limit,
			})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), page, func(w io.Writer) error { return scanTable(w, page) })
		},
	}
	c.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with it")
	c.Flags().StringVar(&after, "after", "", "begin behind this key")
	c.Flags().IntVar(&limit, "limit", api.DefaultScanEntries, fmt.Sprintf("at most so many keys, 1 to %d", api.MaxScanEntries))
	return c
}

func scanTable(w io.Writer, page *api.ScanResult) error {
	var rows [][]string
	for _, e := range page.Entries {
		rows = append(rows, []string{printable(e.Key), term.Bytes(int64(len(e.Value))), e.Clock.Time().Format(time.RFC3339Nano), e.Position.String()})
	}
	if err := term.Table(w, []string{"KEY", "SIZE", "CLOCK", "WRITTEN AT"}, rows); err != nil {
		return err
	}
	if page.More {
		last := page.Entries[len(page.Entries)-1].Key
		_, err := fmt.Fprintf(w, "There are more; go on with --after %q\n", printable(last))
		return err
	}
	return nil
}

// printable keeps control characters and broken UTF-8 out of the terminal.
func printable(b []byte) string {
	quoted := fmt.Sprintf("%q", b)
	if plain := string(b); quoted == `"`+plain+`"` {
		return plain
	}
	return quoted
}
