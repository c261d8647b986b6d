package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

const (
	// samplesADay is in how many passes a day's budget is spent.
	samplesADay = 24

	// sampleSaved is how many passes' budget is saved at the most, so that a node that was away makes up for little.
	sampleSaved = 3

	// sampleCost is what any object costs at least of the budget: a request has its price too.
	sampleCost = 64 << 10

	// samplesNoted bounds what is remembered. What was looked at the longest ago is forgotten first, and so comes next.
	samplesNoted = 10_000

	// sampleFailures is how many objects may not be readable in a pass, for reasons that tell nothing of them, before it is
	// given up: one that never is keeps nobody from the others.
	sampleFailures = 3

	// sampleAgain is after which time damage is looked at again, whoever's turn it is.
	sampleAgain = 24 * time.Hour
)

// sampler looks at objects of the bucket between drills, at random, within a budget. One goroutine uses it.
type sampler struct {
	watch *backupWatch
	note  sampleNote
	err   error // why the last pass could not do all that it wanted
}

// sampleNote is what sample.json in the data directory holds: what this node has looked at, which another one that comes to
// schedule does not know.
type sampleNote struct {
	At       time.Time            `json:"at"`           // up to when the budget is counted
	Credit   int64                `json:"credit_bytes"` // less than 0: the last object was larger than what was left
	Verified map[string]time.Time `json:"verified"`     // when objects were last looked at, by name
	Damaged  []inventory.Problem  `json:"damaged"`      // of these, as they were found
	Objects  int                  `json:"objects"`      // that there were in the last pass; 0: it is not known
	Never    int                  `json:"never"`        // of these, that are not among Verified

	sampleMissing
}

// watchSamples looks at objects until the context ends.
func (w *backupWatch) watchSamples(ctx context.Context) {
	if w.region.cfg.Backup.SampleBytesPerDay == 0 {
		return
	}
	s := &sampler{watch: w}
	s.load()
	for range pause.Ticks(ctx, watchEvery) {
		if !w.region.schedules() {
			continue
		}
		switch now := time.Now(); {
		case now.Sub(s.note.At) >= 24*time.Hour/samplesADay || s.note.At.After(now):
			s.pass(ctx, now)
		case len(s.note.Suspected) > 0:
			s.confirm(ctx, now)
		}
		if ctx.Err() == nil {
			w.sampled(s.status())
		}
	}
}

func (s *sampler) path() string { return filepath.Join(s.watch.region.cfg.DataDir, "sample.json") }

// load goes on where the node was stopped. What is noted is only about what comes next: without it everything is
// looked at anew.
func (s *sampler) load() {
	r := s.watch.region
	if _, err := disk.ReadNote(r.parts.FS, s.path(), &s.note); err != nil {
		r.log.Warn("what was noted of the sampled objects cannot be read, they are sampled anew", "error", err)
		s.note = sampleNote{}
	}
	if s.note.Verified == nil {
		s.note.Verified = map[string]time.Time{}
	}
}

func (s *sampler) save() {
	r := s.watch.region
	if err := disk.WriteNote(r.parts.FS, s.path(), s.note); err != nil {
		r.log.Warn("what was sampled cannot be noted", "error", err)
	}
}

// pass spends what the budget has. That it was begun is noted first: a node that is killed again and again does not spend
// it again and again.
func (s *sampler) pass(ctx context.Context, now time.Time) {
	hourly := max(1, s.watch.region.cfg.Backup.SampleBytesPerDay/samplesADay)
	passes := int64(1)
	if !s.note.At.IsZero() && now.After(s.note.At) {
		passes = int64(now.Sub(s.note.At) / (24 * time.Hour / samplesADay))
	}
	s.note.At, s.note.Credit = now.UTC(), min(s.note.Credit+hourly*passes, sampleSaved*hourly)
	credit := s.note.Credit
	s.note.Credit = min(credit, 0)
	s.save()
	if credit <= 0 && !s.note.missingDue(now) {
		return
	}
	s.note.Credit = credit
	s.err = s.look(ctx, now)
	if s.err != nil && ctx.Err() == nil {
		s.watch.region.log.Warn("objects of the bucket could not be sampled", "error", s.err)
	}
	s.save()
}

