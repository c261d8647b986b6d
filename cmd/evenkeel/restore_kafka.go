package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/refill"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

const restoreKafkaLong = `Write the archived records of the region's own logs back into its Kafka, which has lost them: topics
are made with the configured partitions, and must be empty. Keys, values, headers and timestamps stay as
they are, and so do offsets where all records from offset 0 on are archived; where they do not,
restore-kafka-report.json in the data directory maps them, and the region has to come back as a new
incarnation. Meanwhile topics delete nothing (retention.ms, retention.bytes and cleanup.policy are set,
and set back at the end). At the end every topic is read back and its hash chain compared with the archive.

No node of the region may run. A restore that is broken off goes on when the same command is given again.
Mirrors are left to the links, which make them anew from their origins; with --mirrors they are written as
well, for when an origin is lost too or does not have it all any more, and the links go on behind them.

Without a target, what other regions have mirrored of the region's own logs behind the archive (the last seconds
before the loss) follows: each log is continued out of the mirror that reaches farthest, at the same offsets, after
its last archived records and the other mirrors were compared with it. If they differ nothing is guessed: it says
where, and --without-peer leaves a region out, as also one that cannot be reached. --archive-only asks none.
Only topics of streams are written back; links bring others (links.include) from where they still are.

Consumer groups (backup.groups) get back the offsets that they had committed when the newest backup was made
that is no further, translated where offsets are mapped, and never behind the end of a topic. What they had
read since they read again. Groups with members, and offsets that are there, are left alone.

With --copy the archive and the backups are those of a copy, for when the bucket is lost as well.`

