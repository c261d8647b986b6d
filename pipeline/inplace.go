package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

const (
	hydrateRetryLeast = time.Second
	hydrateRetryMost  = time.Minute

	// holdAgain is how often a backup is held anew that a shard still lies in.
	holdAgain = catalog.PinFor / 7

	// parallelInPlace is how many shards are restored in place at a time: it is waiting
	// for the bucket and for the disk, mostly.
	parallelInPlace = 8

	// parallelHydrations is how many shards of a node are brought here at a time.
	parallelHydrations = 2
)

// restoreInPlace makes the state of a shard below a directory of tables that stay in
// the bucket, under an epoch if it is not 0.
func (t *stateTarget) restoreInPlace(ctx context.Context, outside *outsideTables, chain catalog.Chain, partition int32, epoch events.Epoch) error {
	m := chain.Newest()
	layers, err := outside.layers(ctx, chain, partition)
	if err != nil {
		return err
	}
	sc, err := t.config(partition)
	if err != nil {
		return err
	}
	sc.Outside, sc.Epoch = outside, epoch
	if err := projections.RestoreInPlace(ctx, sc, m.ID, layers, m.Shards[partition].States); err != nil {
		return fmt.Errorf("restore of backup %s: %w", m.ID, err)
	}
	return disk.SyncDir(t.fs, t.dir) // before it is noted that the shard's directory is there
}

// OpenShard opens a shard of a state directory without a node.
func OpenShard(job RestoreJob, partition int32) (*projections.Shard, error) {
	if job.FS == nil {
		job.FS = vfs.Default
	}
	sc, err := shardConfig(job.Config, job.FS, job.Log, job.Dir, partition)
	if err != nil {
		return nil, err
	}
	sc.Outside = newOutsideTables(job.Config, job.Bucket, job.Opener)
	return openState(sc)
}

// worthInPlace says whether a shard of a backup is served out of the bucket until it is
// here. One that is small is here as soon.
func worthInPlace(cfg *config.Config, shard format.Shard) bool {
	var size int64 // of keys and slices, also those that a delta leaves where they were
	for _, st := range shard.States {
		size += st.Bytes
	}
	return cfg.Restore.Instant && len(shard.States) > 0 && size >= cfg.Restore.InstantFromBytes
}

// pinOwner is who holds a backup for a shard of a node, also after the node was started
// again.
func (b *beginnings) pinOwner(partition int32) string {
	return fmt.Sprintf("node %s, shard %d, which is still in it", b.node, partition)
}

// hold keeps a backup from being deleted that a shard still lies in.
func (b *beginnings) hold(ctx context.Context, m *format.Manifest, partition int32) error {
	err := catalog.Hold(ctx, b.bucket, m, b.pinOwner(partition))
	if errors.Is(err, objstore.ErrAccess) {
		b.log.Warn("the bucket may only be read: a prune could delete the backup that a shard is still in", "shard", partition, "backup", m.ID)
		return nil
	}
	return err
}

// readOutside has a shard read tables that lie in backups.
func (b *beginnings) readOutside(sc *projections.Config) {
	if b.outside != nil {
		sc.Outside = b.outside
	}
}

// forget removes the directory of a shard that lies in a backup and is no good.
func (b *beginnings) forget(partition int32) error {
	return b.fs.RemoveAll(shardDir(StateDir(b.cfg), partition))
}

// isInPlace tells whether the directory of a shard refers to tables outside.
func isInPlace(fs vfs.FS, stateDir string, partition int32) bool {
	_, err := fs.Stat(filepath.Join(shardDir(stateDir, partition), projections.InPlaceFile))
	return err == nil
}

// hydrate brings the tables of a shard here that lie in a backup, and proves them; as
// often as needed, until that is done, the shard turns out to be damaged, or the
// context ends. It is called from a task of its own, which has the shard in use.
func (k *keeper) hydrate(ctx context.Context, p int32, shard *openShard) {
	backup := shard.InPlace().Backup
	begun := time.Now()
	for wait := hydrateRetryLeast; ; wait = min(2*wait, hydrateRetryMost) {
		err := k.hydrateOnce(ctx, p, shard, backup)
		switch {
		case ended(ctx):
			return
		case err == nil:
			k.log.Info("shard is here and proved", "shard", p, "backup", backup, "took", time.Since(begun).String())
			return
		case events.KindOf(err) == events.KindInconsistent:
			k.giveUp(p, shard, err)
			return
		}
		shard.setHydrating(err)
		k.log.Warn("a shard cannot be brought here from its backup and is tried again", "shard", p, "backup", backup, "error", err)
		pause.For(ctx, wait)
	}
}

