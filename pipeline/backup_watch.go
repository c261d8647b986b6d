package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// backupWatch reads the bucket now and then, so that what the node says of its
// backups is what is there, and makes the scheduled ones. A nil one watches nothing.
type backupWatch struct {
	region *Region
	sealer *seal.Sealer
	unfit  error // no identity is configured that opens what is sealed here; nil: one is, or it cannot be read at present

	mu       sync.Mutex
	underWay int               // backups
	seen     *api.BackupStatus // as the bucket was last read; nil: never
	failed   error             // why it could not be read since, nil if it could
	last     *api.BackupRun    // nil: none
	drills   time.Time         // when this node has last tried a drill
	copies   []api.CopyStatus  // as this node has last made them, or looked at them
	sample   *api.SampleStatus // nil: this node does not sample
	deltas   deltaWatch
	prunes   pruneWatch
	groups   error // why the last backup is without offsets of consumer groups; nil: it is not

	behind time.Time // since when the node's clock is seen to be behind; zero: it is not

	cache      catalog.Cache
	copyCaches map[string]*catalog.Cache // by copy
	copyDrills map[string]copyDrill      // by copy
}

const (
	watchEvery  = 5 * time.Minute
	watchPasses = 4 // at least so many in each interval of the schedule
)

func newBackupWatch(r *Region) (*backupWatch, error) {
	if r.parts.Bucket == nil {
		return nil, nil
	}
	if r.cfg.Backup == nil {
		return nil, events.Errorf(events.KindInvalid, "a bucket without a configuration of backups: it would not be known how to seal them")
	}
	sealer, err := r.cfg.Backup.Sealer()
	if err != nil {
		return nil, err
	}
	w := &backupWatch{region: r, sealer: sealer, copyCaches: map[string]*catalog.Cache{}}
	for name := range r.parts.Copies {
		w.copyCaches[name] = &catalog.Cache{}
	}
	if opener, err := r.cfg.Backup.Opener(); err == nil {
		w.unfit = opener.Fits(sealer.Keys())
	}
	return w, nil
}

// run watches until the context ends.
func (w *backupWatch) run(ctx context.Context) {
	every := watchEvery
	if full := w.region.cfg.Backup.Schedule.Full; full > 0 {
		every = min(every, full/watchPasses)
	}
	pass, moved := time.NewTicker(every), time.NewTicker(keepInterval)
	defer pass.Stop()
	defer moved.Stop()
	for {
		w.look(ctx)
		// Once in each pass; a failed backup is tried again at the next. While a backup is
		// due and it is not this node's to make, it may become so: nodes open their
		// shards after the start, and take over those of others.
		for tried, over := w.back(ctx), false; !over; {
			select {
			case <-ctx.Done():
				return
			case <-pass.C:
				over = true
			case <-moved.C:
				if !w.region.schedules() {
					w.forget()
				}
				if !tried && w.due(time.Now()) && w.region.schedules() {
					w.look(ctx) // the node before may have made it
					tried = w.back(ctx)
				}
				w.delta(ctx)
			}
		}
	}
}

// back makes a backup if one is due, and reports whether it has tried. The result is
// noted and logged.
func (w *backupWatch) back(ctx context.Context) (tried bool) {
	if !w.due(time.Now()) || !w.region.schedules() {
		return false
	}
	if _, err := w.region.CreateBackup(ctx); err == nil {
		w.look(ctx)
	}
	return true
}

// schedules says whether this node makes the region's scheduled backups: one of the
// region's nodes does.
func (r *Region) schedules() bool { return r.shards.get(0) != nil }

// look reads the bucket.
func (w *backupWatch) look(ctx context.Context) {
	b, err := w.region.inBucket()
	if err != nil {
		return
	}
	b.cache = &w.cache
	s, err := b.Status(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.region.log.Warn("the bucket of the backups cannot be read", "error", err)
	}
	w.saw(s, err)
}

func (w *backupWatch) saw(s *api.BackupStatus, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
	if err == nil {
		w.seen = s
	}
}

// forget lets go of how this node's own work went, while another node schedules: it knows better,
// and what went wrong here would be told for ever.
func (w *backupWatch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.groups, w.copies, w.copyDrills, w.sample = nil, nil, nil, nil, nil
	w.deltas.last, w.deltas.stop = nil, ""
	w.prunes.last = nil
}

// begin notes that a backup is under way until the returned function is called.
func (w *backupWatch) begin() (end func()) {
	w.add(+1)
	return func() { w.add(-1) }
}

func (w *backupWatch) add(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.underWay += n
}

