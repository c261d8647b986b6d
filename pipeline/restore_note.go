package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// RestoreReport and its text form are what a restore leaves in the state that it made;
// RestoringInPlace is there instead as long as not all of it is here and proved.
const (
	RestoreReport     = "restore-report.json"
	restoreReportText = "restore-report.txt"
	RestoringInPlace  = "restoring-in-place.json"
)

// readNote reads what writeNote wrote; there is false if nothing was.
func readNote(fs vfs.FS, path string, note any) (there bool, err error) {
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, note); err != nil {
		return false, events.Errorf(events.KindInconsistent, "%s: %w", path, err)
	}
	return true, nil
}

// writeNote writes a small file as JSON. It is there, whole and on disk, or the one
// before it is.
func writeNote(fs vfs.FS, path string, note any) error {
	text, err := json.MarshalIndent(note, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(fs, path, append(text, '\n'))
}

func writeFile(fs vfs.FS, path string, text []byte) error {
	fresh := path + ".new"
	f, err := fs.Create(fresh, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, (&syncedFile{File: f}).Close()); err != nil {
		return err
	}
	if err := fs.Rename(fresh, path); err != nil {
		return err
	}
	return syncDir(fs, filepath.Dir(path))
}

func sameRequest(a, b timeline.Request) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// finish tells what was done, beside the state, and moves both to their place.
func (r *restoring) finish() (restored *api.Restored, err error) {
	fs := r.job.FS
	if r.outside != nil {
		if restored, err = r.inPlaceReport(); err == nil {
			err = writeNote(fs, filepath.Join(r.target.dir, RestoringInPlace), restored)
		}
	} else if restored, err = r.report(); err == nil {
		err = writeReport(fs, r.target.dir, restored)
	}
	if err != nil {
		return nil, err
	}
	if err := moveDir(fs, r.target.dir, r.job.Dir); err != nil {
		return nil, err
	}
	return restored, fs.RemoveAll(r.work)
}

// writeReport writes the report of a restore into the state that it made.
func writeReport(fs vfs.FS, dir string, restored *api.Restored) error {
	return errors.Join(
		writeFile(fs, filepath.Join(dir, restoreReportText), []byte(restored.Text())),
		writeNote(fs, filepath.Join(dir, RestoreReport), restored),
	)
}

// finished is what a run has done that was broken off after it had moved the state; nil:
// it had not.
func (r *restoring) finished() (*api.Restored, error) {
	fs := r.job.FS
	for _, name := range []string{RestoreReport, RestoringInPlace} {
		restored := &api.Restored{}
		there, err := readNote(fs, filepath.Join(r.job.Dir, name), restored)
		if err != nil {
			return nil, err
		}
		if there && restored.Lineage == r.note.Lineage.ID {
			return restored, fs.RemoveAll(r.work)
		}
	}
	return nil, nil
}

// report puts together what all shards came to.
func (r *restoring) report() (*api.Restored, error) {
	plan := r.plan()
	restored := &api.Restored{
		Region: plan.Region, Software: Software, Target: plan.Target, Vector: plan.Vector, Streams: plan.Streams, Merge: r.backupMerge(),
		Lineage: r.note.Lineage.ID, Dir: r.job.Dir, Backup: plan.Base, Created: plan.Created, From: events.Vector{}, Pinned: r.pinned,
		Resumed: r.resumed, Lacks: plan.Lacks, Began: r.note.Began, States: []events.LogState{},
	}
	for _, shard := range plan.Shards {
		var note shardNote
		there, err := readNote(r.job.FS, r.path(shardNoteFile(shard.Shard)), &note)
		if err != nil {
			return nil, err
		}
		if !there || !note.Done {
			return nil, fmt.Errorf("shard %d is not restored", shard.Shard)
		}
		restored.Shards = append(restored.Shards, shard.Shard)
		restored.States = append(restored.States, note.States...)
		restored.Replayed = restored.Replayed.Add(note.Replayed)
		if len(r.base) == 0 {
			continue
		}
		restored.From = restored.From.Join(vectorOfShard(r.base.Newest(), shard.Shard))
		for _, t := range slices.Concat(r.base.Layers(shard.Shard)...) {
			restored.Tables, restored.Bytes = restored.Tables+1, restored.Bytes+t.Size
		}
	}
	restored.Digest = digest.Total(restored.States)
	restored.Duration = time.Since(r.note.Began).Seconds()
	return restored, nil
}

// backupMerge is the rule by which each stream is merged.
func (r *restoring) backupMerge() map[events.Stream]string {
	merge := map[events.Stream]string{}
	for name, s := range r.job.Config.Streams {
		merge[name] = s.Merge
	}
	return merge
}
