package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// RestoreJob says what to restore to where.
type RestoreJob struct {
	Config  *config.Config
	Bucket  objstore.Bucket
	Opener  *seal.Opener // nil: the identity that is configured
	FS      vfs.FS       // nil: the real one
	Log     *slog.Logger
	Request timeline.Request
	Dir     string // state directory to make; must not exist or be empty

	// Keep what is proved after an error, so that the same job can go on. It is kept
	// in any case if the process is killed.
	Keep    bool
	Ends    events.Vector // where the region's own logs end; nil: that is not compared
	Lineage string        // of what is made; empty: a new one
	Anew    bool          // forget what a job that was broken off has done
	Claimed bool          // by a node that is running: the epoch is that of its claim

	// Compare what was restored with what other regions have attested, as far as the region's Kafka tells, before
	// it is in its place. A state that differs is refused unless AcceptDiverged.
	Compare        bool
	AcceptDiverged bool
	KafkaOpts      []kgo.Opt // of its clients; nil: as configured

	Planned func(*timeline.Plan) // told once how it will be done; may be nil
	Fetched func(bytes int64)    // told of every object that was fetched and verified; may be nil
}

func (job *RestoreJob) setDefaults() {
	if job.FS == nil {
		job.FS = vfs.Default
	}
	if job.Planned == nil {
		job.Planned = func(*timeline.Plan) {}
	}
	if job.Fetched == nil {
		job.Fetched = func(int64) {}
	}
}

// Restore brings a region back to where it was, in a new state directory, and proves it.
// The state is assembled beside Dir and moved there once it is proved, so Dir holds all
// of it or is not there. A restore that was broken off is gone on with if it is asked
// for the same, and else refused.
func Restore(ctx context.Context, job RestoreJob) (*api.Restored, error) {
	return newRestoring(job).run(ctx)
}

// notAhead refuses a vector that is further than the logs.
func (job *RestoreJob) notAhead(v events.Vector) error {
	if job.Ends == nil {
		return nil
	}
	if err := RefuseAhead(job.Config, v, job.Ends); err != nil {
		return fmt.Errorf("%w; if the node will read other logs than these, say so with --ahead", err)
	}
	return nil
}

// PlanRestore says how a restore would be done, and does nothing.
func PlanRestore(ctx context.Context, job RestoreJob) (*timeline.Plan, error) {
	_, plan, err := job.find(ctx)
	return plan, err
}

// find plans a restore, and refuses what cannot end well before anything is fetched.
func (job *RestoreJob) find(ctx context.Context) (*timeline.Timeline, *timeline.Plan, error) {
	src, err := newSource(job.Config, job.Bucket, job.Opener)
	if err != nil {
		return nil, nil, err
	}
	t, err := timeline.ReadShards(ctx, job.Bucket, src.Opener, job.Config.Region, job.Config.Partitions, job.Request.Shards)
	if err != nil {
		return nil, nil, err
	}
	t.Leave(func(s events.Stream) bool { _, is := job.Config.Streams[s]; return !is })
	plan, err := t.Plan(ctx, job.Request)
	if err != nil {
		return nil, nil, err
	}
	if len(plan.Left) > 0 {
		if err := job.takenOut(ctx, plan); err != nil {
			return nil, nil, err
		}
	}
	if len(plan.Chain) > 0 {
		err = checkFits(job.Config, plan.Chain.Newest())
	}
	for l := range plan.Vector {
		if _, ok := job.Config.Streams[l.Stream]; !ok && err == nil {
			err = events.Errorf(events.KindRefused, "the archive holds %s; the configuration has no stream %s", l, l.Stream)
		}
	}
	return t, plan, err
}

