package pipeline

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// provedNote is what is noted of a shard of a state that was restored in place, once it is here
// and proved.
type provedNote struct {
	States []events.LogState `json:"states"` // then
}

func provedPath(dir string, partition int32) string {
	return filepath.Join(dir, fmt.Sprintf("proved-"+shardName+".json", partition))
}

// noteProved notes that a shard of this node is here and proved, and writes the report of the restore
// that has made it if it was the last one. A shard that came by itself is in no report.
func (b *beginnings) noteProved(p int32, lineage string, states []events.LogState) error {
	b.proving.Lock()
	defer b.proving.Unlock()
	dir := StateDir(b.cfg)
	var restored api.Restored
	there, err := disk.ReadNote(b.fs, filepath.Join(dir, RestoringInPlace), &restored)
	if err != nil || !there || restored.Lineage != lineage {
		return err
	}
	if err := disk.WriteNote(b.fs, provedPath(dir, p), provedNote{States: states}); err != nil {
		return err
	}
	left, err := collectProofs(b.fs, dir, &restored)
	if err != nil || len(left) > 0 {
		return err
	}
	restored.Digest, restored.Duration = digest.Total(restored.States), time.Since(restored.Began).Seconds()
	if err := writeReport(b.fs, dir, &restored); err != nil {
		return err
	}
	b.log.Info("the restored state is here and proved", "backup", restored.Backup, "target", restored.Target, "report", filepath.Join(dir, RestoreReport))
	return forgetProofs(b.fs, dir, restored.Shards)
}

// collectProofs takes what is noted of shards into the report, and says which are left.
func collectProofs(fs vfs.FS, dir string, restored *api.Restored) (left []int32, err error) {
	for _, p := range restored.Shards {
		var note provedNote
		there, err := disk.ReadNote(fs, provedPath(dir, p), &note)
		if err != nil {
			return nil, err
		}
		if !there {
			left = append(left, p)
		}
		restored.States = slices.Concat(restored.States, note.States)
	}
	return left, nil
}

// forgetProofs removes what the report has now.
func forgetProofs(fs vfs.FS, dir string, shards []int32) error {
	err := fs.RemoveAll(filepath.Join(dir, RestoringInPlace))
	for _, p := range shards {
		err = errors.Join(err, fs.RemoveAll(provedPath(dir, p)))
	}
	return errors.Join(err, disk.SyncDir(fs, dir))
}

// notProved is why a directory has no report.
func notProved(fs vfs.FS, dir string) error {
	var restored api.Restored
	there, err := disk.ReadNote(fs, filepath.Join(dir, RestoringInPlace), &restored)
	if err != nil {
		return err
	}
	if !there {
		return events.Errorf(events.KindNotFound, "directory %s has no %s: it is no restored state", dir, RestoreReport)
	}
	left, err := collectProofs(fs, dir, &restored)
	if err != nil {
		return err
	}
	return events.Errorf(events.KindNotReady, "the state in %s is not proved yet: of shards %v backup %s is still to be brought here, or has turned out to be damaged; the node that serves it does that (evenkeel shards)",
		dir, left, restored.Backup)
}
