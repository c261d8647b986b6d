package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

func (t *tool) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what a region and its nodes are and do, and what needs an eye",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			s, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			if err := t.out.Show(c.OutOrStdout(), s, func(w io.Writer) error { return statusTable(w, s) }); err != nil {
				return err
			}
			if !s.Ready {
				return events.Errorf(events.KindNotReady, "%s is not ready", s.Region)
			}
			return nil
		},
	}
}

func statusTable(w io.Writer, s *api.Status) error {
	ready := "no"
	if s.Ready {
		ready = "yes"
	}
	fmt.Fprintf(w, "Region %s, node %s, %s, up for %s\n\n", s.Region, s.Node, s.Software, ago(s.Started))
	err := term.Table(w, []string{"READY", "EVENTS", "SLICES", "PARKED", "DIGEST"}, [][]string{
		{ready, countOrUnknown(s.Events), countOrUnknown(s.Keys), countOrUnknown(s.Parked), digestOrUnknown(s.Digest)},
	})
	if err != nil {
		return err
	}
	if len(s.Nodes) > 1 {
		fmt.Fprintln(w)
		if err := nodesTable(w, s.Nodes); err != nil {
			return err
		}
	}
	if len(s.Links) > 0 {
		fmt.Fprintln(w)
		var rows [][]string
		for _, l := range s.Links {
			state := "running"
			if !l.Running {
				state = "interrupted"
			}
			rows = append(rows, []string{l.Origin.String() + " → " + l.Destination.String(), state, ago(l.Since), strconv.Itoa(len(l.Stopped))})
		}
		if err := term.Table(w, []string{"LINK", "STATE", "FOR", "STOPPED PARTITIONS"}, rows); err != nil {
			return err
		}
	}
	if err := backupPoints(w, s.Backup); err != nil {
		return err
	}
	if err := archiveTable(w, s.Archive); err != nil {
		return err
	}
	for _, p := range s.Problems {
		fmt.Fprintf(w, "\n! %s", p)
	}
	if len(s.Problems) > 0 {
		fmt.Fprintln(w)
	}
	return parkedTable(w, s)
}

func nodesTable(w io.Writer, nodes []api.NodeStatus) error {
	var rows [][]string
	for _, n := range nodes {
		state, since := "ready", ""
		switch {
		case n.Error != "":
			state = "does not answer"
		case !n.Ready:
			state = "not ready"
		}
		if n.Started != nil {
			since = ago(*n.Started)
		}
		rows = append(rows, []string{n.Node, n.Address, state, since, joinNumbers(n.Shards)})
	}
	return term.Table(w, []string{"NODE", "API", "STATE", "UP FOR", "SHARDS"}, rows)
}

func joinNumbers(numbers []int32) string {
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = strconv.Itoa(int(n))
	}
	return strings.Join(texts, " ")
}

func countOrUnknown(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return term.Count(*n)
}

func digestOrUnknown(d *events.Digest) string {
	if d == nil {
		return "unknown"
	}
	return d.String()
}

func parkedTable(w io.Writer, s *api.Status) error {
	if len(s.Examples) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, p := range s.Examples {
		rows = append(rows, []string{p.Position.String(), p.Reason})
	}
	return term.Table(w, []string{"PARKED RECORD", "REASON"}, rows)
}

func (t *tool) shardsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "shards",
		Short: "Show a region's shards, which nodes own them and how far each has folded every log",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			s, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			result := struct {
				Shards []api.ShardStatus `json:"shards"`
				Logs   []events.LogState `json:"logs"`
			}{s.Shards, s.Logs}
			return t.out.Show(c.OutOrStdout(), result, func(w io.Writer) error { return shardsTable(w, s) })
		},
	}
}

// inPlaceText says how far a shard is here that is restored while it serves.
func inPlaceText(at *api.InPlace) string {
	text := fmt.Sprintf("%d %% are here, %s are still in backup %s", 100*(at.Bytes-at.Left)/max(at.Bytes, 1), term.Bytes(at.Left), at.Backup)
	switch {
	case at.Error != "":
		text += "; they are not brought here at present: " + at.Error
	case at.Left == 0:
		text = fmt.Sprintf("all of it is here out of backup %s, and is being proved", at.Backup)
	}
	return text
}

func shardsTable(w io.Writer, s *api.Status) error {
	var rows [][]string
	var notes notes
	for _, sh := range s.Shards {
		rows = append(rows, []string{
			strconv.Itoa(int(sh.Partition)), cmp.Or(sh.Node, "none"), sh.Epoch.String(), sh.State, countOrUnknown(sh.Events), countOrUnknown(sh.Keys),
			countOrUnknown(sh.Parked), strconv.Itoa(len(sh.Blocked)), cmp.Or(sh.Load.Pace, "unknown"), digestOrUnknown(sh.Digest), sh.Lineage, sh.Began,
		})
		notes.add(fmt.Sprintf("shard %d", sh.Partition), sh.Error)
		notes.add(fmt.Sprintf("shard %d", sh.Partition), sh.Waits)
		if at := sh.InPlace; at != nil {
			notes.add(fmt.Sprintf("shard %d", sh.Partition), inPlaceText(at))
		}
		if at := sh.Restoring; at != nil {
			notes.add(fmt.Sprintf("shard %d", sh.Partition), fmt.Sprintf("restored to %s since %s: %s", at.Target, at.Began.Format(time.RFC3339), restoringText(at)))
		}
	}
	err := term.Table(w, []string{"SHARD", "NODE", "EPOCH", "STATE", "EVENTS", "SLICES", "PARKED", "BLOCKED LOGS", "PACE", "DIGEST", "LINEAGE", "BEGAN WITH"}, rows)
	if err != nil {
		return err
	}
	fmt.Fprintln(w)
	rows = nil
	for _, l := range s.Logs {
		rows = append(rows, []string{l.Log.String(), term.Count(l.Next), term.Count(l.Keys), l.Digest.String()})
	}
	if err := term.Table(w, []string{"LOG", "NEXT OFFSET", "SLICES", "DIGEST"}, rows); err != nil {
		return err
	}
	return notes.write(w)
}