// hydrateOnce tries once, for a time. The backup is held meanwhile.
func (k *keeper) hydrateOnce(ctx context.Context, p int32, shard *openShard, backup string) error {
	ctx, cancel := context.WithTimeout(ctx, holdAgain)
	defer cancel()
	known, err := k.begin.outside.backup(ctx, backup)
	if err != nil {
		return err
	}
	if err := k.begin.hold(ctx, known.manifest, p); err != nil {
		return goneIsDamage(err)
	}
	select {
	case k.hydrations <- struct{}{}:
		defer func() { <-k.hydrations }()
	case <-ctx.Done():
		return ctx.Err()
	}
	shard.setHydrating(nil)
	proved := func(states []events.LogState) error { return k.begin.noteProved(p, shard.Lineage().ID, states) }
	if err := shard.HydrateThen(ctx, proved); err != nil {
		return err
	}
	if err := catalog.Release(ctx, k.begin.bucket, k.cfg.Region, backup, k.begin.pinOwner(p)); err != nil {
		k.log.Debug("a pin that is not needed any more was not removed; it ends by itself", "backup", backup, "error", err)
	}
	return nil
}

// goneIsDamage: a backup that does not exist any more is one that cannot be read.
func goneIsDamage(err error) error {
	if events.KindOf(err) == events.KindNotFound {
		return events.Errorf(events.KindInconsistent, "%w", err)
	}
	return err
}

// giveUp closes a shard whose tables in a backup are damaged. It is restored again, by
// copying, from a backup that is whole; what it had folded since is replayed from the logs.
func (k *keeper) giveUp(p int32, shard *openShard, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := &k.places[p]
	if at.state != shardOpen || k.shards.get(p) != shard {
		return // it is being closed already
	}
	k.log.Error("a shard that was served out of its backup is damaged, and is restored again", "shard", p, "error", err)
	at.state, k.damaged[p] = shardClosing, true
	k.tasks.Go(func() { k.close(p, shard, err, claims.ReclaimPause) })
}

// inPlaceStatus is how far a shard is here; nil: all of it.
func inPlaceStatus(shard *openShard) *api.InPlace {
	at := shard.InPlace()
	if at == nil {
		return nil
	}
	s := &api.InPlace{Backup: at.Backup, Bytes: at.Bytes, Left: at.Left}
	if err := shard.hydrating(); err != nil {
		s.Error = err.Error()
	}
	return s
}

// inPlaceProblems says which shards cannot be brought here at present.
func (s *shardSet) inPlaceProblems() (problems []string) {
	for _, p := range s.numbers() {
		if shard := s.get(p); shard != nil && shard.InPlace() != nil && shard.hydrating() != nil {
			problems = append(problems, fmt.Sprintf("shard %d is not brought here from its backup: %s", p, shard.hydrating()))
		}
	}
	return problems
}

// inPlaceGauges shows how much of a node's shards still lies in backups.
type inPlaceGauges struct {
	shards *shardSet
	left   *prometheus.Desc
}

func newInPlaceGauges(shards *shardSet) *inPlaceGauges {
	return &inPlaceGauges{shards: shards, left: prometheus.NewDesc("evenkeel_restore_in_place_bytes",
		"Bytes of tables that are read out of a backup until they are here.", []string{"shard"}, nil)}
}

// Describe implements prometheus.Collector.
func (g *inPlaceGauges) Describe(ch chan<- *prometheus.Desc) { ch <- g.left }

// Collect implements prometheus.Collector.
func (g *inPlaceGauges) Collect(ch chan<- prometheus.Metric) {
	for _, p := range g.shards.numbers() {
		if shard := g.shards.get(p); shard != nil {
			if at := shard.InPlace(); at != nil {
				ch <- prometheus.MustNewConstMetric(g.left, prometheus.GaugeValue, float64(at.Left), strconv.Itoa(int(p)))
			}
		}
	}
}