// made notes how a backup went.
func (w *backupWatch) made(began time.Time, m *format.Manifest, err error) {
	run := toRun(began, m, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = run
}

// haveGroups notes whether the offsets of consumer groups could be had for a backup.
func (w *backupWatch) haveGroups(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.groups = err
}

func toRun(began time.Time, m *format.Manifest, err error) *api.BackupRun {
	run := &api.BackupRun{Began: began.UTC(), Duration: time.Since(began).Seconds()}
	if err != nil {
		run.Error = err.Error()
	} else {
		run.Backup, run.Bytes = m.ID, m.StoredBytes()
	}
	return run
}

// due says whether a scheduled full backup is to be made: the last time for one is later
// than the newest that can be restored and has all streams that are configured, and none is under way. Not
// knowing what is in the bucket is no reason: writing to it would fail too.
func (w *backupWatch) due(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	full := w.region.cfg.Backup.Schedule.Full
	if full == 0 || w.underWay > 0 || w.failed != nil || w.seen == nil || w.waitsForClock(now) {
		return false
	}
	slot := lastSlot(w.region.cfg.Region, full, now)
	return w.seen.NewestFull.Before(slot) || newestBackup(w.configured(w.seen.Points)).Before(slot)
}

// waitsForClock says that no scheduled backup is made because the node's clock is behind, by those
// of who made a backup and of the bucket: it would be dated before what is in it. That ends
// after a while, however wrong the clock still is: it may be the others that
// were ahead together, and a backup that is dated wrong is better than none. The caller holds the
// watch's mu.
func (w *backupWatch) waitsForClock(now time.Time) bool {
	if !catalog.Ahead(w.seen.Clock, now) {
		w.behind = time.Time{}
		return false
	}
	if w.behind.IsZero() {
		w.behind = now
	}
	return now.Sub(w.behind) < w.clockPatience()
}

// clockPatience is an interval of full backups, and a day at most: deltas wait for it, too.
func (w *backupWatch) clockPatience() time.Duration {
	const day = 24 * time.Hour
	return min(cmp.Or(w.region.cfg.Backup.Schedule.Full, day), day)
}

// configured are the points of streams that are configured: nothing is backed up of others,
// which older backups hold.
func (w *backupWatch) configured(points []inventory.Point) []inventory.Point {
	return slices.DeleteFunc(slices.Clone(points), func(p inventory.Point) bool { _, is := w.region.cfg.Streams[p.Stream]; return !is })
}

// lastSlot is the last time for a backup of a region at or before now. Regions have
// different ones, so that they do not all back up at once; they are always the same.
func lastSlot(r events.Region, every time.Duration, now time.Time) time.Time {
	h := fnv.New64a()
	_, _ = h.Write([]byte(r))                                                // never fails, by its contract
	offset := time.Duration(h.Sum64() % uint64(every)).Truncate(time.Second) // ids of backups know no finer time than milliseconds
	since := time.Duration(now.UnixNano()) - offset
	return time.Unix(0, int64(since.Truncate(every)+offset)).UTC()
}

// status is what was last seen.
func (w *backupWatch) status() *api.BackupStatus {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		return nil
	}
	s := *w.seen
	if w.failed != nil {
		s.Error = w.failed.Error()
	}
	s.Last, s.LastDelta = w.last, w.deltas.last
	s.Copies, s.Prunes, s.Sample = w.copyStatus(), w.prunes.last, w.sample
	return &s
}