// takenOut makes sure that streams which are not configured were taken out of the configuration:
// the region's newest backup that tells was made without them, or the one that is restored. Else it is the wrong
// configuration that is restored with.
func (job *RestoreJob) takenOut(ctx context.Context, plan *timeline.Plan) error {
	newest, err := job.newestReadable(ctx)
	if err != nil {
		return err
	}
	if newest == nil && len(plan.Chain) > 0 {
		newest = plan.Chain.Newest()
	}
	for _, stream := range plan.Left {
		if newest == nil || newest.Merge[stream] != "" {
			return events.Errorf(events.KindRefused, "the bucket holds stream %s of %s; the configuration has no stream %s", stream, job.Config.Region, stream)
		}
		plan.Lacks = append(plan.Lacks, fmt.Sprintf("stream %s is not configured any more: nothing of it is folded, and what the backup has of it stays as it is", stream))
	}
	return nil
}

// newestReadable is the newest backup of which the manifest can be read, and no wrong clock has dated it in the
// future; nil: there is none. What is wrong with one backup is no reason to refuse another.
func (job *RestoreJob) newestReadable(ctx context.Context) (*format.Manifest, error) {
	ids, err := catalog.IDs(ctx, job.Bucket, job.Config.Region)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, id := range slices.Backward(ids) {
		if isAhead(id, now) {
			continue
		}
		m, err := catalog.Load(ctx, job.Bucket, job.Config.Region, id)
		switch events.KindOf(err) {
		case 0:
			return m, nil
		case events.KindNotFound, events.KindInconsistent, events.KindRefused: // pruned meanwhile, damaged, of a newer version
		default:
			return nil, err
		}
	}
	return nil, nil
}

// isAhead says whether the time in the id of a backup or a drill is still to come.
func isAhead(id string, now time.Time) bool {
	began, err := format.IDTime(id)
	return err == nil && catalog.Ahead(began, now)
}

// checkFits refuses a backup that the configuration has no place for.
func checkFits(cfg *config.Config, m *format.Manifest) error {
	if n := int32(len(m.Shards)); n != cfg.Partitions {
		return events.Errorf(events.KindRefused, "backup %s has %d shards, the configuration says %d partitions", m.ID, n, cfg.Partitions)
	}
	for stream, rule := range m.Merge {
		s, ok := cfg.Streams[stream]
		if !ok || s.Merge != rule {
			return events.Errorf(events.KindRefused, "backup %s holds stream %s, merged by %s; the configuration does not say so", m.ID, stream, rule)
		}
	}
	return nil
}

// PlanRestore implements api.Node.
func (r *Region) PlanRestore(ctx context.Context, p api.PlanRestoreParams) (*timeline.Plan, error) {
	if err := r.needBucket(); err != nil {
		return nil, err
	}
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.PlanRestore(ctx, p)
}

// Restore implements api.Node: it restores beside the running state.
func (r *Region) Restore(ctx context.Context, p api.RestoreParams) (*api.Restored, error) {
	if err := r.needBucket(); err != nil {
		return nil, err
	}
	if p.Name == "" || len(p.Name) > events.MaxNameBytes || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return nil, events.Errorf(events.KindInvalid, "restore: name %q: want letters, digits and dashes, 1 to %d bytes", p.Name, events.MaxNameBytes)
	}
	if p.Backup != "" {
		if p.Request.Backup != "" {
			return nil, events.Errorf(events.KindInvalid, "restore: a backup is named twice")
		}
		p.Request.Backup = p.Backup
	}
	if !r.restoring.TryLock() {
		return nil, events.Errorf(events.KindRefused, "restore: another restore is under way")
	}
	defer r.restoring.Unlock()
	dir := filepath.Join(r.cfg.DataDir, "restores", p.Name)
	if err := r.parts.FS.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("restore directory: %w", err)
	}
	opts, err := r.kafkaOpts(r.cfg.Region)
	if err != nil {
		return nil, err
	}
	return Restore(ctx, RestoreJob{
		Config: r.cfg, Bucket: r.parts.Bucket, FS: r.parts.FS, Log: r.log, Request: p.Request, Dir: dir, Anew: p.Anew,
		Compare: true, AcceptDiverged: p.AcceptDiverged, KafkaOpts: opts,
	})
}
