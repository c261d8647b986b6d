package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

// Backups are the backups of a region as its bucket has them. No node needs to run.
type Backups struct {
	Config *config.Config
	Bucket objstore.Bucket
	Copies map[string]objstore.Bucket // as configured
	Opener *seal.Opener               // nil: the identity that is configured
	FS     vfs.FS                     // of the data directory; nil: the real one
	Log    *slog.Logger

	cache      *catalog.Cache            // of manifests, for Status; nil: none
	copyCaches map[string]*catalog.Cache // of those of the copies, for Copy; nil: none
	kafkaOpts  []kgo.Opt                 // of the region's own Kafka; nil: as configured
}

// newSource is where a region's backups are restored from; given may be nil.
func newSource(cfg *config.Config, bucket objstore.Bucket, given *seal.Opener) (restore.Source, error) {
	opener, err := cfg.Opener(given)
	return restore.Source{Bucket: bucket, Opener: opener, Owner: fmt.Sprintf("%s, region %s", api.Software, cfg.Region)}, err
}

// List lists the backups that exist.
func (b Backups) List(ctx context.Context) (*api.BackupList, error) {
	all, err := catalog.All(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return nil, err
	}
	list := &api.BackupList{Backups: []api.Backup{}, Archive: []api.ArchiveRange{}}
	for _, m := range all {
		list.Backups = append(list.Backups, api.BackupOf(m))
	}
	if list.Archive, err = b.archive(ctx); err != nil {
		return nil, err
	}
	return list, nil
}

// archive says what there is of the archive: of each shard a listing, and two headers.
func (b Backups) archive(ctx context.Context) ([]api.ArchiveRange, error) {
	ranges := []api.ArchiveRange{}
	shards, err := segment.Shards(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return nil, err
	}
	for _, shard := range shards {
		all, newest, err := segment.List(ctx, b.Bucket, b.Config.Region, shard)
		if err != nil {
			return nil, err
		}
		run := segment.Run(all, newest) // what comes before a hole is left over
		if len(run) == 0 {
			continue
		}
		a := api.ArchiveRange{Shard: shard, From: run[0].Number, To: run[len(run)-1].Number, Segments: len(run)}
		for _, at := range run {
			a.Bytes += at.Size
		}
		for _, number := range []int64{a.From, a.To} {
			s, err := segment.Header(ctx, b.Bucket, b.Config.Region, shard, number)
			if err != nil {
				return nil, err
			}
			if number == a.From {
				a.Oldest = s.Created
			}
			a.Newest, a.Ends = s.Created, s.Ends
		}
		ranges = append(ranges, a)
	}
	return ranges, nil
}

// Show reads a backup's manifest.
func (b Backups) Show(ctx context.Context, p api.ShowBackupParams) (*api.BackupDetails, error) {
	m, err := findManifest(ctx, b.Bucket, b.Config.Region, p.Backup)
	if err != nil {
		return nil, err
	}
	return &api.BackupDetails{Manifest: m}, nil
}

// findManifest reads the manifest of a backup, of the newest if id is empty.
func findManifest(ctx context.Context, bucket objstore.Reader, r events.Region, id string) (*format.Manifest, error) {
	if id == "" {
		return catalog.Newest(ctx, bucket, r)
	}
	return catalog.Load(ctx, bucket, r, id)
}

// DefaultVerifyLevel is to which level backups are verified unless told otherwise.
const DefaultVerifyLevel = "hashes"

// Verify verifies backups.
func (b Backups) Verify(ctx context.Context, p api.VerifyBackupsParams, progress verify.Progress) (*verify.Report, error) {
	if p.All && p.Backup != "" {
		return nil, events.Errorf(events.KindInvalid, "verify: one backup or all, not both")
	}
	if p.Level == "" {
		p.Level = DefaultVerifyLevel
	}
	src, err := newSource(b.Config, b.Bucket, b.Opener)
	if err != nil {
		return nil, err
	}
	var ids []string
	if !p.All {
		if p.Backup == "" {
			if p.Backup, err = newestID(ctx, b.Bucket, b.Config.Region); err != nil {
				return nil, err
			}
		}
		ids = []string{p.Backup}
	}
	checks := verify.Checks{Decode: projections.CheckTable, Restore: b.prove, NewChain: digest.NewChain}
	report, err := verify.Run(ctx, src, b.Config.Region, ids, p.Level, checks, progress)
	if err == nil && len(report.Backups)+len(report.Archive) == 0 { // who asks whether all is well has something: this is another place
		return nil, events.Errorf(events.KindNotFound, "the bucket holds nothing of %s, neither backups nor an archive: is it the right bucket and prefix?", b.Config.Region)
	}
	return report, err
}

// newestID is the id of the newest backup, readable or not.
func newestID(ctx context.Context, bucket objstore.Reader, r events.Region) (string, error) {
	ids, err := catalog.IDs(ctx, bucket, r)
	if err == nil && len(ids) == 0 {
		_, err = catalog.Newest(ctx, bucket, r)
	}
	if err != nil {
		return "", err
	}
	return ids[len(ids)-1], nil
}

// files is the file system of the data directory.
func (b Backups) files() vfs.FS {
	if b.FS == nil {
		return vfs.Default
	}
	return b.FS
}

// prove restores a backup below the data directory, proves it and deletes it again.
func (b Backups) prove(ctx context.Context, m *format.Manifest) error {
	fs := b.files()
	scratch := filepath.Join(b.Config.DataDir, "scratch", "verify")
	if err := errors.Join(fs.RemoveAll(scratch), fs.MkdirAll(filepath.Dir(scratch), 0o755)); err != nil {
		return fmt.Errorf("scratch directory: %w", err)
	}
	_, err := Restore(ctx, RestoreJob{
		Config: b.Config, Bucket: b.Bucket, Opener: b.Opener, FS: fs, Log: b.Log, Dir: scratch,
		Request: timeline.Request{Target: timeline.Target{Backup: m.ID}}, Anew: true,
	})
	return errors.Join(err, fs.RemoveAll(scratch))
}