// problems tells what needs an eye.
func (w *backupWatch) problems() (problems []string) {
	if w == nil {
		return nil
	}
	if len(w.sealer.Keys()) == 0 {
		problems = append(problems, "BACKUPS ARE NOT ENCRYPTED: whoever can read the bucket can read all values (backup.encryption: none)")
	}
	if w.unfit != nil {
		problems = append(problems, fmt.Sprintf("this node cannot open its backups: it makes no restore drills, and begins with the logs where it has to begin a shard anew: %s", w.unfit))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		problems = append(problems, fmt.Sprintf("the bucket of the backups cannot be read: %s", w.failed))
	}
	if w.last != nil && w.last.Error != "" {
		problems = append(problems, fmt.Sprintf("the backup of %s failed: %s", w.last.Began.Format(time.RFC3339), w.last.Error))
	}
	if w.groups != nil {
		problems = append(problems, fmt.Sprintf("backups go without offsets of consumer groups (backup.groups): %s", w.groups))
	}
	problems = append(problems, copyProblems(w.copyStatus())...)
	problems = append(problems, sampleProblems(w.sample)...)
	problems = append(problems, w.deltas.problems(time.Now())...)
	problems = append(problems, w.prunes.problems()...)
	if w.seen != nil && w.seen.Drill != nil && w.seen.Drill.Error != "" {
		problems = append(problems, fmt.Sprintf("%s (drill %s); see: evenkeel drill show", w.seen.Drill.Error, w.seen.Drill.ID))
	}
	if w.seen != nil {
		for _, why := range w.seen.DrillsUnread {
			problems = append(problems, fmt.Sprintf("a report of a restore drill cannot be read, and is passed over: %s", why))
		}
		now := time.Now()
		if catalog.Ahead(w.seen.Clock, now) {
			meanwhile := fmt.Sprintf("until the clock is right no scheduled backups are made, for %s at most", w.clockPatience())
			if !w.waitsForClock(now) {
				meanwhile = "that has been so for long, so they are made all the same, dated by this clock"
			}
			problems = append(problems, fmt.Sprintf("this node's clock is %s behind: the bucket has a backup that was made at %s, by the clock of who made it and by the bucket's; %s",
				w.seen.Clock.Sub(now).Round(time.Second), w.seen.Clock.Format(time.RFC3339), meanwhile))
		} else if n := len(w.seen.Ahead); n > 0 {
			problems = append(problems, fmt.Sprintf("%d objects in the bucket are dated in the future, e.g. %s: a clock was wrong, or this machine's is; they count for nothing where ages and times for backups are reckoned, and restores take such a backup for the newest", n, w.seen.Ahead[0]))
		}
	}
	if w.seen != nil && len(w.seen.Damaged) > 0 {
		problems = append(problems, fmt.Sprintf("objects of %d backups are missing or damaged, e.g. of %s; see: evenkeel backup verify --all --level manifests", len(w.seen.Damaged), w.seen.Damaged[0]))
	}
	return problems
}

var infinite = math.Inf(1)

// ageOf is an age as gauges show it: +Inf if there is no time, or one that is still to come, of
// which nobody knows how long ago it was.
func ageOf(at time.Time) float64 {
	now := time.Now()
	if at.IsZero() || catalog.Ahead(at, now) {
		return infinite
	}
	return max(0, now.Sub(at).Seconds())
}

// ageIf is ageOf a time that may not be there.
func ageIf(at *time.Time) float64 {
	if at == nil {
		return infinite
	}
	return ageOf(*at)
}

// provedAge is the age of the newest state that drills have proved.
func provedAge(d *api.DrillStatus) float64 {
	if d == nil {
		return infinite
	}
	return ageIf(d.Proved)
}

// drillFailed is 1 if restores of the newest drill failed.
func drillFailed(d *api.DrillStatus) float64 {
	if d != nil && d.Error != "" {
		return 1
	}
	return 0
}

// backupGauges shows what a watch has seen whenever it is asked.
type backupGauges struct {
	watch                                          *backupWatch
	age, checked, duration, stored, proved, failed *prometheus.Desc
	copied, archived, hollow                       *prometheus.Desc // of copies
	drilled, drillFailed, drillEvery, drillOpened  *prometheus.Desc // likewise
	sampledDamaged, sampledNever, sampledAge       *prometheus.Desc
	stopped, full, pruned, opened                  *prometheus.Desc
}

