package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/term"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// checked is what regions say of every log.
type checked struct {
	Regions []*api.Check             `json:"regions"`
	Silent  map[events.Region]string `json:"silent"` // regions that could not be asked, and why
}

func (t *tool) checkCommand() *cobra.Command {
	var region, stream string
	var all bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Show whether regions hold the same state",
		Long: `Show whether regions hold the same state. Every region compares its fold of every log with what the log's
origin attests, all the time; this asks all regions, or one, how that stands. Logs that are consistent are
only counted, unless --all lists them.

  consistent     compared within the last minute, and equal
  diverged       compared, and not equal: the records (layer log) or what was made of them (layer fold)
  indeterminate  not compared within the last minute, for the reason given
  skipped        the regions run versions whose states are not comparable

Exit code 0 if every log is consistent in every region that was asked, 6 if one has diverged, 7 if nothing
could be compared, else 3.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			result, err := t.check(c.Context(), events.Region(region), events.Stream(stream))
			if err != nil {
				return err
			}
			if err := t.out.Show(c.OutOrStdout(), result, func(w io.Writer) error { return checkTable(w, result, all) }); err != nil {
				return err
			}
			return result.verdict()
		},
	}
	c.Flags().StringVar(&stream, "stream", "", "look at this stream alone")
	c.Flags().StringVar(&region, "region", "", "ask this region alone")
	c.Flags().BoolVar(&all, "all", false, "list logs that are consistent too")
	c.AddCommand(t.acknowledgeCommand())
	return c
}

// checkRegions are the regions to be asked: the one, or all.
func (t *tool) checkRegions(ctx context.Context, region events.Region) (map[events.Region]*api.Client, error) {
	_, clients, err := t.peers(ctx)
	if err != nil || region == "" {
		return clients, err
	}
	client, ok := clients[region]
	if !ok {
		return nil, events.Errorf(events.KindNotFound, "there is no region %q; there are %v", region, slices.Sorted(maps.Keys(clients)))
	}
	return map[events.Region]*api.Client{region: client}, nil
}

func (t *tool) check(ctx context.Context, region events.Region, stream events.Stream) (*checked, error) {
	clients, err := t.checkRegions(ctx, region)
	if err != nil {
		return nil, err
	}
	result := &checked{Regions: []*api.Check{}, Silent: map[events.Region]string{}}
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		answer, err := clients[name].Check(ctx, api.CheckParams{Stream: stream})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case events.KindOf(err) == events.KindNotFound: // the stream
			return nil, err
		case err != nil:
			result.Silent[name] = err.Error()
		default:
			result.Regions = append(result.Regions, answer)
		}
	}
	return result, nil
}

// count is how many logs have a result, and how many there are.
func (c *checked) count(r divergence.Result) (n int) {
	for _, region := range c.Regions {
		n += region.Count(r)
	}
	return n
}

func (c *checked) logs() (n int) {
	for _, region := range c.Regions {
		n += len(region.Logs)
	}
	return n
}

// verdict is the error that the exit code comes from.
func (c *checked) verdict() error {
	total, consistent := c.logs(), c.count(divergence.Consistent)
	switch diverged := c.count(divergence.Diverged); {
	case diverged > 0:
		return events.Errorf(events.KindInconsistent, "%d of %d logs have diverged", diverged, total)
	case consistent == 0:
		return events.Errorf(events.KindNotReady, "nothing could be compared")
	case consistent < total:
		return events.Errorf(events.KindPartial, "%d of %d logs could not be compared", total-consistent, total)
	case len(c.Silent) > 0:
		return events.Errorf(events.KindPartial, "%d of %d regions could not be asked", len(c.Silent), len(c.Silent)+len(c.Regions))
	}
	return nil
}

func checkTable(w io.Writer, c *checked, all bool) error {
	var rows [][]string
	var notes notes
	for _, region := range c.Regions {
		for _, f := range region.Logs {
			if f.Result == divergence.Consistent && !all {
				continue
			}
			rows = append(rows, []string{
				region.Region.String(), f.Log.String(), string(f.Result), cmp.Or(string(f.Layer), "-"),
				orUnknown(f.At), orUnknown(f.Attested), f.Log.Origin.String(), sinceOrUnknown(region.At, f.Compared),
			})
			if f.Result != divergence.Consistent {
				notes.add(f.Log.String()+" in "+region.Region.String(), checkNote(region.Region, f))
			}
		}
	}
	for _, region := range slices.Sorted(maps.Keys(c.Silent)) {
		notes.add(region.String(), c.Silent[region])
	}
	if err := lagTable(w, []string{"IN", "LOG", "RESULT", "LAYER", "AT OFFSET", "ATTESTED", "COMPARED WITH", "AGE"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s logs in %d regions: %s consistent, %s diverged, %s indeterminate, %s skipped\n",
		term.Count(c.logs()), len(c.Regions), term.Count(c.count(divergence.Consistent)), term.Count(c.count(divergence.Diverged)),
		term.Count(c.count(divergence.Indeterminate)), term.Count(c.count(divergence.Skipped)))
	if err != nil {
		return err
	}
	return notes.write(w)
}

// checkNote is what is to be said below the table.
func checkNote(region events.Region, f divergence.Finding) string {
	switch f.Result {
	case divergence.Indeterminate:
		return f.Blocked
	case divergence.Skipped:
		return f.Formats.String()
	}
	return f.Describe(region)
}

func sinceOrUnknown(now time.Time, then *time.Time) string {
	if then == nil {
		return "?"
	}
	return max(now.Sub(*then), 0).Round(time.Second).String()
}

func (t *tool) acknowledgeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "acknowledge REGION LOG",
		Short: "End the showing of a divergence that was seen to",
		Long: `End the showing of a divergence that was seen to, in the region that shows it. If it lasts it is found again
within seconds. A divergence of records ends by itself when the mirror and the state were repaired, one of
states when the state was folded anew.`,
		Args: cli.Args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			log, err := events.ParseLog(args[1])
			if err != nil {
				return err
			}
			region := events.Region(args[0])
			if err := region.Validate(); err != nil {
				return err // an empty one would be all of them
			}
			clients, err := t.checkRegions(c.Context(), region)
			if err != nil {
				return err
			}
			done, err := clients[region].Acknowledge(c.Context(), api.AcknowledgeParams{Log: log})
			if err != nil {
				return err
			}
			return t.out.Show(c.OutOrStdout(), done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s in %s: acknowledged\n", done.Log, done.Region)
				return err
			})
		},
	}
}
