package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func (t *tool) restoreKafkaCommand() *cobra.Command {
	var target targetFlags
	var path, identity string
	c := &cobra.Command{
		Use:   "kafka --config FILE [--to-time T | --to-vector V | --to-offset LOG@OFFSET]",
		Short: "Write the archived records of the region's own logs back into its empty Kafka",
		Long: `Write the archived records of the region's own logs back into its Kafka, which has lost them: topics
are made with the configured partitions, and must be empty. Keys, values, headers and timestamps stay as
they are, and so do offsets where all records from offset 0 on are archived; where they do not,
restore-kafka-report.json in the data directory maps them, and the region has to come back as a new
incarnation. Meanwhile topics delete nothing (retention.ms, retention.bytes and cleanup.policy are set,
and set back at the end). At the end every topic is read back and its hash chain compared with the archive.

No node of the region may run. A restore that is broken off goes on when the same command is given again.
Mirrors are not written: links make them anew from their origins. Offsets of consumer groups are not archived.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if target.backup != "" || target.base != "" {
				return events.Errorf(events.KindInvalid, "backups hold no records: give a time, offsets or a vector")
			}
			req, err := target.request()
			if err != nil {
				return err
			}
			cfg, err := config.Load(path, os.Environ())
			if err != nil {
				return err
			}
			job := pipeline.RefillJob{Config: cfg, Log: newLogger(cfg), Request: req}
			if job.Bucket, err = needBucket(c.Context(), cfg, ""); err != nil {
				return err
			}
			if identity != "" {
				if job.Opener, err = config.ReadIdentity(identity); err != nil {
					return err
				}
			}
			var progress *term.Progress
			job.Planned = func(bytes int64) { progress = term.NewProgress(c.ErrOrStderr(), "bytes", bytes, 0) }
			job.Fetched = func(bytes int64) { progress.Add(bytes) }
			done, err := pipeline.Refill(c.Context(), job)
			if progress != nil {
				progress.End()
			}
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), done, func(w io.Writer) error { return refilledTable(w, done) })
		},
	}
	configFlag(c, &path)
	target.add(c)
	c.Flags().StringVar(&identity, "identity", "", "file with the identity to open segments with (default the configured one)")
	return c
}

func refilledTable(w io.Writer, r *api.Refilled) error {
	fmt.Fprintf(w, "%s of %s is in its topics, read back and proved.\n\n", r.Target, r.Region)
	var rows [][]string
	mapped := false
	for _, l := range r.Logs {
		offsets := "as they were"
		if !l.Same {
			offsets, mapped = fmt.Sprintf("MAPPED, in %d runs", len(l.Runs)), true
		}
		rows = append(rows, []string{l.Log.String(), l.Topic, term.Count(l.Records), term.Count(l.Next), l.Chain.String(), offsets})
	}
	if err := term.Table(w, []string{"LOG", "TOPIC", "RECORDS", "UP TO OFFSET", "CHAIN", "OFFSETS"}, rows); err != nil {
		return err
	}
	if mapped {
		fmt.Fprintf(w, "\n! positions in mapped logs are others now: let %s come back as a new incarnation (regions.%s.incarnation)\n", r.Region, r.Region)
	}
	_, err := fmt.Fprintf(w, "\nin %.2f s; %s in the data directory says it all\n", r.Duration, pipeline.RefillReport)
	return err
}