// look looks at objects until the budget is spent, and whether any are missing if it is time.
func (s *sampler) look(ctx context.Context, now time.Time) error {
	r := s.watch.region
	src, _ := newSource(r.cfg, r.parts.Bucket, nil) // without an identity hashes are what can be looked at
	checks := verify.Checks{Decode: projections.CheckTable, NewChain: digest.NewChain}
	list, err := verify.List(ctx, src.Bucket, r.cfg.Region, &s.watch.cache)
	if err != nil {
		return err
	}
	var failed []error
	if s.note.missingDue(now) {
		if err := s.compare(ctx, list, now); err != nil {
			failed = append(failed, err)
		}
	}
	objects := list.Objects(src, checks)
	s.forget(objects)
	defer s.count(objects)
	for _, o := range s.order(objects, now) {
		if s.note.Credit <= 0 || len(failed) == sampleFailures {
			break
		}
		gone, err := o.Look(ctx)
		s.note.Credit -= max(o.Bytes, sampleCost)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case gone:
		case err == nil || events.KindOf(err) == events.KindInconsistent:
			s.looked(o, time.Now().UTC(), err)
		default:
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// forget lets go of what is not in the bucket any more, and of what was looked at the longest ago if it is too much.
func (s *sampler) forget(objects []verify.Object) {
	there := map[string]bool{}
	for _, o := range objects {
		there[o.Name] = true
	}
	maps.DeleteFunc(s.note.Verified, func(name string, _ time.Time) bool { return !there[name] })
	s.note.Damaged = slices.DeleteFunc(slices.Clone(s.note.Damaged), func(p inventory.Problem) bool { return !there[p.Object] })
	if more := len(s.note.Verified) - samplesNoted; more > 0 {
		names := slices.SortedFunc(maps.Keys(s.note.Verified), func(a, b string) int { return s.note.Verified[a].Compare(s.note.Verified[b]) })
		for _, name := range names[:more] {
			delete(s.note.Verified, name)
		}
	}
}

// order is what to look at first: known damage that is to be looked at again, and then, of backups and segments in
// turn, what was never looked at, at random, and what was the longest ago. In turn, because segments are many
// and gone soon, and all of a backup is needed.
func (s *sampler) order(objects []verify.Object, now time.Time) []verify.Object {
	var again, backups, segments []verify.Object
	rand.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	for _, o := range objects {
		switch at := s.note.Verified[o.Name]; {
		case s.isDamaged(o.Name) && now.Sub(at) >= sampleAgain:
			again = append(again, o)
		case o.Segment:
			segments = append(segments, o)
		default:
			backups = append(backups, o)
		}
	}
	for _, list := range [][]verify.Object{backups, segments} {
		slices.SortStableFunc(list, func(a, b verify.Object) int { return s.note.Verified[a.Name].Compare(s.note.Verified[b.Name]) })
	}
	order := again
	for i := range max(len(backups), len(segments)) {
		if i < len(backups) {
			order = append(order, backups[i])
		}
		if i < len(segments) {
			order = append(order, segments[i])
		}
	}
	return order
}

func (s *sampler) isDamaged(name string) bool {
	return slices.ContainsFunc(s.note.Damaged, func(p inventory.Problem) bool { return p.Object == name })
}

// looked notes what was found of an object; err is nil or says how it is damaged.
func (s *sampler) looked(o verify.Object, at time.Time, err error) {
	r := s.watch.region
	r.metrics.sampled(o.Bytes, err)
	s.note.Verified[o.Name] = at
	s.note.Damaged = slices.DeleteFunc(slices.Clone(s.note.Damaged), func(p inventory.Problem) bool { return p.Object == o.Name })
	if err == nil {
		return
	}
	r.log.Error("an object of the backups is damaged", "object", o.Name, "error", err)
	s.note.Damaged = append(s.note.Damaged, inventory.Problem{Object: o.Name, Error: strings.TrimPrefix(err.Error(), "object "+o.Name+": ")})
	slices.SortFunc(s.note.Damaged, func(a, b inventory.Problem) int { return cmp.Compare(a.Object, b.Object) })
}

func (s *sampler) count(objects []verify.Object) {
	s.note.Objects, s.note.Never = len(objects), 0
	for _, o := range objects {
		if _, is := s.note.Verified[o.Name]; !is {
			s.note.Never++
		}
	}
}

// status is what is told of it. It shares nothing that changes.
func (s *sampler) status() *api.SampleStatus {
	status := &api.SampleStatus{BytesPerDay: s.watch.region.cfg.Backup.SampleBytesPerDay, Damaged: s.problems()}
	if at := s.note.Listed; !at.IsZero() {
		status.Listed = &at
	}
	if s.err != nil {
		status.Error = s.err.Error()
	}
	if there, never := s.note.Objects, s.note.Never; there > 0 {
		status.Objects, status.Never = &there, &never
	}
	for _, at := range s.note.Verified {
		if status.Newest == nil || at.After(*status.Newest) {
			status.Newest = &at
		}
		if status.Oldest == nil || at.Before(*status.Oldest) {
			status.Oldest = &at
		}
	}
	return status
}

// sampled notes how sampling goes.
func (w *backupWatch) sampled(s *api.SampleStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sample = s
}

// sampleProblems tells what needs an eye.
func sampleProblems(s *api.SampleStatus) (problems []string) {
	if s == nil {
		return nil
	}
	if n := len(s.Damaged); n > 0 {
		problems = append(problems, fmt.Sprintf("%d objects in the bucket are damaged or missing, e.g. %s: %s; see: evenkeel backup verify --all", n, s.Damaged[0].Object, s.Damaged[0].Error))
	}
	if s.Error != "" {
		problems = append(problems, fmt.Sprintf("objects of the bucket cannot be looked at between drills: %s", s.Error))
	}
	return problems
}
