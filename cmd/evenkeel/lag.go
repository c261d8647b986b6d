package main

import (
	"cmp"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func (t *tool) lagCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "lag",
		Short: "Show how far mirrors and state are behind; what is not known is ?",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			lag, err := client.Lag(c.Context())
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), lag, func(w io.Writer) error { return lagTables(w, lag, all) })
		},
	}
	c.Flags().BoolVar(&all, "all", false, "list logs without lag too")
	return c
}

func lagTables(w io.Writer, lag *api.Lag, all bool) error {
	shown := func(n *int64) bool { return all || n == nil || *n > 0 }
	var mirrors, states [][]string
	var notes notes
	for _, r := range lag.Links {
		if !shown(r.Records) {
			continue
		}
		log := fmt.Sprintf("%s/%s/%d", r.Origin, r.Topic, r.Partition)
		mirrors = append(mirrors, []string{
			log, cmp.Or(string(r.State), "?"), orUnknown(r.End), orUnknown(r.Next), orUnknown(r.Records), sizeOrUnknown(r.Bytes),
			secondsOrUnknown(r.Seconds), agoOrUnknown(r.FetchAge), agoOrUnknown(r.AckAge),
		})
		notes.add("mirror of "+log, r.Error)
	}
	for _, r := range lag.Folds {
		isOpen := r.Open != nil && *r.Open > 0
		if !shown(r.Records) && !isOpen {
			continue
		}
		states = append(states, []string{r.Log.String(), orUnknown(r.End), orUnknown(r.Next), orUnknown(r.Records)})
		notes.add("state of "+r.Log.String(), r.Error)
		if isOpen {
			notes.add("state of "+r.Log.String(), fmt.Sprintf("%d more records cannot be read before a transaction of their producer ends", *r.Open))
		}
	}
	if err := lagTable(w, []string{"MIRROR OF", "STATE", "END", "NEXT", "BEHIND", "BYTES", "SECONDS", "FETCHED", "WRITTEN"}, mirrors); err != nil {
		return err
	}
	if err := lagTable(w, []string{"STATE OF", "END", "NEXT", "BEHIND"}, states); err != nil {
		return err
	}
	behind := lag.Behind()
	if behind == "unknown" {
		behind = "?"
	}
	if _, err := fmt.Fprintf(w, "BEHIND IN ALL: %s records\n", behind); err != nil {
		return err
	}
	return notes.write(w)
}

// lagTable is a table that is left out if it has no rows.
func lagTable(w io.Writer, header []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	if err := term.Table(w, header, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
