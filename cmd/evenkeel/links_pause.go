package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/replicator"
)

// part is the part of a link that flags name.
type part struct {
	task, topic string
	partition   int32
}

func (p *part) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.task, "task", "", "only this task: data, topics, groups or acls")
	c.Flags().StringVar(&p.topic, "topic", "", "only this topic of the origin")
	c.Flags().Int32Var(&p.partition, "partition", replicator.All, "with --topic: only this partition")
}

func (p *part) check(c *cobra.Command) error {
	one := c.Flags().Changed("partition")
	switch {
	case p.task != "" && p.topic != "":
		return events.Errorf(events.KindInvalid, "want --task or --topic, not both")
	case one && p.topic == "":
		return events.Errorf(events.KindInvalid, "partition %d of which topic? Say with --topic", p.partition)
	case one && p.partition < 0:
		return events.Errorf(events.KindInvalid, "partition %d: want a number from 0", p.partition)
	}
	return nil
}

// what is the part as the API calls it.
func (p *part) what() string {
	switch {
	case p.task != "":
		return p.task
	case p.topic == "":
		return "link"
	case p.partition == replicator.All:
		return "topic/" + p.topic
	}
	return fmt.Sprintf("topic/%s/%d", p.topic, p.partition)
}

func (p *part) String() string {
	switch {
	case p.task != "":
		return "task " + p.task
	case p.topic == "":
		return "everything"
	case p.partition == replicator.All:
		return "topic " + p.topic
	}
	return fmt.Sprintf("topic %s, partition %d", p.topic, p.partition)
}

