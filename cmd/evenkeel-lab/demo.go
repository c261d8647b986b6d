package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/lab/demo"
)

func demoCommand() *cobra.Command {
	var keep bool
	var kafka map[string]string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Load real events into a lab, check every region, lose one region's state and restore it",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return runDemo(c.Context(), c.OutOrStdout(), lab.Config{Kafka: external(kafka)}, keep)
		},
	}
	kafkaFlag(c, &kafka)
	c.Flags().BoolVar(&keep, "keep", false, "leave the lab running afterwards, until Ctrl-C")
	return c
}

func runDemo(ctx context.Context, w io.Writer, cfg lab.Config, keep bool) (err error) {
	dir, err := tempDir()
	if err != nil {
		return err
	}
	if !keep {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	begun := time.Now()
	cfg.Dir = dir
	l, err := lab.Up(ctx, cfg, logger(false))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	fmt.Fprintf(w, "Three regions are up after %s, in %s\n\n", time.Since(begun).Round(time.Millisecond), dir)
	if err := addressTable(w, l.Addresses()); err != nil {
		return err
	}
	fmt.Fprintln(w)
	d := &demo.Demo{Lab: l, Out: w, Dir: dir}
	if err := d.Run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nEverything checked out, in %s.\n", time.Since(begun).Round(10*time.Millisecond))
	if !keep {
		return nil
	}
	fmt.Fprintln(w, "The lab goes on:")
	if err := showLab(w, l, &cli.Output{Format: "table"}); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintf(w, "The lab's data stays in %s; to go on: evenkeel-lab up --dir %s\n", dir, dir)
	return nil
}
