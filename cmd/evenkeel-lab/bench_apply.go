package main

import (
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab/applybench"
	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

func benchApplyCommand() *cobra.Command {
	cfg := applybench.Config{}
	var path string
	c := &cobra.Command{
		Use:   "bench-apply",
		Short: "Measure how fast events are folded into a shard, beside a bare Pebble loop",
		Long: `Measure how fast events are folded into a shard, beside a bare Pebble loop that does the same reads and
writes on the same keys. The two are processes of their own and take turns. Needs Linux and up to 50 GB of disk;
the data is deleted when the command ends, by Ctrl-C too.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Out = c.ErrOrStderr()
			cfg.Save = func(r *applybench.Report) error { return report.WriteFile(path, r) }
			r, err := applybench.Run(c.Context(), cfg)
			if r == nil {
				return err
			}
			return errors.Join(r.WriteTables(c.OutOrStdout()), err)
		},
	}
	f := c.Flags()
	f.BoolVar(&cfg.Short, "short", false, "few and small cases, within four minutes")
	f.Var(pattern{&cfg.Only}, "only", "only cases whose name matches this regular expression, e.g. ^lww-256B or catchup")
	f.StringVar(&path, "json", "build/bench/apply.json", "write the results to this file, after each measurement")
	f.StringVar(&cfg.Dir, "dir", "build/bench/apply", "for databases and profiles")
	f.BoolVar(&cfg.Profile, "profile", false, "keep each case's processor profile of the shard in --dir")
	f.Uint64Var(&cfg.Seed, "seed", 1, "of keys and values")
	return c
}

// benchApplySubjectCommand is one measured process of bench-apply, which starts it.
func benchApplySubjectCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "bench-apply-subject CONFIG",
		Short:  "Apply events as asked for on standard input; a part of bench-apply",
		Hidden: true,
		Args:   cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			var cfg applybench.SubjectConfig
			if err := json.Unmarshal([]byte(args[0]), &cfg); err != nil {
				return events.Errorf(events.KindInvalid, "CONFIG: %w", err)
			}
			return applybench.Subject(cfg, c.InOrStdin(), c.OutOrStdout())
		},
	}
}
