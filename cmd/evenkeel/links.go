package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/replicator"
)

func (t *tool) linksCommand() *cobra.Command {
	c := cli.Group("links", "Look after the links that mirror other regions' logs into the node's",
		t.linksListCommand(), t.linksShowCommand(), t.linksPauseCommand(), t.linksResumeCommand(), t.linksVerifyCommand())
	c.Long = c.Short + `.

ORIGIN is the region at the other end, as "evenkeel links list" names it; TOPIC the log's topic there.
What is not known is shown as ?.`
	return c
}

func (t *tool) linksListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the links, what their partitions are doing and how far they are behind",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			list, err := client.ListLinks(c.Context())
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), list, func(w io.Writer) error { return linksTable(w, list) })
		},
	}
}

func linksTable(w io.Writer, list *api.LinkList) error {
	var rows [][]string
	var notes notes
	for _, l := range list.Links {
		rows = append(rows, []string{
			l.Origin.String() + " → " + l.Destination.String(), linkState(l.Status), ago(l.Since), states(l.Partitions),
			orUnknown(l.Lag.Records), sizeOrUnknown(l.Lag.Bytes), secondsOrUnknown(l.Lag.Seconds), term.Bytes(l.Memory),
		})
		if !l.Running {
			notes.add("link from "+l.Origin.String(), l.Error)
		}
		for _, stop := range l.Stopped {
			notes.add("", stop)
		}
		for _, task := range l.Failing {
			notes.addTask(l.Origin, task)
		}
	}
	header := []string{"LINK", "STATE", "FOR", "PARTITIONS", "BEHIND", "BYTES", "SECONDS", "MEMORY"}
	if err := term.Table(w, header, rows); err != nil {
		return err
	}
	return notes.write(w)
}

func linkState(s replicator.Status) string {
	if s.Running {
		return "running"
	}
	return "interrupted"
}

// states counts partitions by state, the most first.
func states(counts map[replicator.State]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b replicator.State) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(string(a), string(b))
	})
	var texts []string
	for _, name := range names {
		texts = append(texts, fmt.Sprintf("%d %s", counts[name], name))
	}
	if len(texts) == 0 {
		return "?"
	}
	return strings.Join(texts, ", ")
}

func (t *tool) linksShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show ORIGIN [TOPIC [PARTITION]]",
		Short: "Show all there is to know about a link, a topic or a partition",
		Args:  cli.Args(cobra.RangeArgs(1, 3)),
		RunE: func(c *cobra.Command, args []string) error {
			target, err := parseTarget(args)
			if err != nil {
				return err
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			d, err := client.ShowLink(c.Context(), target)
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), d, func(w io.Writer) error { return linkTable(w, d, target) })
		},
	}
}

// parseTarget reads ORIGIN [TOPIC [PARTITION]].
func parseTarget(args []string) (target api.ShowLinkParams, err error) {
	target.Origin = args[0]
	if len(args) > 1 {
		target.Topic = args[1]
	}
	if len(args) > 2 {
		n, err := strconv.ParseUint(args[2], 10, 31)
		if err != nil {
			return target, events.Errorf(events.KindInvalid, "partition %q: want a number from 0", args[2])
		}
		num := int32(n)
		target.Partition = &num
	}
	return target, nil
}

func linkTable(w io.Writer, d *api.LinkDetails, target api.ShowLinkParams) error {
	fmt.Fprintf(w, "Link %s → %s, %s for %s, %s in memory\n\n", d.Origin, d.Destination, linkState(d.Status), ago(d.Since), term.Bytes(d.Memory))
	var notes notes
	if !d.Running {
		notes.add("link", d.Error)
	}
	if target.Topic == "" && len(d.Tasks) > 0 {
		var rows [][]string
		for _, task := range d.Tasks {
			last := "never"
			if !task.Last.IsZero() {
				last = ago(task.Last) + " ago"
			}
			rows = append(rows, []string{string(task.Task), task.State, last, strconv.Itoa(len(task.Problems))})
			notes.addTask(d.Origin, task)
		}
		if err := term.Table(w, []string{"TASK", "STATE", "LAST", "PROBLEMS"}, rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if err := partitionsTable(w, d.Partitions); err != nil {
		return err
	}
	for _, p := range d.Partitions {
		where := fmt.Sprintf("topic %s, partition %d", p.Topic, p.Partition)
		if p.Stop != nil {
			notes.add(where, p.Stop.Reason)
		} else {
			notes.add(where, p.Reason)
		}
	}
	if err := notes.write(w); err != nil {
		return err
	}
	if d.Runs != nil {
		return runsTable(w, d)
	}
	return nil
}

func partitionsTable(w io.Writer, partitions []replicator.PartitionStatus) error {
	var rows [][]string
	for _, p := range partitions {
		offsets := "?"
		switch {
		case p.SourceNext != nil && p.Identity:
			offsets = "the source's"
		case p.SourceNext != nil:
			offsets = "mapped"
		}
		rows = append(rows, []string{
			p.Topic, strconv.Itoa(int(p.Partition)), string(p.State), ago(p.Since), orUnknown(p.SourceNext), orUnknown(p.MirrorEnd), offsets,
			orUnknown(p.Lag.Records), sizeOrUnknown(p.Lag.Bytes), secondsOrUnknown(p.Lag.Seconds), agoOrUnknown(p.FetchAge), agoOrUnknown(p.AckAge),
		})
	}
	return term.Table(w, []string{
		"TOPIC", "PARTITION", "STATE", "FOR", "NEXT", "MIRROR END", "OFFSETS", "BEHIND", "BYTES", "SECONDS", "FETCHED", "WRITTEN",
	}, rows)
}

// shownRuns bounds how many runs of a map a table shows.
const shownRuns = 20

func runsTable(w io.Writer, d *api.LinkDetails) error {
	runs := *d.Runs
	if len(runs) == 0 {
		_, err := fmt.Fprintln(w, "\nOffsets in the mirror are the source's.")
		return err
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, r := range runs[max(0, len(runs)-shownRuns):] {
		rows = append(rows, []string{strconv.FormatInt(r.Source, 10), strconv.FormatInt(r.Dest, 10), term.Count(r.Source - r.Dest)})
	}
	if err := term.Table(w, []string{"FROM SOURCE", "AT MIRROR", "DIFFERENCE"}, rows); err != nil {
		return err
	}
	if len(runs) > shownRuns {
		_, err := fmt.Fprintf(w, "These are the last %d of %s runs; -o json shows all.\n", shownRuns, term.Count(len(runs)))
		return err
	}
	return nil
}

func orUnknown(n *int64) string {
	if n == nil {
		return "?"
	}
	return strconv.FormatInt(*n, 10)
}

func sizeOrUnknown(n *int64) string {
	if n == nil {
		return "?"
	}
	return term.Bytes(*n)
}

func secondsOrUnknown(s *float64) string {
	if s == nil {
		return "?"
	}
	return strconv.FormatFloat(*s, 'f', 1, 64)
}

func agoOrUnknown(s *float64) string {
	if s == nil {
		return "?"
	}
	return secondsOrUnknown(s) + " s ago"
}
