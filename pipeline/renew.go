package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// prepareRenewal makes the new state of a shard aside. It does nothing if that was done.
// An error that lasts ends the renewal, and is told; done then says that there is nothing to
// wait for.
func (b *beginnings) prepareRenewal(ctx context.Context, p int32) (done bool, err error) {
	select {
	case b.renewals.work[p] <- struct{}{}:
		defer func() { <-b.renewals.work[p] }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	note, is := b.renewals.of(p)
	if !is || note.Moved {
		return true, nil
	}
	if note.Compared && b.isPrepared(p, note) {
		return false, nil
	}
	err = b.bringAside(ctx, p, note)
	switch events.KindOf(err) {
	case events.KindInconsistent, events.KindRefused, events.KindNotFound, events.KindInvalid:
		b.log.Error("a shard cannot be restored and stays as it is", "shard", p, "error", err)
		return true, errors.Join(b.putBack(p), b.renewals.end(p, err))
	}
	if err != nil {
		b.renewals.tell(p, func(at *renewalProgress) { at.err = err })
	}
	return false, err
}

// isPrepared says whether the new state lies aside, whole.
func (b *beginnings) isPrepared(p int32, note renewal) bool {
	var report api.Restored
	there, err := disk.ReadNote(b.fs, filepath.Join(b.renewals.aside(p), RestoreReport), &report)
	return err == nil && there && report.Lineage == note.Lineage.ID
}

// bringAside restores the shard aside, to what was asked for.
func (b *beginnings) bringAside(ctx context.Context, p int32, note renewal) error {
	if b.bucket == nil {
		return errNoBucket(b.cfg)
	}
	if err := b.fs.RemoveAll(b.renewals.aside(p)); err != nil { // what is there is of an earlier try
		return err
	}
	if !note.Request.Target.IsNewest() {
		return b.bringSurely(ctx, p, note)
	}
	ids, err := b.backups(ctx)
	if err != nil {
		return err
	}
	var last error
	for tried := 0; tried < backupsTried && len(ids) > 0; tried++ {
		id := ids[len(ids)-1]
		ids = ids[:len(ids)-1]
		if slices.Contains(note.Damaged, id) {
			continue
		}
		candidate := note
		candidate.Request.Backup = id
		err := b.bringSurely(ctx, p, candidate)
		switch events.KindOf(err) {
		case events.KindInconsistent, events.KindRefused, events.KindNotFound:
			b.log.Error("backup cannot be used; trying another", "shard", p, "backup", id, "error", err)
			last = err
			_, err = b.renewals.change(p, func(n *renewal) { n.Damaged = append(n.Damaged, id) })
			if err != nil {
				return err
			}
		default:
			return err
		}
	}
	if last == nil {
		last = events.Errorf(events.KindNotFound, "the bucket holds no backup of %s that could be used", b.cfg.Region)
	}
	return last
}

// bringSurely is bringTo, and once more where something was damaged: one reading proves no
// damage.
func (b *beginnings) bringSurely(ctx context.Context, p int32, note renewal) error {
	err := b.bringTo(ctx, p, note)
	if events.KindOf(err) != events.KindInconsistent {
		return err
	}
	b.log.Warn("what a shard is restored from was damaged, and is read again", "shard", p, "backup", note.Request.Backup, "error", err)
	pause.For(ctx, hydrateRetryLeast)
	return b.bringTo(ctx, p, note)
}

// bringTo restores the shard aside to a target: as a backup that is served out of the
// bucket, or fetched and proved.
func (b *beginnings) bringTo(ctx context.Context, p int32, note renewal) error {
	req := note.Request
	b.renewals.tell(p, func(at *renewalProgress) { *at = renewalProgress{} })
	if only := (timeline.Request{Target: timeline.Target{Backup: req.Backup}, Shards: req.Shards}); req.Backup != "" && req.Same(only) {
		m, err := b.usable(ctx, req.Backup)
		if err != nil {
			return err
		}
		if worthInPlace(b.cfg, m.Shards[p]) && !slices.Contains(note.Damaged, m.ID) {
			return b.referAside(ctx, m, p, note)
		}
	}
	var other restoreNote // of another backup, which was tried before
	there, err := disk.ReadNote(b.fs, filepath.Join(b.renewals.aside(p)+".restoring", restoreNoteFile), &other)
	if err != nil {
		return err
	}
	done, err := Restore(ctx, RestoreJob{
		Config: b.cfg, Bucket: b.bucket, FS: b.fs, Log: b.log, Request: req, Dir: b.renewals.aside(p), Keep: true, Lineage: note.Lineage.ID, Claimed: true,
		Anew: there && !other.Request.Same(req),
		Planned: func(plan *timeline.Plan) {
			b.renewals.tell(p, func(at *renewalProgress) { at.bytes = plan.Bytes })
		},
		Fetched: func(bytes int64) {
			b.renewals.tell(p, func(at *renewalProgress) { at.fetched += bytes })
		},
	})
	if err != nil {
		return err
	}
	err = b.agreed(ctx, p, note, func(a *checks.Attested) (*api.Agreement, error) {
		return compareDir(a, b.cfg, b.fs, b.log, b.renewals.aside(p), []int32{p})
	})
	if err != nil {
		return errors.Join(err, b.fs.RemoveAll(b.renewals.aside(p)))
	}
	_, err = b.renewals.change(p, func(n *renewal) { n.Backup, n.Compared = done.Backup, true })
	return err
}

// agreed refuses a new state that is not the one that other regions have attested, unless an operator takes it
// all the same.
func (b *beginnings) agreed(ctx context.Context, p int32, note renewal, compare func(*checks.Attested) (*api.Agreement, error)) error {
	a, err := b.attested(ctx)
	if err != nil {
		return err
	}
	g, err := compare(a)
	if err != nil {
		return err
	}
	b.renewals.tell(p, func(at *renewalProgress) { at.agrees = g })
	if err := g.Err(); err != nil && !note.AcceptDiverged {
		return fmt.Errorf("shard %d: %w; take another backup, or this one all the same: --accept-diverged", p, err)
	}
	return nil
}

// referAside makes a state aside whose tables stay in the bucket.
func (b *beginnings) referAside(ctx context.Context, m *format.Manifest, p int32, note renewal) error {
	work := b.renewals.aside(p) + ".restoring"
	t := &stateTarget{cfg: b.cfg, fs: b.fs, log: b.log, dir: work, lineage: note.Lineage}
	t.lineage.Parent = m.ID
	if err := t.clear(); err != nil {
		return err
	}
	if err := b.referTo(ctx, m, p, t); err != nil {
		return errors.Join(err, b.fs.RemoveAll(work))
	}
	if err := b.agreed(ctx, p, note, func(a *checks.Attested) (*api.Agreement, error) { return a.OfStates(m.Shards[p].States), nil }); err != nil {
		return errors.Join(err, b.fs.RemoveAll(work))
	}
	if _, err := b.renewals.change(p, func(n *renewal) { n.Backup, n.Compared = m.ID, true }); err != nil {
		return err
	}
	report := api.Restored{Region: b.cfg.Region, Software: api.Software, Lineage: note.Lineage.ID, Backup: m.ID, Shards: []int32{p}}
	if err := disk.WriteNote(b.fs, filepath.Join(work, RestoreReport), report); err != nil {
		return err
	}
	return disk.Replace(b.fs, work, b.renewals.aside(p))
}

// swapRenewal puts the new state of a shard, which is closed, in the place of the old one,
// and keeps that. What it has done is seen from what lies where.
func (b *beginnings) swapRenewal(ctx context.Context, p int32) error {
	fresh, place, old := shardDir(b.renewals.aside(p), p), shardDir(StateDir(b.cfg), p), b.renewals.old(p)
	if disk.Exists(b.fs, fresh) {
		if !disk.Exists(b.fs, old) && disk.Exists(b.fs, place) {
			if err := disk.Move(b.fs, place, old); err != nil {
				return err
			}
		}
		if err := b.fs.RemoveAll(place); err != nil { // half of a move
			return err
		}
		if err := disk.Move(b.fs, fresh, place); err != nil {
			return err
		}
	}
	note, _ := b.renewals.of(p)
	until, err := b.reachable(ctx, p, note.Until)
	if err != nil {
		return err
	}
	note, err = b.renewals.change(p, func(n *renewal) { n.Moved, n.Until = true, until })
	b.log.Info("shard has a new state", "shard", p, "backup", note.Backup, "lineage", note.Lineage.ID)
	return err
}

// reachable is as much of a vector as the logs have.
func (b *beginnings) reachable(ctx context.Context, p int32, v events.Vector) (events.Vector, error) {
	ends, err := b.logEnds(ctx, p)
	if err != nil {
		return nil, err
	}
	reached := events.Vector{}
	for l, next := range v {
		if end := ends[l]; min(next, end) > 0 {
			reached[l] = min(next, end)
		}
	}
	return reached, nil
}

// putBack undoes a swap whose new state has turned out to be damaged.
func (b *beginnings) putBack(p int32) error {
	place, old := shardDir(StateDir(b.cfg), p), b.renewals.old(p)
	if disk.Exists(b.fs, place) || !disk.Exists(b.fs, old) {
		return nil
	}
	return disk.Move(b.fs, old, place)
}

// renewed is where a shard begins that is being restored while its node runs. not is true
// if that has nothing to say.
func (b *beginnings) renewed(ctx context.Context, p int32, damaged bool) (began beginning, not bool, err error) {
	note, is := b.renewals.of(p)
	if !is {
		return began, true, nil
	}
	if note.Moved && !note.Proved && damaged && isInPlace(b.fs, StateDir(b.cfg), p) {
		if err := b.forget(p); err != nil {
			return began, false, err
		}
		if note, err = b.renewals.change(p, func(n *renewal) { n.Moved, n.Compared, n.Damaged = false, false, append(n.Damaged, n.Backup) }); err != nil {
			return began, false, err
		}
	}
	if !note.Moved {
		if done, err := b.prepareRenewal(ctx, p); done || err != nil {
			return began, done, err
		}
		if err := b.swapRenewal(ctx, p); err != nil {
			return began, false, err
		}
		note, _ = b.renewals.of(p)
		return beginning{from: "what was restored out of " + describeBackup(note.Backup)}, false, nil
	}
	own, unseen := b.look(p)
	starts, err := b.logStarts(ctx, p, own.vector)
	if err != nil {
		return began, false, err
	}
	if unseen == nil && !lacks(own.vector, starts) {
		return beginning{from: describeOwn(own), epoch: own.epoch}, false, nil
	}
	return began, true, nil // what is wrong is found out, and mended, as always
}

func describeBackup(id string) string {
	if id == "" {
		return "the archive"
	}
	return "backup " + id
}

// lookRenewal does what is due for the renewal of an open shard. It is called with the keeper's
// lock.
func (k *keeper) lookRenewal(ctx context.Context, p int32, shard *openShard) {
	note, is := k.begin.renewals.of(p)
	if !is || k.renewing[p] || time.Now().Before(k.renewAt[p]) {
		return
	}
	do := func(ctx context.Context) error { return k.prepareAndClose(ctx, p, shard) }
	switch {
	case note.Proved:
		do = func(ctx context.Context) error { return k.forgetIfBackedUp(ctx, p, note) }
	case note.Moved && (shard.InPlace() != nil || behind(shard, note.Until) > 0):
		return
	case note.Moved:
		do = func(context.Context) error { return k.begin.proved(p) }
	}
	k.renewing[p] = true
	k.tasks.Go(func() {
		err := do(ctx)
		if err != nil && !ended(ctx) {
			k.log.Warn("the restore of a shard does not get on and is tried again", "shard", p, "error", err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.renewing[p], k.renewAt[p] = false, time.Now()
		if err != nil || note.Proved {
			k.renewAt[p] = time.Now().Add(openRetryMost)
		}
	})
}

// prepareAndClose makes the new state of a shard while the old one serves, and closes
// that.
func (k *keeper) prepareAndClose(ctx context.Context, p int32, shard *openShard) error {
	if done, err := k.begin.prepareRenewal(ctx, p); done || err != nil {
		return err
	}
	if _, err := k.begin.renewals.change(p, func(n *renewal) { n.Until = events.VectorOf(shard.Logs()) }); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if at := &k.places[p]; at.state == shardOpen && k.shards.get(p) == shard {
		at.state = shardClosing
		k.tasks.Go(func() { k.close(p, shard, errRenewed, 0) })
	}
	return nil
}

var errRenewed = events.Errorf(events.KindNotReady, "its state is replaced by one out of a backup")

// proved deletes the old state of a shard: the new one is proved, and where the old one
// was.
func (b *beginnings) proved(p int32) error {
	if err := errors.Join(b.fs.RemoveAll(b.renewals.old(p)), b.fs.RemoveAll(b.renewals.aside(p))); err != nil {
		return err
	}
	note, err := b.renewals.change(p, func(n *renewal) { n.Proved = true })
	if err == nil {
		b.log.Info("shard is restored", "shard", p, "backup", note.Backup, "took", time.Since(note.Began).String())
	}
	return err
}

// forgetIfBackedUp ends a renewal once a backup has the new state.
func (k *keeper) forgetIfBackedUp(ctx context.Context, p int32, note renewal) error {
	ids, err := k.begin.backups(ctx)
	if err != nil || len(ids) == 0 {
		return err
	}
	m, err := k.begin.usable(ctx, ids[len(ids)-1])
	if err == nil && m.Shards[p].Lineage == note.Lineage.ID {
		err = k.begin.renewals.end(p, nil)
	}
	return err
}
