package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/replicator"
)

// comparison is what verifying one partition has found.
type comparison struct {
	Origin    events.Origin `json:"origin"`
	Topic     string        `json:"topic"`
	Partition int32         `json:"partition"`
	From      *int64        `json:"from"` // offsets of the mirror; nil: nothing could be looked at
	Next      *int64        `json:"next"`
	End       *int64        `json:"end"` // where the mirror ended when it began
	Records   int64         `json:"records"`
	Bytes     int64         `json:"bytes"`
	Expired   int64         `json:"expired"` // records that the source does not have any more

	Difference *replicator.Difference `json:"difference,omitempty"`
	Error      string                 `json:"error,omitempty"` // why the rest could not be compared
}

// result is one word for all of it.
func (p *comparison) result() string {
	switch {
	case p.Difference != nil:
		return "differs"
	case p.Error != "":
		return "?"
	case p.Expired > 0:
		return "same, but for what expired"
	}
	return "same"
}

func (t *tool) linksVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [ORIGIN [TOPIC [PARTITION]]]",
		Short: "Compare mirrors with their sources, record by record",
		Long: `Compare mirrors with their sources, record by record: key, value, headers, timestamp and place. All of
them, or those of an origin, a topic or a partition, up to where each mirror ends when it is begun. Both
regions are read in full. Each partition is compared up to its first difference.

Exit code 6 if a mirror differs; 3 if none does, but some records could not be compared: a partition that
cannot be read at present, or records that have expired at the source.`,
		Args: cli.Args(cobra.MaximumNArgs(3)),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			targets, err := verifyTargets(c.Context(), client, args)
			if err != nil {
				return err
			}
			done, err := verify(c.Context(), client, targets, c.ErrOrStderr())
			if err != nil {
				return err
			}
			result := struct {
				Partitions []comparison `json:"partitions"`
			}{done}
			if err := t.out.Show(c.OutOrStdout(), result, func(w io.Writer) error { return verifyTable(w, done) }); err != nil {
				return err
			}
			return verdict(done)
		},
	}
}

// target is a partition to be verified, and where its mirror ends.
type target struct {
	origin events.Origin
	replicator.PartitionStatus
}

func verifyTargets(ctx context.Context, client *api.Client, args []string) (targets []target, err error) {
	var links []api.ShowLinkParams
	if len(args) > 0 {
		one, err := parseTarget(args)
		if err != nil {
			return nil, err
		}
		links = append(links, one)
	} else {
		list, err := client.ListLinks(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range list.Links {
			links = append(links, api.ShowLinkParams{Origin: l.Origin.String()})
		}
	}
	for _, params := range links {
		d, err := client.ShowLink(ctx, params)
		if err != nil {
			return nil, err
		}
		if len(d.Partitions) == 0 {
			return nil, events.Errorf(events.KindNotReady, "the link from %s does not know its topics yet: %s", d.Origin, d.Error)
		}
		for _, p := range d.Partitions {
			targets = append(targets, target{d.Origin, p})
		}
	}
	if len(targets) == 0 {
		return nil, events.Errorf(events.KindNotFound, "the node at %s has no links", client.Server())
	}
	return targets, nil
}

// failuresMost is after how many failures in a row the rest of a link's partitions
// are not tried any more: each may take long, and it is the clusters that are away.
const failuresMost = 3

// verify compares the targets one after the other. What cannot be compared is in
// its row; only the end of the context ends it.
func verify(ctx context.Context, client *api.Client, targets []target, progressTo io.Writer) ([]comparison, error) {
	total := int64(0)
	for _, t := range targets {
		if t.MirrorEnd != nil {
			total += *t.MirrorEnd
		}
	}
	progress := term.NewProgress(progressTo, "offsets", total, 0)
	defer progress.End()
	done := []comparison{}
	failures := map[events.Origin]int{}
	for _, t := range targets {
		row := comparison{Origin: t.origin, Topic: t.Topic, Partition: t.Partition}
		if failures[t.origin] >= failuresMost {
			row.Error = fmt.Sprintf("not tried: %d others of the link could not be compared", failuresMost)
			done = append(done, row)
			continue
		}
		err := row.run(ctx, client, progress)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if failures[t.origin]++; err == nil {
			failures[t.origin] = 0
		} else {
			row.Error = err.Error()
		}
		done = append(done, row)
	}
	return done, nil
}

// run compares one partition chunk by chunk.
func (p *comparison) run(ctx context.Context, client *api.Client, progress *term.Progress) error {
	next := int64(0)
	for {
		v, err := client.VerifyLink(ctx, api.VerifyLinkParams{Origin: p.Origin.String(), Topic: p.Topic, Partition: p.Partition, From: next})
		if err != nil {
			return err
		}
		if p.From == nil {
			p.From, p.End = &v.From, &v.End
		}
		progress.Add(v.Next - next)
		p.Next = &v.Next
		p.Records, p.Bytes, p.Expired = p.Records+v.Records, p.Bytes+v.Bytes, p.Expired+v.Expired
		switch p.Difference = v.Difference; {
		case v.Difference != nil, v.Next >= *p.End:
			return nil
		case v.Next <= next:
			return fmt.Errorf("the comparison does not come past offset %d of the mirror", next)
		}
		next = v.Next
	}
}

func verifyTable(w io.Writer, done []comparison) error {
	var rows [][]string
	var notes notes
	var records, bytes int64
	for _, p := range done {
		compared, size, expired := term.Count(p.Records), term.Bytes(p.Bytes), term.Count(p.Expired)
		if p.Next == nil {
			compared, size, expired = "?", "?", "?"
		}
		rows = append(rows, []string{
			fmt.Sprintf("%s/%s/%d", p.Origin, p.Topic, p.Partition), compared, size, expired, orUnknown(p.Next), orUnknown(p.End), p.result(),
		})
		notes.add(fmt.Sprintf("%s, topic %s, partition %d", p.Origin, p.Topic, p.Partition), p.note())
		records, bytes = records+p.Records, bytes+p.Bytes
	}
	if err := term.Table(w, []string{"MIRROR OF", "RECORDS", "BYTES", "EXPIRED", "UP TO", "END", "RESULT"}, rows); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\n%s records compared, %s\n", term.Count(records), term.Bytes(bytes)); err != nil {
		return err
	}
	return notes.write(w)
}

func (p *comparison) note() string {
	if d := p.Difference; d != nil {
		return fmt.Sprintf("offset %d of the mirror, %d of the source: %s", d.Mirror, d.Source, d.What)
	}
	return p.Error
}

// verdict is the error that the exit code comes from.
func verdict(done []comparison) error {
	differ, unknown := 0, 0
	expired := int64(0)
	for _, p := range done {
		switch expired += p.Expired; {
		case p.Difference != nil:
			differ++
		case p.Error != "":
			unknown++
		}
	}
	switch {
	case differ > 0:
		return events.Errorf(events.KindInconsistent, "%d of %d mirrors differ from their source", differ, len(done))
	case unknown > 0:
		return events.Errorf(events.KindPartial, "%d of %d mirrors could not be compared", unknown, len(done))
	case expired > 0:
		return events.Errorf(events.KindPartial, "%s records could not be compared: they have expired at the source", term.Count(expired))
	}
	return nil
}