func newBackupGauges(w *backupWatch) *backupGauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &backupGauges{
		watch:       w,
		age:         desc("evenkeel_backup_age_seconds", "Age of the newest backup of a stream that can be restored, by reading the bucket; +Inf: there is none.", "stream"),
		checked:     desc("evenkeel_backup_checked_age_seconds", "Since the bucket was last read; +Inf: never."),
		duration:    desc("evenkeel_backup_last_duration_seconds", "How long the node's last backup took."),
		stored:      desc("evenkeel_backup_last_bytes", "Bytes that the node's last backup has in the bucket; 0: it failed."),
		proved:      desc("evenkeel_backup_proved_age_seconds", "Age of the newest state that a restore drill has proved, by reading the bucket; +Inf: none."),
		opened:      desc("evenkeel_backup_recipient_proved_age_seconds", "Age of the newest state that a restore drill has proved with this key alone, of the keys that the newest backup is sealed for, by reading the bucket; +Inf: never.", "recipient"),
		copied:      desc("evenkeel_backup_copy_age_seconds", "Age of the newest restorable backup in a copy, by reading it; +Inf: none. Told by the node that copies.", "copy"),
		archived:    desc("evenkeel_backup_copy_archive_age_seconds", "Since when a copy may lack segments of the archive; +Inf: it is not known to have ever had all. Told by the node that copies.", "copy"),
		hollow:      desc("evenkeel_backup_copy_damaged", "Backups in a copy of which objects are missing or have another size, by reading it. Told by the node that copies; absent if it could not be read yet.", "copy"),
		drilled:     desc("evenkeel_backup_copy_proved_age_seconds", "Age of the newest state that a restore drill of a copy has proved, by reading it; +Inf: none. Told by the node that copies; absent if the copy could not be read yet.", "copy"),
		drillFailed: desc("evenkeel_backup_copy_drill_failed", "1 if restores of the newest restore drill of a copy failed, else 0, by reading it. Told as the age of what is proved.", "copy"),
		drillEvery:  desc("evenkeel_backup_copy_drill_every_seconds", "How often a copy is drilled by schedule; 0: it is not, or it is archived. Told by the node that copies.", "copy"),
		drillOpened: desc("evenkeel_backup_copy_recipient_proved_age_seconds", "Age of the newest state that a restore drill of a copy has proved with this key alone, of the keys that the copy's newest backup is sealed for; +Inf: never. Told as the age of what is proved.", "copy", "recipient"),
		full:        desc("evenkeel_backup_full_age_seconds", "Age of the newest full backup that can be restored, by reading the bucket; +Inf: there is none."),
		stopped:     desc("evenkeel_backup_deltas_stopped", "1 if the node makes no deltas before the next full backup, else 0."),
		pruned:      desc("evenkeel_backup_pruned_age_seconds", "Since old backups were last pruned, by this node or by the bucket's newest plan; +Inf: never. Not told if backup.schedule.prune is off."),
		failed:      desc("evenkeel_backup_drill_failed", "1 if restores of the newest restore drill failed, else 0."),

		sampledDamaged: desc("evenkeel_backup_sampled_damaged", "Objects of the bucket that were damaged when they were last looked at between drills, or that two listings lack. Told, as all of sampling, by the node that schedules."),
		sampledNever:   desc("evenkeel_backup_sampled_never", "Objects of the bucket that were not looked at between drills, as far as the node remembers; absent if it is not known yet."),
		sampledAge:     desc("evenkeel_backup_sampled_age_seconds", "Since an object of the bucket was last looked at between drills; +Inf: none was."),
	}
}

// Describe implements prometheus.Collector.
func (g *backupGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.age
	ch <- g.checked
	ch <- g.duration
	ch <- g.stored
	ch <- g.proved
	ch <- g.opened
	ch <- g.failed
	ch <- g.copied
	ch <- g.archived
	ch <- g.hollow
	ch <- g.drilled
	ch <- g.drillFailed
	ch <- g.drillEvery
	ch <- g.drillOpened
	ch <- g.sampledDamaged
	ch <- g.sampledNever
	ch <- g.sampledAge
	ch <- g.stopped
	ch <- g.full
	ch <- g.pruned
}

// Collect implements prometheus.Collector.
func (g *backupGauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := g.watch.status()
	if s == nil {
		gauge(g.checked, infinite)
		return
	}
	gauge(g.checked, time.Since(s.Checked).Seconds())
	gauge(g.proved, provedAge(s.Drill))
	gauge(g.failed, drillFailed(s.Drill))
	for _, r := range s.Recipients {
		gauge(g.opened, ageIf(r.Proved), r.Key)
	}
	for _, c := range s.Copies {
		g.collectCopy(gauge, c)
	}
	if c := s.Sample; c != nil {
		gauge(g.sampledDamaged, float64(len(c.Damaged)))
		if c.Never != nil {
			gauge(g.sampledNever, float64(*c.Never))
		}
		gauge(g.sampledAge, ageIf(c.Newest))
	}
	stopped := 0.0
	if g.watch.deltasStopped() {
		stopped = 1
	}
	gauge(g.stopped, stopped)
	if s.PruneEvery > 0 {
		gauge(g.pruned, g.watch.prunedAge())
	}
	gauge(g.full, ageOf(s.NewestFull))
	for _, p := range g.watch.configured(s.Points) {
		gauge(g.age, ageOf(p.Created), string(p.Stream))
	}
	if s.Last != nil {
		gauge(g.duration, s.Last.Duration)
		gauge(g.stored, float64(s.Last.Bytes))
	}
}

// collectCopy shows what is known of a copy.
func (g *backupGauges) collectCopy(gauge func(d *prometheus.Desc, v float64, labels ...string), c api.CopyStatus) {
	gauge(g.copied, ageIf(c.Newest), c.Copy)
	gauge(g.archived, ageIf(c.Archived), c.Copy)
	gauge(g.drillEvery, c.DrillEvery, c.Copy)
	if c.Checked == nil {
		return
	}
	gauge(g.hollow, float64(c.Damaged), c.Copy)
	gauge(g.drilled, provedAge(c.Drill), c.Copy)
	gauge(g.drillFailed, drillFailed(c.Drill), c.Copy)
	for _, r := range c.Recipients {
		gauge(g.drillOpened, ageIf(r.Proved), c.Copy, r.Key)
	}
}
