package pipeline

import (
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/projections"
)

// LastSlot is lastSlot, for tests.
var LastSlot = lastSlot

// PruneSlot is pruneSlot, for tests.
var PruneSlot = pruneSlot

// HasSeen is hasSeen, for tests.
var HasSeen = hasSeen

// Chunks is chunks, for tests.
var Chunks = chunks

// WaitsForClock tells at which times a region with a schedule waits for its clock, that has seen something of a time.
func WaitsForClock(full time.Duration, seen time.Time) func(now time.Time) bool {
	cfg := &config.Config{Backup: &config.Backup{Schedule: config.Schedule{Full: full}}}
	return (&backupWatch{region: &Region{cfg: cfg}, seen: &api.BackupStatus{Clock: seen}}).waitsForClock
}

// Stuck is what a region counts as tombstones that stay.
func Stuck(cfg *config.Config, all []projections.Tombstone) int {
	s := &sweep{}
	(&collector{cfg: cfg}).count(s, all, "")
	return s.seen.stuck
}

// NoteEnds leaves a note of where logs ended at a time.
func NoteEnds(fs vfs.FS, dataDir string, at time.Time, next map[string]int64) error {
	return disk.WriteNote(fs, filepath.Join(dataDir, endsFile), []endsAt{{at, next}})
}

// ForgetTouched has a region forget which keys were written below a vector.
func (r *Region) ForgetTouched(below events.Vector) {
	for p := range r.cfg.Partitions {
		r.touched.of(p).Forget(below)
	}
}
