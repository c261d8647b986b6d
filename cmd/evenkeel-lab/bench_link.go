package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab/linkbench"
)

func benchLinkCommand() *cobra.Command {
	cfg := linkbench.Config{}
	var path string
	c := &cobra.Command{
		Use:   "bench-link",
		Short: "Measure links between two real Kafka clusters, beside MirrorMaker 2",
		Long: `Measure links between two real Kafka clusters on this machine: Evenkeel's, MirrorMaker 2 and a plain
consume-and-produce loop, one after the other on the same logs. Needs Linux, Java 17 and, once, Maven. Brokers
and processes are ended and the data is deleted when the command ends, by Ctrl-C too.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			for _, s := range cfg.Systems {
				if !slices.Contains(linkbench.Systems(), s) {
					return events.Errorf(events.KindInvalid, "system %q: want some of %v", s, linkbench.Systems())
				}
			}
			cfg.Out = c.ErrOrStderr()
			cfg.Save = func(r *linkbench.Report) error { return r.WriteFile(path) }
			report, err := linkbench.Run(c.Context(), cfg)
			if report == nil {
				return err
			}
			return errors.Join(report.WriteTables(c.OutOrStdout()), err)
		},
	}
	f := c.Flags()
	f.BoolVar(&cfg.Short, "short", false, "few and small cases, within four minutes")
	f.StringSliceVar(&cfg.Systems, "systems", linkbench.Systems(), "which systems to measure")
	f.Var(pattern{&cfg.Only}, "only", "only cases whose name matches this regular expression, e.g. ^lz4-1000B or latency")
	f.StringVar(&path, "json", "build/bench/link.json", "write the results to this file, after each measurement")
	f.StringVar(&cfg.Script, "kafka", "deploy/kafka/kafka.sh", "the script that starts brokers")
	f.StringVar(&cfg.Dir, "dir", "build/bench/kafka", "for brokers' jars and data, and the output of what is measured")
	f.IntVar(&cfg.BasePort, "port", 21092, "first port of the brokers; the next 200 are theirs too")
	f.Uint64Var(&cfg.Seed, "seed", 1, "of the records")
	return c
}

// mirrorCommand is one mirroring process of bench-link, which starts it.
func mirrorCommand() *cobra.Command {
	var cfg linkbench.MirrorConfig
	c := &cobra.Command{
		Use:    "mirror",
		Short:  "Mirror one topic between two clusters until stopped; a part of bench-link",
		Hidden: true,
		Args:   cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := linkbench.Mirror(c.Context(), cfg); err != nil {
				return fmt.Errorf("mirroring by %s: %w", cfg.System, err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.System, "system", linkbench.Evenkeel, "evenkeel or consume-produce")
	f.StringVar(&cfg.Source, "source", "", "HOST:PORT of the source's cluster")
	f.StringVar(&cfg.Dest, "dest", "", "HOST:PORT of the destination's cluster")
	f.StringVar(&cfg.Topic, "topic", "", "of the log")
	f.Int32Var(&cfg.Partitions, "partitions", 1, "of the log")
	f.StringVar(&cfg.Codec, "codec", "none", "that the log is compressed with")
	f.BoolVar(&cfg.Latency, "latency", false, "pass on single records at once, in place of making the most of a backlog")
	return c
}
