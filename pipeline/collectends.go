package pipeline

import (
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/disk"
)

const (
	// endsFile of a node's data directory says where logs ended at some times: topics that keep their records for less
	// than tombstones are held cannot tell how old the last events of keys are.
	endsFile = "collecting-ends.json"

	// endsParts is in how many parts the time is noted that has to be told: a tombstone may be held for one longer.
	endsParts = 8
)

// pastEnds are where logs ended at some times, by the clock of this node. They belong to the collector's goroutine; nil is
// none, and notes nothing.
type pastEnds struct {
	fs   vfs.FS
	path string
	log  *slog.Logger
	span time.Duration // how old what is asked for is
	all  []endsAt      // ascending by time; the first that is older than span, and those behind it
}

type endsAt struct {
	At   time.Time        `json:"at"`
	Next map[string]int64 `json:"next"` // by log
}

// recallEnds reads what was noted before the node was started.
func recallEnds(fs vfs.FS, dataDir string, span time.Duration, log *slog.Logger) *pastEnds {
	e := &pastEnds{fs: fs, path: filepath.Join(dataDir, endsFile), span: span, log: log}
	if _, err := disk.ReadNote(fs, e.path, &e.all); err != nil {
		log.Debug("where logs ended is noted anew", "error", err)
		e.all = nil
	}
	return e
}

// note notes where logs end, now and then.
func (e *pastEnds) note(now time.Time, ends func() map[string]int64) {
	if e == nil {
		return
	}
	// A clock that was ahead then would make events older than they are.
	all := slices.DeleteFunc(slices.Clone(e.all), func(a endsAt) bool { return a.At.After(now) })
	if n := len(all); n > 0 && now.Sub(all[n-1].At) < e.span/endsParts {
		return
	}
	all = append(all, endsAt{now.UTC(), ends()})
	for len(all) > 1 && now.Sub(all[1].At) >= e.span {
		all = all[1:]
	}
	if err := disk.WriteNote(e.fs, e.path, all); err != nil {
		e.log.Debug("where logs end was not noted", "error", err)
		return
	}
	e.all = all
}

// before is an offset of a log in front of which everything had been written at a time.
func (e *pastEnds) before(at time.Time, log events.Log) (next int64) {
	if e == nil {
		return 0
	}
	for _, a := range e.all {
		if a.At.After(at) {
			break
		}
		next = a.Next[log.String()]
	}
	return next
}

// logEnds are how far all regions have attested to have folded the logs of all partitions: no restore gives those offsets
// to others.
func (c *collector) logEnds() map[string]int64 {
	ends := map[string]int64{}
	for stream := range c.cfg.Streams {
		for p := range c.cfg.Partitions {
			least, _, err := c.checks.Known(stream, p)
			if err != nil {
				continue // not noted is not told
			}
			for _, s := range least {
				ends[events.Log{Origin: s.Origin, Stream: stream, Partition: p}.String()] = s.Next
			}
		}
	}
	return ends
}
