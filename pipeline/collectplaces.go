package pipeline

import (
	"log/slog"
	"maps"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/disk"
)

const (
	// placesFile of a node's data directory says how far its rounds had come: a node that is started anew more often than
	// a round takes would never come to the last keys else.
	placesFile = "collecting.json"

	placesEvery = time.Minute

	// stallsFor is how long it counts what a log had stood still for when the node had it last. What has become of the log
	// since, on other nodes, it does not say.
	stallsFor = 24 * time.Hour
)

// places are how far the rounds of logs have come, and for how long they have stood still. They belong to the collector's
// goroutine; nil is none, and notes nothing.
type places struct {
	fs    vfs.FS
	path  string
	log   *slog.Logger
	after map[string]string // key, in base64 on disk: by log; as they are noted
	stood map[string]stall  // by log; as they are noted
	when  time.Time
}

// placesNote is the file. Keys are bytes there: they may be no text.
type placesNote struct {
	After map[string][]byte `json:"after"`             // by log
	Stood map[string]stall  `json:"stalled,omitempty"` // by log; of those that stood still
}

// stall is for how long a log had stood still at a time. It goes on from there when the node has the log again: of the time
// between, in which it could not look, nothing is told.
type stall struct {
	Minutes int64     `json:"minutes"`
	Next    int64     `json:"next"` // every region had folded the log up to here: if it still is so, it stands still yet
	At      time.Time `json:"at"`
}

func (s stall) duration() time.Duration { return time.Duration(s.Minutes) * time.Minute }

// recallPlaces reads what was noted before the node was started.
func recallPlaces(fs vfs.FS, dataDir string, log *slog.Logger) *places {
	p := &places{fs: fs, path: filepath.Join(dataDir, placesFile), log: log, after: map[string]string{}, stood: map[string]stall{}}
	var note placesNote
	if _, err := disk.ReadNote(fs, p.path, &note); err != nil {
		log.Debug("rounds of tombstones begin anew", "error", err)
		return p
	}
	for l, key := range note.After {
		p.after[l] = string(key)
	}
	maps.Copy(p.stood, note.Stood)
	return p
}

// of is the key that a log's round had come to; empty if none is known.
func (p *places) of(log events.Log) string {
	if p == nil {
		return ""
	}
	return p.after[log.String()]
}

// stallOf is for how long a log had stood still when the node had it last; not at all if that is not known, or long ago, or
// was said by a clock that was ahead.
func (p *places) stallOf(log events.Log) stall {
	if p == nil {
		return stall{}
	}
	s := p.stood[log.String()]
	if ago := time.Since(s.At); ago < 0 || ago > stallsFor || s.Minutes < 0 {
		return stall{}
	}
	return s
}

// note writes how far rounds are: now and then, or at once. Those of shards that the node does not have just now stay as they are: it
// may be about to stop, or get them back. So a node that is killed, or loses a shard, knows of a log as it was at most placesEvery
// before: that it stood still, if it does no more, is told until the log is looked at, half an hour after a start.
func (p *places) note(sweeps map[events.Log]*sweep, atOnce bool) {
	if p == nil || !atOnce && time.Since(p.when) < placesEvery {
		return
	}
	p.when = time.Now()
	after, note := maps.Clone(p.after), placesNote{After: map[string][]byte{}, Stood: maps.Clone(p.stood)}
	for log, s := range sweeps {
		delete(note.Stood, log.String())
		if minutes := int64(time.Since(s.moved) / time.Minute); minutes > 0 { // else it is not written each time
			note.Stood[log.String()] = stall{minutes, s.stable, time.Now().UTC().Round(0)}
		}
		if after[log.String()] = s.after; s.after == "" {
			delete(after, log.String())
		}
	}
	if maps.Equal(after, p.after) && maps.Equal(note.Stood, p.stood) {
		return
	}
	for log, key := range after {
		note.After[log] = []byte(key)
	}
	if err := disk.WriteNote(p.fs, p.path, note); err != nil {
		p.log.Debug("how far rounds of tombstones are was not noted", "error", err)
		return
	}
	p.after, p.stood = after, note.Stood
}
