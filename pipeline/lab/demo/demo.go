// Package demo shows the whole way of an event on real data: it loads the
// history of package history into a lab, checks every region against the truth,
// loses one region's state and brings it back from its bucket.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/lab/history"
	"github.com/evenkeel/evenkeel/pipeline/load"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

// Demo is one run. The lab is up before and stays up after it.
type Demo struct {
	Lab *lab.Lab
	Out io.Writer
	Dir string // for the files that it loads

	clients map[events.Region]*api.Client
	steps   [][]string
}

// backupAt is how many events are loaded before the backup: one of the points
// at which the truth is known. The rest is replayed after the restore.
const backupAt = 12_716

// settleTimeout bounds how long the regions may take to come to the same state.
const settleTimeout = 60 * time.Second

// Run does it all; the error tells the first keys that differ, if any do.
func (d *Demo) Run(ctx context.Context) error {
	d.clients = map[events.Region]*api.Client{}
	for _, r := range d.Lab.Regions() {
		client, err := d.Lab.Client(r)
		if err != nil {
			return err
		}
		d.clients[r] = client
	}
	victim := d.Lab.Regions()[len(d.clients)-1]
	client := d.clients[victim]

	err := d.run(ctx, []step{
		{fmt.Sprintf("load events 1 to %s", term.Count(backupAt)), d.load(0, backupAt)},
		{"all regions at the same vector", d.settle(backupAt)},
		{fmt.Sprintf("every view is the truth after %s events", term.Count(backupAt)), d.check(backupAt)},
		{"back up " + victim.String(), func(ctx context.Context) (string, error) {
			b, err := client.CreateBackup(ctx)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%s, %d tables, %s", b.ID, b.Tables, term.Bytes(b.Bytes)), nil
		}},
		{fmt.Sprintf("load the remaining %s", term.Count(history.Events-backupAt)), d.load(backupAt, history.Events)},
		{"all regions at the same vector", d.settle(history.Events)},
		{"every view is the truth after all events", d.check(history.Events)},
		{"", d.table},
		{fmt.Sprintf("stop %s and delete its state", victim), func(context.Context) (string, error) {
			return "", errors.Join(d.Lab.StopRegion(victim), d.Lab.WipeRegion(victim))
		}},
		{"restore it from its bucket, proved", func(ctx context.Context) (string, error) {
			report, err := d.Lab.RestoreRegion(ctx, victim, "")
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d tables, %s, and %s archived records; every digest recomputed",
				report.Tables, term.Bytes(report.Bytes), term.Count(report.Replayed.Records)), nil
		}},
		{"start it", func(ctx context.Context) (string, error) { return "", d.Lab.StartRegion(ctx, victim) }},
		{"replay what was not archived, if anything", d.settle(history.Events)},
		{"every view is the truth again", d.check(history.Events)},
		{"", d.table},
	})
	return errors.Join(err, term.Table(d.Out, []string{"STEP", "TOOK", "RESULT"}, d.steps))
}

// step is a part of the demo; one without a name is not listed.
type step struct {
	name string
	do   func(context.Context) (string, error)
}

func (d *Demo) run(ctx context.Context, steps []step) error {
	for _, s := range steps {
		begun := time.Now()
		if s.name != "" {
			fmt.Fprintf(d.Out, "── %s\n", s.name)
		}
		result, err := s.do(ctx)
		if s.name != "" {
			took := time.Since(begun).Round(time.Millisecond).String()
			if err != nil {
				result = "FAILED"
			}
			d.steps = append(d.steps, []string{s.name, took, result})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (d *Demo) load(from, to int) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		path := filepath.Join(d.Dir, fmt.Sprintf("history-%d-%d.jsonl", from, to))
		if err := history.WriteTo(path, from, to); err != nil {
			return "", err
		}
		input, err := load.JSONLines(path, history.Fields())
		if err != nil {
			return "", err
		}
		nodes := map[events.Region]load.Node{}
		for r, c := range d.clients {
			nodes[r] = c
		}
		progress := term.NewProgress(d.Out, "   events", int64(to-from), 0)
		begun := time.Now()
		_, err = load.Run(ctx, input, nodes, load.Config{
			Stream: history.Stream, Progress: path + ".progress",
			Written: func(_ events.Region, n int) { progress.Add(int64(n)) },
		})
		progress.End()
		rate := int(float64(to-from) / time.Since(begun).Seconds())
		return fmt.Sprintf("%s events/s acknowledged", term.Count(rate)), err
	}
}

// settle waits until every region has folded all events and stands at the same
// vector.
func (d *Demo) settle(want int64) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, settleTimeout)
		defer cancel()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			same, digest, last, err := d.settled(ctx, want)
			if err != nil {
				return "", fmt.Errorf("%w (%s)", err, last)
			}
			if same {
				return "digest " + digest.String(), nil
			}
			select {
			case <-ctx.Done():
				return "", fmt.Errorf("the regions are not at the same vector after %s: %s", settleTimeout, last)
			case <-tick.C:
			}
		}
	}
}

