package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/pipeline/lab/backupbench"
	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

func benchBackupCommand() *cobra.Command {
	cfg := backupbench.Config{}
	var path string
	c := &cobra.Command{
		Use:   "bench-backup",
		Short: "Measure backups and restores, beside plain copies",
		Long: `Measure backups and restores on a bucket of the embedded S3 server, beside what disk and server give to plain
copies. What is made is deleted when the command ends, by Ctrl-C too.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Out = c.ErrOrStderr()
			cfg.Save = func(r *backupbench.Report) error { return report.WriteFile(path, r) }
			r, err := backupbench.Run(c.Context(), cfg)
			if r == nil {
				return err
			}
			return errors.Join(r.WriteTables(c.OutOrStdout()), err)
		},
	}
	f := c.Flags()
	f.BoolVar(&cfg.Short, "short", false, "few and small cases, within four minutes")
	f.Var(pattern{&cfg.Only}, "only", "only sections whose name matches this regular expression")
	f.StringVar(&path, "json", "build/bench/backup.json", "write the results to this file, after each section")
	f.StringVar(&cfg.Dir, "dir", "build/bench/backup", "for buckets and states")
	f.Uint64Var(&cfg.Seed, "seed", 1, "of keys and values")
	return c
}
