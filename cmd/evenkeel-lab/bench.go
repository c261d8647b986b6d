package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/lab/bench"
	"github.com/evenkeel/evenkeel/pipeline/lab/report"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func benchCommand() *cobra.Command {
	var n int
	var path string
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast events go into a lab on this machine, beside bare producers",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			dir, err := tempDir()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			l, err := lab.Up(c.Context(), lab.Config{Dir: dir}, logger(false))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.Down()) }()
			rows, err := bench.Load(c.Context(), l, dir, n)
			if err != nil {
				return err
			}
			if path != "" {
				if err := report.WriteFile(path, rows); err != nil {
					return err
				}
			}
			return term.Table(c.OutOrStdout(), []string{"SYSTEM", "EVENTS", "VALUE", "SECONDS", "EVENTS/S", "CPU µS/EVENT"}, benchRows(rows))
		},
	}
	c.Flags().IntVar(&n, "events", 400_000, "how many events")
	c.Flags().StringVar(&path, "json", "", "also write the rows to this file")
	return c
}

func benchRows(rows []bench.Row) (cells [][]string) {
	for _, r := range rows {
		cells = append(cells, []string{
			r.System, term.Count(r.Events), term.Bytes(int64(r.ValueBytes)), fmt.Sprintf("%.2f", r.Seconds),
			term.Count(int(r.EventsPerS)), fmt.Sprintf("%.1f", r.CPUUsPerEvent),
		})
	}
	return cells
}