func (t *tool) restoreKafkaCommand() *cobra.Command {
	var target targetFlags
	var path, copyName, identity string
	var mirrors, dryRun, archiveOnly bool
	var without []string
	c := &cobra.Command{
		Use:   "kafka --config FILE [--to-time T | --to-vector V | --to-offset LOG@OFFSET]",
		Short: "Write the archived records of the region's logs, and the offsets of its consumer groups, back into its empty Kafka",
		Long:  restoreKafkaLong,
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if target.backup != "" || target.base != "" {
				return events.Errorf(events.KindInvalid, "backups hold no records: give a time, offsets or a vector")
			}
			req, err := target.request()
			if err != nil {
				return err
			}
			if path == "" {
				return events.Errorf(events.KindInvalid, "say with --config which region's Kafka to write back")
			}
			cfg, err := config.Load(path, os.Environ())
			if err != nil {
				return err
			}
			job := refill.Job{Config: cfg, Log: newLogger(cfg), Request: req, Mirrors: mirrors, ArchiveOnly: archiveOnly}
			for _, peer := range without {
				if _, known := cfg.Regions[events.Region(peer)]; !known {
					return events.Errorf(events.KindInvalid, "--without-peer %q: no such region in %s", peer, path)
				}
				job.Without = append(job.Without, events.Region(peer))
			}
			if job.Bucket, err = needBucket(c.Context(), cfg, copyName); err != nil {
				return err
			}
			if identity != "" {
				if job.Opener, err = config.ReadIdentity(identity); err != nil {
					return err
				}
			}
			if dryRun {
				plan, err := refill.Plan(c.Context(), job)
				if err != nil {
					return err
				}
				return t.out.Show(c.OutOrStdout(), plan, func(w io.Writer) error { return refillPlanTable(w, plan) })
			}
			var progress *term.Progress
			job.Planned = func(bytes int64) { progress = term.NewProgress(c.ErrOrStderr(), "bytes", bytes, 0) }
			job.Fetched = func(bytes int64) { progress.Add(bytes) }
			done, err := refill.Run(c.Context(), job)
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
	c.Flags().StringVar(&copyName, "copy", "", "read the copy with this name (backup.copies) instead of the bucket")
	c.Flags().StringVar(&identity, "identity", "", "file with the identity to open segments with (default the configured one)")
	c.Flags().BoolVar(&mirrors, "mirrors", false, "write the region's mirrors back, too")
	c.Flags().BoolVar(&archiveOnly, "archive-only", false, "leave what other regions have mirrored behind the archive")
	c.Flags().StringSliceVar(&without, "without-peer", nil, "do not ask this region for it; may be given again")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be written")
	return c
}

func refillPlanTable(w io.Writer, p *api.RefillPlan) error {
	fmt.Fprintf(w, "To %s of %s, which is the vector\n  %s\n\n", p.Target, p.Region, p.Vector)
	for _, topic := range p.Topics {
		fmt.Fprintf(w, "topic %s\n", topic)
	}
	fmt.Fprintf(w, "%s segments, %s, about %s records\n", term.Count(p.Segments), term.Bytes(p.Bytes), term.Count(p.Records))
	for _, tail := range p.Peers {
		fmt.Fprintf(w, "%s is archived up to offset %s, other regions have mirrored it up to %s\n", tail.Log, term.Count(tail.Archived), term.Count(tail.Mirrored))
	}
	if p.GroupsOf == "" {
		_, err := fmt.Fprintln(w, "\nNo backup that is no further has offsets of consumer groups.")
		return err
	}
	fmt.Fprintf(w, "\nOffsets of consumer groups, as backup %s has them:\n", p.GroupsOf)
	var rows [][]string
	for _, g := range p.Groups {
		rows = append(rows, []string{printable([]byte(g.Group)), term.Count(int64(g.Offsets))})
	}
	return term.Table(w, []string{"GROUP", "OFFSETS"}, rows)
}

func refilledTable(w io.Writer, r *api.Refilled) error {
	fmt.Fprintf(w, "%s of %s is in its topics, read back and proved.\n\n", r.Target, r.Region)
	var rows [][]string
	mapped := false
	for _, l := range r.Logs {
		offsets := "as they were"
		if !l.Same {
			offsets, mapped = fmt.Sprintf("MAPPED, in %d runs", len(l.Runs)), mapped || l.Log.Origin.Region == r.Region
		}
		rows = append(rows, []string{l.Log.String(), l.Topic, term.Count(l.Records), term.Count(l.Next), l.Chain.String(), offsets, refilledPeers(l)})
	}
	if err := term.Table(w, []string{"LOG", "TOPIC", "RECORDS", "UP TO OFFSET", "CHAIN", "OFFSETS", "OTHER REGIONS"}, rows); err != nil {
		return err
	}
	if mapped {
		fmt.Fprintf(w, "\n! The mapped logs have other offsets than they had: what other regions, states and backups know of them does not fit, and they cannot go on as they were.\n"+
			"  Let %s come back as a new incarnation: set regions.%s.incarnation one higher in every region's file, delete these topics here, and keep this data directory's\n"+
			"  state for reading; other regions keep what they have of the old logs.\n", r.Region, r.Region)
	}
	if err := refilledGroupsTable(w, r); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nin %.2f s; %s in the data directory says it all\n", r.Duration, refill.Report)
	return err
}

// refilledPeers says what other regions had of a log.
func refilledPeers(l api.RefilledLog) string {
	var list []string
	for _, p := range l.Peers {
		text := fmt.Sprintf("%s up to %s", p.Region, term.Count(p.Next))
		if p.Took > 0 {
			text = fmt.Sprintf("%s records from %s", term.Count(p.Took), p.Region)
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func refilledGroupsTable(w io.Writer, r *api.Refilled) error {
	if r.GroupsOf == "" {
		_, err := fmt.Fprintln(w, "\nNo backup that is no further has offsets of consumer groups.")
		return err
	}
	fmt.Fprintf(w, "\nOffsets of consumer groups, as backup %s of %s has them:\n", r.GroupsOf, r.GroupsTime.Format(time.RFC3339))
	var rows [][]string
	for _, g := range r.Groups {
		what := "given back"
		if g.Skipped != "" {
			what = g.Skipped
		}
		rows = append(rows, []string{printable([]byte(g.Group)), g.Topic, strconv.Itoa(int(g.Log.Partition)), term.Count(g.Offset), what})
	}
	return term.Table(w, []string{"GROUP", "TOPIC", "PARTITION", "OFFSET", "RESULT"}, rows)
}