// Status reads the bucket.
func (b Backups) Status(ctx context.Context) (*api.BackupStatus, error) {
	inv, err := inventory.ReadCached(ctx, b.Bucket, b.Config.Region, b.cache)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	s := &api.BackupStatus{
		Keys: []string{}, Damaged: []string{}, Ahead: []string{}, Archive: []api.ArchivePoint{}, Checked: now, Backups: len(inv.Backups),
		Clock: inv.Agreed().UTC(), Points: inv.Points(b.Config.StreamNames(), now),
	}
	for _, id := range inv.Ahead(now) {
		s.Ahead = append(s.Ahead, format.ManifestName(b.Config.Region, id))
	}
	if c := b.Config.Backup; c != nil {
		sealer, err := c.Sealer()
		if err != nil {
			return nil, err
		}
		s.Encryption, s.Every, s.Keys = c.Encryption, c.Schedule.Full.Seconds(), append(s.Keys, sealer.Keys()...)
		s.DeltaEvery = c.Schedule.Delta.Seconds()
		s.DrillEvery, s.PruneEvery = c.Schedule.Drill.Seconds(), c.Schedule.Prune.Seconds()
		if opener, err := c.Opener(); err == nil && opener.Fits(sealer.Keys()) != nil {
			s.DrillEvery = 0 // a node could not open what it is to restore
		}
	}
	proofs, err := b.drillStatus(ctx, s)
	if err != nil {
		return nil, err
	}
	s.Recipients = recipients(inv, proofs, now)
	plan, err := catalog.NewestPlan(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return nil, err
	}
	switch {
	case plan == nil:
	case catalog.Ahead(plan.Created, now):
		s.Ahead = append(s.Ahead, format.PlanName(b.Config.Region, plan.Number))
	default:
		s.Pruned = &plan.Created
	}
	if full := inv.NewestFull(now); full != nil {
		s.NewestFull = full.Manifest.Created
	}
	for _, backup := range inv.Backups {
		if !backup.Restorable() {
			s.Damaged = append(s.Damaged, backup.ID)
		}
	}
	return s, nil
}

// Prune deletes old backups, or says which it would.
func (b Backups) Prune(ctx context.Context, p api.PruneBackupsParams) (*prune.Report, error) {
	cfg := prune.Config{Region: b.Config.Region, Software: api.Software}
	if c := b.Config.Backup; c != nil {
		cfg.Policy = prune.Policy{
			Full: c.Keep.Full, Last: c.KeepLast, Segment: c.Keep.Segment,
			Deltas: prune.Deltas{Finest: c.Keep.Delta60s, TenMinutes: c.Keep.Delta10m, Hours: c.Keep.Delta},
		}
	}
	if !p.Run {
		return prune.Plan(ctx, b.Bucket, cfg)
	}
	report, err := prune.Run(ctx, b.Bucket, cfg)
	if report != nil && len(report.Deleted) > 0 {
		b.Log.Info("backups pruned", "objects_deleted", len(report.Deleted), "plan", report.Plan)
	}
	if err != nil {
		return nil, err
	}
	return report, nil
}

// inBucket are the region's backups.
func (r *Region) inBucket() (Backups, error) {
	opts, err := r.kafkaOpts(r.cfg.Region)
	return Backups{Config: r.cfg, Bucket: r.parts.Bucket, Copies: r.parts.Copies, FS: r.parts.FS, Log: r.log, kafkaOpts: opts}, errors.Join(err, r.needBucket())
}

// ListBackups implements api.Node.
func (r *Region) ListBackups(ctx context.Context) (*api.BackupList, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.List(ctx)
}

// ShowBackup implements api.Node.
func (r *Region) ShowBackup(ctx context.Context, p api.ShowBackupParams) (*api.BackupDetails, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.Show(ctx, p)
}

// VerifyBackups implements api.Node. Verifying by restoring counts as a restore, of
// which there is one at a time.
func (r *Region) VerifyBackups(ctx context.Context, p api.VerifyBackupsParams) (*verify.Report, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	if p.Level == verify.Levels[len(verify.Levels)-1] {
		if !r.restoring.TryLock() {
			return nil, events.Errorf(events.KindRefused, "verify: a restore is under way")
		}
		defer r.restoring.Unlock()
	}
	return b.Verify(ctx, p, verify.Progress{})
}

// BackupStatus implements api.Node.
func (r *Region) BackupStatus(ctx context.Context) (*api.BackupStatus, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	s, err := b.Status(ctx)
	if err != nil {
		return nil, err
	}
	r.backups.saw(s, nil)
	whole, err := r.Status(ctx)
	if err != nil {
		return nil, err
	}
	s = r.backups.status()
	s.Archive = whole.Archive
	return s, nil
}

// PruneBackups implements api.Node.
func (r *Region) PruneBackups(ctx context.Context, p api.PruneBackupsParams) (*prune.Report, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	report, err := b.Prune(ctx, p)
	if p.Run && ctx.Err() == nil {
		r.backups.pruned(toPruneRun("", began, report, err))
	}
	return report, err
}

// newestBackup is the newest point that all streams can be restored to; zero: none.
func newestBackup(points []inventory.Point) time.Time {
	if len(points) == 0 || slices.ContainsFunc(points, func(p inventory.Point) bool { return p.Backup == "" }) {
		return time.Time{}
	}
	return slices.MinFunc(points, func(a, b inventory.Point) int { return a.Created.Compare(b.Created) }).Created
}
