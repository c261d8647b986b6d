package pipeline

import (
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/disk"
)

const (
	// endsFile of a node's data directory says where logs ended at some times: topics that keep their records for less
	// than tombstones are held cannot tell how old the last events of keys are, nor can any of what lies behind a record that
	// is dated in the future.
	endsFile = "collecting-ends.json"

	// endsParts is in how many parts the time is noted that has to be told: a tombstone may be held for one longer.
	endsParts = 8

	endsRetry = time.Minute
)

// pastEnds are where logs ended at some times, by the clock of this node. They belong to the collector's goroutine.
type pastEnds struct {
	fs   vfs.FS
	path string
	log  *slog.Logger
	span time.Duration // how old what is asked for is, as far as known when something was noted last
	all  []endsAt      // ascending by time; the first that is older than span, and those behind it

	tried time.Time // to note something
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

// note notes where logs end, now and then, by what is known of each; and that for as long as something so old is asked for.
func (e *pastEnds) note(now time.Time, known func() (all map[string]ends, span time.Duration)) {
	if !e.tried.IsZero() && time.Since(e.tried) < endsRetry {
		return
	}
	now = now.UTC().Round(0) // as it is read again
	at := slices.IndexFunc(e.all, func(a endsAt) bool { return a.At.After(now) })
	if at < 0 {
		at = len(e.all) // and else some clock was ahead
	}
	if at > 0 && now.Sub(e.all[at-1].At) < e.span/endsParts {
		return
	}
	e.tried = time.Now() // by a clock that nobody sets
	fresh, span := known()
	if len(fresh) == 0 {
		return
	}
	e.span = span
	all := []endsAt{}
	for _, a := range e.all {
		all = append(all, endsAt{a.At, maps.Clone(a.Next)})
		for log, k := range fresh {
			if a.Next[log] > k.most { // all regions were restored to before
				all[len(all)-1].Next[log] = k.most
			}
		}
	}
	next := map[string]int64{}
	for log, k := range fresh {
		next[log] = k.least
	}
	all = slices.Insert(all, at, endsAt{now, next})
	for len(all) > 1 && now.Sub(all[1].At) >= e.span {
		all[1].Next = joinEnds(all[0].Next, all[1].Next)
		all = all[1:]
	}
	if err := disk.WriteNote(e.fs, e.path, all); err != nil {
		e.log.Warn("where logs end was not noted, and is tried again: tombstones may be held for longer", "error", err)
		return
	}
	e.all = all
}

// joinEnds: what was there at a time is there later.
func joinEnds(earlier, later map[string]int64) map[string]int64 {
	all := maps.Clone(earlier)
	for log, next := range later {
		all[log] = max(all[log], next)
	}
	return all
}

// before is an offset of a log in front of which everything had been written at a time.
func (e *pastEnds) before(at time.Time, log events.Log) (next int64) {
	for _, a := range e.all {
		if a.At.After(at) {
			break
		}
		next = max(next, a.Next[log.String()])
	}
	return next
}

// ends are how far all regions have folded a log, and how far any has: no restore gives offsets to others that are in front of the least.
type ends struct{ least, most int64 }

// endsSpan is how old what is asked for is at most: as old as tombstones that are held, and older by what a clock that notes may be
// behind, which is in that if they are held strictly.
func (c *collector) endsSpan() time.Duration {
	held, strict := c.holdFor()
	if !strict {
		held += unnoticed
	}
	return held
}

// knownEnds are the ends of the logs of all partitions, as regions attest; of those alone of which all have done so lately. A clock that
// is behind tells nothing: what it notes would be older than it is. Whoever has attested has said for how long tombstones are held, too.
func (c *collector) knownEnds() (all map[string]ends, span time.Duration) {
	span = c.endsSpan()
	if c.checks.Behind() > unnoticed {
		return nil, span
	}
	all = map[string]ends{}
	for stream := range c.cfg.Streams {
		for p := range c.cfg.Partitions {
			least, most, err := c.checks.Known(stream, p)
			if err != nil {
				continue
			}
			for _, s := range most {
				log := events.Log{Origin: s.Origin, Stream: stream, Partition: p}
				all[log.String()] = ends{least.Next(s.Origin), s.Next}
			}
		}
	}
	return all, span
}
