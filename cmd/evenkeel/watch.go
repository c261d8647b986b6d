package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

func (t *tool) watchCommand() *cobra.Command {
	var key, prefix, from string
	c := &cobra.Command{
		Use:   "watch STREAM",
		Short: "Print changes of keys as they come, until Ctrl-C; -o json prints an object a line",
		Long: `Print changes of keys as they come, of all regions, until Ctrl-C. What is printed of a key is how it is by
then: several changes may be seen as one.

With -o json each line is an object. Its context, where it has one, can be given to --from later, at the node of
any region: the watch then goes on without a gap, and some changes may be seen again. A node remembers what has
changed for a while only; from further back it says so (exit code 5), and one scans the stream and watches from
the context of the scan.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			p := api.WatchParams{Stream: events.Stream(args[0]), Key: []byte(key), Prefix: []byte(prefix)}
			if from != "now" {
				v, err := events.ParseVector(from)
				if err != nil {
					return err
				}
				p.From = &v
			}
			return t.watch(c, p)
		},
	}
	c.Flags().StringVar(&key, "key", "", "only this key")
	c.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with it")
	c.Flags().StringVar(&from, "from", "now", "a context that watch or scan -o json has printed, to go on from there")
	return c
}

func (t *tool) watch(c *cobra.Command, p api.WatchParams) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	show := changeLine
	if t.out.Format == "json" {
		show = changeJSON
	}
	for change, err := range client.Watch(c.Context(), p) {
		if err != nil {
			return err
		}
		if err := show(c.OutOrStdout(), change); err != nil {
			return err
		}
	}
	return nil
}

func changeJSON(w io.Writer, change api.Change) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(change)
}

// changeLine is a change in one line, for people.
func changeLine(w io.Writer, change api.Change) error {
	var err error
	switch e := change.Entry; {
	case change.Deleted:
		_, err = fmt.Fprintf(w, "%s  is deleted\n", printable(change.Key))
	case e != nil && len(e.Siblings) > 0:
		_, err = fmt.Fprintf(w, "%s  has %d values of writers who did not know of each other\n", printable(change.Key), len(e.Siblings))
	case e != nil:
		_, err = fmt.Fprintf(w, "%s  %s  %s  %s\n", printable(change.Key), e.Clock.Time().Format(time.RFC3339Nano), e.Position, shortened(e.Value))
	}
	return err
}