// settled asks every region. Equal vectors with unequal digests are an error.
func (d *Demo) settled(ctx context.Context, want int64) (same bool, digest events.Digest, last string, err error) {
	var first *api.Status
	for _, r := range d.Lab.Regions() {
		s, err := d.clients[r].Status(ctx)
		if err != nil {
			return false, digest, last, err
		}
		last = fmt.Sprintf("%s has folded %d of %d events, problems: %v", r, api.Known(s.Events), want, s.Problems)
		if api.Known(s.Events) != want {
			return false, digest, last, nil
		}
		if first == nil {
			first = s
		}
		if s.Vector().Compare(first.Vector()) != events.Equal {
			return false, digest, last, nil
		}
		if *s.Digest != *first.Digest {
			return false, digest, "", events.Errorf(events.KindInconsistent, "%s and %s stand at the same vector with digests %s and %s",
				first.Region, r, first.Digest, s.Digest)
		}
	}
	return true, *first.Digest, "", nil
}

// check compares every region's view with the truth, key by key.
func (d *Demo) check(after int) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		truth, err := history.State(after)
		if err != nil {
			return "", err
		}
		for _, r := range d.Lab.Regions() {
			view, err := readView(ctx, d.clients[r])
			if err != nil {
				return "", fmt.Errorf("%s: %w", r, err)
			}
			if err := compare(r, truth, view); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("%s keys in each of %d regions", term.Count(len(truth)), len(d.clients)), nil
	}
}

func readView(ctx context.Context, client *api.Client) (map[string]string, error) {
	view := map[string]string{}
	for e, err := range client.ScanAll(ctx, api.ScanParams{Stream: history.Stream, Limit: api.MaxScanEntries}) {
		if err != nil {
			return nil, err
		}
		var change struct {
			Blob string `json:"blob"`
		}
		if err := json.Unmarshal(e.Value, &change); err != nil {
			return nil, fmt.Errorf("key %q: %w", e.Key, err)
		}
		view[string(e.Key)] = change.Blob
	}
	return view, nil
}

// shownDifferences is how many differing keys are told.
const shownDifferences = 10

func compare(r events.Region, truth, view map[string]string) error {
	all := maps.Clone(truth)
	maps.Copy(all, view)
	var different []error
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if truth[key] != view[key] && len(different) < shownDifferences {
			different = append(different, fmt.Errorf("%s, key %q: want %q, found %q", r, key, truth[key], view[key]))
		}
	}
	if len(different) > 0 {
		return events.Errorf(events.KindInconsistent, "the view is not the truth; the first keys that differ:\n%w", errors.Join(different...))
	}
	return nil
}

// table shows where every region stands.
func (d *Demo) table(ctx context.Context) (string, error) {
	var rows [][]string
	for _, r := range d.Lab.Regions() {
		s, err := d.clients[r].Status(ctx)
		if err != nil {
			return "", err
		}
		behind, err := knownLag(ctx, d.clients[r])
		if err != nil {
			return "", err
		}
		rows = append(rows, []string{
			r.String(), term.Count(api.Known(s.Events)), term.Count(api.Known(s.Keys)), behind, fmt.Sprint(s.Digest),
		})
	}
	fmt.Fprintln(d.Out)
	if err := term.Table(d.Out, []string{"REGION", "EVENTS", "SLICES", "LAG", "DIGEST"}, rows); err != nil {
		return "", err
	}
	fmt.Fprintln(d.Out)
	return "", nil
}

// lagTimeout bounds how long a link may take to find a region again that was away; until
// then nobody knows how far behind it is.
const lagTimeout = 15 * time.Second

// knownLag is how far a region is behind, once that is known, or else that it is not.
func knownLag(ctx context.Context, client *api.Client) (string, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; {
		lag, err := client.Lag(ctx)
		if err != nil {
			return "", err
		}
		if lag.IsKnown() || time.Since(begun) > lagTimeout {
			return lag.Behind(), nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
		}
	}
}
