package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// targetFlags say what to bring back.
type targetFlags struct {
	newest       bool
	backup, base string
	vector, time string
	offsets      []string
	streams      []string
	shards       shardsFlag
}

// shardsFlag are numbers of shards as a flag's value (pflag.Value).
type shardsFlag []int32

func (f *shardsFlag) String() string {
	var list []string
	for _, shard := range *f {
		list = append(list, strconv.Itoa(int(shard)))
	}
	return strings.Join(list, ",")
}

func (f *shardsFlag) Type() string { return "numbers" }

func (f *shardsFlag) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		number, err := strconv.ParseInt(strings.TrimSpace(part), 10, 32)
		if err != nil || number < 0 {
			return fmt.Errorf("%q is no shard; want numbers as evenkeel shards lists them, such as 0,2", part)
		}
		*f = append(*f, int32(number))
	}
	return nil
}

func (f *targetFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.newest, "to-newest", false, "all that is archived (the default)")
	c.Flags().StringVar(&f.backup, "backup", "", "id of a backup: to where it was made, without any segments")
	c.Flags().StringVar(&f.time, "to-time", "", "a time in the form of RFC 3339, or so long ago (90s, 2h, 1d12h)")
	c.Flags().StringVar(&f.vector, "to-vector", "", "a vector, as restore plan prints it; logs that are not in it are left empty")
	c.Flags().StringSliceVar(&f.offsets, "to-offset", nil, "LOG@OFFSET: the first offset of this log to leave out (again for more logs); of other logs all that is archived")
	c.Flags().StringVar(&f.base, "base", "", "id of the backup to begin with (default the best)")
	c.Flags().StringSliceVar(&f.streams, "streams", nil, "only these streams")
	c.Flags().Var(&f.shards, "shards", "only these shards, such as 0,2")
	c.MarkFlagsMutuallyExclusive("to-newest", "backup", "to-time", "to-vector", "to-offset")
	c.MarkFlagsMutuallyExclusive("backup", "base")
}

// request is what the flags ask for.
func (f *targetFlags) request() (req timeline.Request, err error) {
	req.Backup, req.Base, req.Shards = f.backup, f.base, f.shards
	for _, name := range f.streams {
		stream, err := events.ParseStream(name)
		if err != nil {
			return req, err
		}
		req.Streams = append(req.Streams, stream)
	}
	if f.vector != "" {
		if req.Vector, err = events.ParseVector(f.vector); err != nil {
			return req, err
		}
	}
	for _, text := range f.offsets {
		p, err := events.ParsePosition(text)
		if err != nil {
			return req, err
		}
		if req.Offsets == nil {
			req.Offsets = events.Vector{}
		}
		if _, twice := req.Offsets[p.Log]; twice {
			return req, events.Errorf(events.KindInvalid, "--to-offset: %s twice", p.Log)
		}
		req.Offsets[p.Log] = p.Offset
	}
	if f.time == "" {
		return req, nil
	}
	if req.Time, err = time.Parse(time.RFC3339Nano, f.time); err == nil {
		return req, nil
	}
	req.Time = time.Time{}
	if req.Ago, err = config.ParseDuration(f.time); err != nil || req.Ago <= 0 {
		return req, events.Errorf(events.KindInvalid, "--to-time %q: want a time in the form of RFC 3339, such as 2026-11-26T13:00:00Z, or how long ago, such as 90s, 2h or 1d12h", f.time)
	}
	return req, nil
}
