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

// RestoreReport and its text form are what a restore leaves in the state that it made;
// RestoringInPlace is there instead as long as not all of it is here and proved.
const (
	RestoreReport     = "restore-report.json"
	restoreReportText = "restore-report.txt"
	RestoringInPlace  = "restoring-in-place.json"
)

// finish tells what was done, beside the state, and moves both to their place.
func (r *restoring) finish() (restored *api.Restored, err error) {
	fs := r.job.FS
	if r.outside != nil {
		if restored, err = r.inPlaceReport(); err == nil {
			err = disk.WriteNote(fs, filepath.Join(r.target.dir, RestoringInPlace), restored)
		}
	} else if restored, err = r.report(); err == nil {
		err = writeReport(fs, r.target.dir, restored)
	}
	if err != nil {
		return nil, err
	}
	if err := disk.Replace(fs, r.target.dir, r.job.Dir); err != nil {
		return nil, err
	}
	return restored, fs.RemoveAll(r.work)
}

// writeReport writes the report of a restore into the state that it made.
func writeReport(fs vfs.FS, dir string, restored *api.Restored) error {
	return errors.Join(
		disk.WriteFile(fs, filepath.Join(dir, restoreReportText), []byte(restored.Text())),
		disk.WriteNote(fs, filepath.Join(dir, RestoreReport), restored),
	)
}

// finished is what a run has done that was broken off after it had moved the state; nil:
// it had not.
func (r *restoring) finished() (*api.Restored, error) {
	fs := r.job.FS
	for _, name := range []string{RestoreReport, RestoringInPlace} {
		restored := &api.Restored{}
		there, err := disk.ReadNote(fs, filepath.Join(r.job.Dir, name), restored)
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
		Region: plan.Region, Software: api.Software, Target: plan.Target, Vector: plan.Vector, Streams: plan.Streams, Merge: r.backupMerge(),
		Lineage: r.note.Lineage.ID, Dir: r.job.Dir, Backup: plan.Base, Created: plan.Created, From: events.Vector{}, Pinned: r.pinned,
		Resumed: r.resumed, Lacks: plan.Lacks, Began: r.note.Began, States: []events.LogState{},
		Attested: r.attested, Unattested: r.unattested,
	}
	for _, shard := range plan.Shards {
		var note shardNote
		there, err := disk.ReadNote(r.job.FS, r.path(shardNoteFile(shard.Shard)), &note)
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