func (t *tool) linksPauseCommand() *cobra.Command {
	p := part{}
	c := &cobra.Command{
		Use:   "pause ORIGIN [--task TASK | --topic TOPIC [--partition N]]",
		Short: "Pause a link, one of its tasks, a topic or a partition",
		Long: `Pause a link, one of its tasks (data: the batches themselves; topics, with their configs; groups,
that is their offsets; acls), a topic or a partition. What is under way is finished. The pause holds for all
nodes of the region, also after a restart, until it is ended by "evenkeel links resume" with the same flags.

Meanwhile the mirror gets ever further behind: what expires at the source before the pause ends is lost to it.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := p.check(c); err != nil {
				return err
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			result, err := client.PauseLink(c.Context(), api.PauseLinkParams{Origin: args[0], What: p.what()})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), result, func(w io.Writer) error { return pausedTable(w, result, &p) })
		},
	}
	p.flags(c)
	return c
}

func pausedTable(w io.Writer, r *api.LinkPaused, p *part) error {
	verb := "is paused"
	if !r.Paused {
		verb = "is not paused any more"
	}
	if _, err := fmt.Fprintf(w, "Link from %s: %s %s\n", r.Origin, p, verb); err != nil {
		return err
	}
	var notes notes
	paused := 0
	for _, s := range r.Partitions {
		if s.State.Stopped() {
			notes.add(fmt.Sprintf("topic %s, partition %d", s.Topic, s.Partition),
				fmt.Sprintf("is stopped (%s) and needs a choice: evenkeel links resume %s --topic %s --from …", s.State, r.Origin, s.Topic))
			continue
		}
		paused++
	}
	if !r.Paused && paused > 0 {
		notes.add("", fmt.Sprintf("%s of its partitions are still paused, by another pause", term.Count(paused)))
	}
	return notes.write(w)
}

const resumeHelp = `End a pause, or let stopped partitions go on.

Without --from this ends what "evenkeel links pause" with the same flags began.

With --from it lets the stopped partitions of a topic go on. They have stopped because going on by
themselves could lose or mix up records; you choose what is given up. What the mirror has it keeps.

  --from retry     as if nothing had happened, because the cause is gone. Loses nothing: if the cause is
                   still there, the partition stops again.
  --from next      from the next record that would have been mirrored. For a foreign writer's records, which
                   stay in the mirror, and for records that differ. Loses nothing that the source still has
                   from there on; refused if the source does not have that offset any more.
  --from same      the source was made anew and has the same records again, at the same offsets ("evenkeel
                   restore kafka"). The last record that is mirrored is compared, and the mirror goes on behind
                   it. Loses nothing; refused while the source has less than the mirror.
  --from earliest  from the first record that the source still has. Records that expired before are lost to
                   the mirror; those that it has already and the source still has are there twice.
  --from latest    from the source's end. Everything before that is not in the mirror is lost to it.
  --from OFFSET    from this offset of the source. Loses what is skipped, doubles what is gone over again.

Except after retry and same, offsets from before the resumption have no translation any more: groups begin anew from
what is mirrored afterwards. With --dry-run nothing is changed: it prints what stopped each partition, the
missing range, and where it would go on.`

func (t *tool) linksResumeCommand() *cobra.Command {
	p := part{}
	var from string
	var dryRun bool
	c := &cobra.Command{
		Use:   "resume ORIGIN [--task TASK | --topic TOPIC [--partition N] [--from CHOICE [--dry-run]]]",
		Short: "End a pause, or let stopped partitions go on from where you choose",
		Long:  resumeHelp,
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := p.check(c); err != nil {
				return err
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			switch {
			case from != "" && p.topic == "":
				return events.Errorf(events.KindInvalid, "--from %s is for the stopped partitions of a topic: say with --topic which", from)
			case from == "" && dryRun:
				return events.Errorf(events.KindInvalid, "--dry-run shows what a choice would do: say with --from which")
			case from == "":
				result, err := client.UnpauseLink(c.Context(), api.PauseLinkParams{Origin: args[0], What: p.what()})
				if err != nil {
					return err
				}
				return t.out.Show(c.OutOrStdout(), result, func(w io.Writer) error { return pausedTable(w, result, &p) })
			}
			result, err := client.ResumeLink(c.Context(), api.ResumeLinkParams{
				Origin: args[0], Topic: p.topic, Partition: p.partition, From: from, DryRun: dryRun,
			})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), result, func(w io.Writer) error { return resumedTable(w, result) })
		},
	}
	p.flags(c)
	c.Flags().StringVar(&from, "from", "", "for stopped partitions: retry, next, same, earliest, latest, or an offset of the source")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "with --from: change nothing, show what would be done")
	return c
}

func resumedTable(w io.Writer, r *api.LinkResumed) error {
	if r.DryRun {
		return planTable(w, r)
	}
	var rows [][]string
	for _, p := range r.Partitions {
		rows = append(rows, []string{p.Topic, strconv.Itoa(int(p.Partition)), stopState(p), r.From})
	}
	if err := term.Table(w, []string{"TOPIC", "PARTITION", "WAS", "GOES ON FROM"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nWhether they do: evenkeel links show %s %s\n", r.Origin, r.Partitions[0].Topic)
	return err
}

func planTable(w io.Writer, r *api.LinkResumed) error {
	fmt.Fprintf(w, "Nothing was changed. With --from %s these would go on:\n\n", r.From)
	var rows [][]string
	var notes notes
	for _, p := range r.Partitions {
		missing, goesOn := "none", orUnknown(p.GoesOn)
		if p.Stop != nil && p.Stop.From >= 0 {
			missing = fmt.Sprintf("%d to %d", p.Stop.From, p.Stop.To)
		}
		has := "?"
		if p.SourceStart != nil && p.SourceEnd != nil {
			has = fmt.Sprintf("%d to %d", *p.SourceStart, *p.SourceEnd)
		}
		if r.From == "retry" {
			goesOn = "where it stopped"
		}
		rows = append(rows, []string{p.Topic, strconv.Itoa(int(p.Partition)), stopState(p), missing, orUnknown(p.Next), has, goesOn})
		notes.add(fmt.Sprintf("topic %s, partition %d", p.Topic, p.Partition), planNote(p))
	}
	header := []string{"TOPIC", "PARTITION", "STATE", "OFFSETS CONCERNED", "MIRRORED UP TO", "SOURCE HAS", "WOULD GO ON AT"}
	if err := term.Table(w, header, rows); err != nil {
		return err
	}
	return notes.write(w)
}

func stopState(p api.ResumedPartition) string {
	if p.Stop == nil {
		return "?"
	}
	return string(p.Stop.State)
}

// planNote says why a partition has stopped and what a choice would mean for it.
func planNote(p api.ResumedPartition) string {
	var parts []string
	if p.Stop != nil {
		parts = append(parts, p.Stop.Reason)
	}
	switch {
	case p.Refused != "":
		parts = append(parts, "this choice is refused: "+p.Refused)
	case p.Skipped != nil && *p.Skipped > 0:
		parts = append(parts, fmt.Sprintf("%s offsets are skipped", term.Count(*p.Skipped)))
	case p.Skipped != nil && *p.Skipped < 0:
		parts = append(parts, fmt.Sprintf("%s offsets are mirrored once more", term.Count(-*p.Skipped)))
	}
	return strings.Join(parts, "; ")
}
