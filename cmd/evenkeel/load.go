package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/load"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

// loadFlags are the flags of the load command.
type loadFlags struct {
	stream, progress, keyPrefix string
	files, wholeLine, again     bool
	fields                      load.Fields
	patience                    time.Duration
}

func (t *tool) loadCommand() *cobra.Command {
	f := loadFlags{fields: load.DefaultFields()}
	c := &cobra.Command{
		Use:   "load FILE --stream STREAM",
		Short: "Write many events: JSON lines, or plain files with --files",
		Long: `Write many events into a stream, each into the region that it names (or else that of --server),
in the order of the file. The file is checked as a whole before anything is written, also against what the
nodes take (limits.max_value_bytes, limits.max_clock_skew, api.max_body_bytes).

Each line is a JSON object. Members: key (text), value (text is written as it is, anything else as
JSON; null deletes), and optionally region, clock (milliseconds, or text MILLISECONDS.COUNTER) and
op (put or delete). Flags give them other names. A name ending in .gz is decompressed.

With --files every regular file below FILE is one event: its path is the key, its content the value.

A load that was interrupted goes on where it was when the same command is given again; every event is
written once. Not more than one load of the same file may run at a time. A file that was changed is another
load: what had been written of it is written once more.`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(c); err != nil {
				return err
			}
			return t.load(c, args[0], f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.stream, "stream", "", "stream to write to (required)")
	flags.BoolVar(&f.files, "files", false, "every regular file below FILE is one event")
	flags.StringVar(&f.keyPrefix, "key-prefix", "", "with --files: put before every key")
	flags.BoolVar(&f.wholeLine, "whole-line", false, "the whole line is the value")
	flags.StringVar(&f.fields.Key, "key-field", f.fields.Key, "member that is the key")
	flags.StringVar(&f.fields.Value, "value-field", f.fields.Value, "member that is the value")
	flags.StringVar(&f.fields.Region, "region-field", f.fields.Region, "member that names the region")
	flags.StringVar(&f.fields.Clock, "clock-field", f.fields.Clock, "member that is the clock")
	flags.StringVar(&f.fields.Op, "op-field", f.fields.Op, "member that is the operation")
	flags.StringVar(&f.progress, "progress-file", "", "where progress is noted (default in the user's cache directory)")
	flags.DurationVar(&f.patience, "patience", time.Minute, "how long a region that does not answer is tried again")
	flags.BoolVar(&f.again, "again", false, "write once more what was loaded before, as new events")
	return c
}

// check refuses flags that would not be heeded: events would come under other keys than is meant.
func (f loadFlags) check(c *cobra.Command) error {
	if !f.files && c.Flags().Changed("key-prefix") {
		return events.Errorf(events.KindInvalid, "--key-prefix is for --files: the keys of JSON lines are written as they stand there")
	}
	for _, name := range []string{"whole-line", "key-field", "value-field", "region-field", "clock-field", "op-field"} {
		if f.files && c.Flags().Changed(name) {
			return events.Errorf(events.KindInvalid, "--%s does not go with --files: there are no lines", name)
		}
	}
	return nil
}

func (t *tool) load(c *cobra.Command, path string, f loadFlags) error {
	if f.stream == "" {
		return events.Errorf(events.KindInvalid, "say with --stream which stream to load into")
	}
	own, clients, err := t.peers(c.Context())
	if err != nil {
		return err
	}
	input, err := f.input(path)
	if err != nil {
		return events.Errorf(events.KindInvalid, "%w", err)
	}
	nodes := map[events.Region]load.Node{}
	for name, client := range clients {
		nodes[name] = client
	}
	if f.progress == "" {
		if f.progress, err = progressFile(f.stream, input.ID, t.server); err != nil {
			return err
		}
	}
	var progress *term.Progress
	begun := time.Now()
	result, err := load.Run(c.Context(), input, nodes, load.Config{
		Stream: events.Stream(f.stream), Default: own, Progress: f.progress, Again: f.again, Patience: f.patience,
		Checked: func(total, before int) {
			progress = term.NewProgress(c.ErrOrStderr(), "events", int64(total), int64(before))
		},
		Written: func(_ events.Region, n int) { progress.Add(int64(n)) },
	})
	if progress != nil {
		progress.End()
	}
	if err != nil {
		return err
	}
	took := time.Since(begun)
	return t.out.Show(c.OutOrStdout(), result, func(w io.Writer) error { return loadTable(w, result, took) })
}

func (f loadFlags) input(path string) (*load.Input, error) {
	if f.files {
		return load.Files(path, f.keyPrefix)
	}
	if f.wholeLine {
		f.fields.Value = ""
	}
	return load.JSONLines(path, f.fields)
}

// progressFile is where a load's progress is noted unless told otherwise: one
// file for each input, stream and node that is asked.
func progressFile(stream, input, server string) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w; say where progress is noted with --progress-file", err)
	}
	name := fmt.Sprintf("%s-%s-%x.json", stream, input, sha256.Sum256([]byte(server)))
	return filepath.Join(dir, "evenkeel", "loads", name), nil
}

func loadTable(w io.Writer, r *load.Result, took time.Duration) error {
	var rows [][]string
	written := 0
	for _, region := range slices.Sorted(maps.Keys(r.Written)) {
		rows = append(rows, []string{region.String(), term.Count(r.Written[region])})
		written += r.Written[region]
	}
	if err := term.Table(w, []string{"REGION", "EVENTS"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s of %s events written in %s (%s/s); %s had been written before\n",
		term.Count(written), term.Count(r.Events), took.Round(time.Millisecond),
		term.Count(int(float64(written)/took.Seconds())), term.Count(r.Before))
	return err
}
