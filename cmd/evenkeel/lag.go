package main

import (
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func (t *tool) lagCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "lag",
		Short: "Show how far mirrors and state are behind, in records; what can not be measured is unknown",
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
			return t.out.Show(c.OutOrStdout(), lag, func(w io.Writer) error { return lagTable(w, lag, all) })
		},
	}
	c.Flags().BoolVar(&all, "all", false, "list logs without lag too")
	return c
}

func lagTable(w io.Writer, lag *api.Lag, all bool) error {
	var rows [][]string
	add := func(what string, list []api.LagRow) {
		for _, r := range list {
			if all || r.Records == nil || *r.Records > 0 {
				rows = append(rows, []string{what, r.Log.String(), orUnknown(r.End), orUnknown(r.Next), orUnknown(r.Records), r.Error})
			}
		}
	}
	add("mirror", lag.Links)
	add("state", lag.Folds)
	rows = append(rows, []string{"all", "", "", "", lag.Behind(), ""})
	return term.Table(w, []string{"WHAT", "LOG", "END", "NEXT", "BEHIND", "WHY UNKNOWN"}, rows)
}

func orUnknown(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return strconv.FormatInt(*n, 10)
}
