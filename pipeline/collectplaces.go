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
)

// places are how far the rounds of logs have come. They belong to the collector's goroutine; nil is none, and notes
// nothing.
type places struct {
	fs    vfs.FS
	path  string
	log   *slog.Logger
	after map[string]string // key, in base64 on disk: by log; as they are noted
	when  time.Time
}

// placesNote is the file. Keys are bytes there: they may be no text.
type placesNote struct {
	After map[string][]byte `json:"after"` // by log
}

// recallPlaces reads what was noted before the node was started.
func recallPlaces(fs vfs.FS, dataDir string, log *slog.Logger) *places {
	p := &places{fs: fs, path: filepath.Join(dataDir, placesFile), log: log, after: map[string]string{}}
	var note placesNote
	if _, err := disk.ReadNote(fs, p.path, &note); err != nil {
		log.Debug("rounds of tombstones begin anew", "error", err)
		return p
	}
	for l, key := range note.After {
		p.after[l] = string(key)
	}
	return p
}

// of is the key that a log's round had come to; empty if none is known.
func (p *places) of(log events.Log) string {
	if p == nil {
		return ""
	}
	return p.after[log.String()]
}

// note writes how far rounds are: now and then, or at once. Those of shards that the node does not have just now stay as they are: it
// may be about to stop, or get them back.
func (p *places) note(sweeps map[events.Log]*sweep, atOnce bool) {
	if p == nil || !atOnce && time.Since(p.when) < placesEvery {
		return
	}
	p.when = time.Now()
	after, note := maps.Clone(p.after), placesNote{After: map[string][]byte{}}
	for log, s := range sweeps {
		if after[log.String()] = s.after; s.after == "" {
			delete(after, log.String())
		}
	}
	if maps.Equal(after, p.after) {
		return
	}
	for log, key := range after {
		note.After[log] = []byte(key)
	}
	if err := disk.WriteNote(p.fs, p.path, note); err != nil {
		p.log.Debug("how far rounds of tombstones are was not noted", "error", err)
		return
	}
	p.after = after
}
