package prune

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Config is what a prune goes by.
type Config struct {
	Region   events.Region
	Policy   Policy
	Software string // name and version of who prunes
}

// Report says what a prune did, or would do.
type Report struct {
	Region    events.Region       `json:"region"`
	DryRun    bool                `json:"dry_run"`
	Plan      int64               `json:"plan,omitzero"`  // number of the plan that was carried out
	Floor     string              `json:"floor,omitzero"` // nothing with this id or a lower one is published any more
	Backups   []Verdict           `json:"backups"`
	Leftovers []Leftover          `json:"leftovers"`
	Segments  []Segments          `json:"segments"` // of the archive, by shard
	Late      []string            `json:"late"`     // ids of manifests that make no backup exist: they go too
	Deleted   []string            `json:"deleted"`  // objects, in order
	Left      []inventory.Problem `json:"left"`     // objects that could not be deleted
	Held      []Held              `json:"held"`     // objects that Object Lock holds: else they would go, and what belongs to them

	held map[string]bool // the objects in Held
}

// Plan says what Run would do, and changes nothing.
func Plan(ctx context.Context, bucket interface {
	objstore.Reader
	objstore.Holder
}, cfg Config,
) (*Report, error) {
	locks := newLocks(bucket)
	inv, err := locks.take(ctx, cfg.Region)
	if err != nil {
		return nil, err
	}
	d, err := locks.judge(ctx, inv, cfg.Policy, "")
	if err != nil {
		return nil, err
	}
	report := cfg.report(inv)
	report.decided(d)
	report.DryRun = true
	if _, err := locks.late(ctx, inv, inv.Late, report); err != nil {
		return nil, err
	}
	gone := d.deletes()
	report.Segments, err = judgeSegments(ctx, bucket, locks, inv, cfg.Policy.Segment, func(id string) bool { return !slices.Contains(gone, id) })
	if err != nil {
		return nil, err
	}
	for _, s := range report.Segments {
		report.hold(s.Held)
	}
	return report, nil
}

func (cfg Config) report(inv *stock) *Report {
	return &Report{
		Region: cfg.Region, Segments: []Segments{}, Late: append([]string{}, inv.Late...), Deleted: []string{}, Left: []inventory.Problem{}, Held: []Held{},
		held: map[string]bool{},
	}
}

func (r *Report) decided(d *decision) {
	r.Backups, r.Leftovers = d.backups, d.leftovers
	for _, v := range d.backups {
		r.hold(v.Held)
	}
	for _, l := range d.leftovers {
		r.hold(l.Held)
	}
}

// hold notes what is held, once.
func (r *Report) hold(h *Held) {
	if h != nil && !r.held[h.Object] {
		r.Held = append(r.Held, *h)
		r.held[h.Object] = true
	}
}

// Run deletes what the policy does not keep. What an earlier prune has left half done
// is done first. With an error comes what has been done so far; the next Run goes on.
func Run(ctx context.Context, bucket objstore.Bucket, cfg Config) (*Report, error) {
	p := &pruner{bucket: bucket, cfg: cfg, locks: newLocks(bucket), deleted: map[string]bool{}}
	floor, err := catalog.NewestFloor(ctx, bucket, cfg.Region)
	if err != nil {
		return nil, err
	}
	plan, err := catalog.NewestPlan(ctx, bucket, cfg.Region)
	if err != nil {
		return nil, err
	}
	inv, err := p.locks.take(ctx, cfg.Region)
	if err != nil {
		return nil, err
	}
	p.report = cfg.report(inv)
	d, err := p.locks.judge(ctx, inv, cfg.Policy, "")
	if err != nil {
		return nil, err
	}
	p.report.decided(d)
	unplanned := floor != nil && (plan == nil || plan.Number < floor.Number)
	if !unplanned && d.below == "" {
		return p.report, p.finish(ctx, plan) // the rest of it, if there is any
	}
	if !unplanned {
		if floor, err = p.raise(ctx, floor, d.below); err != nil {
			return nil, err
		}
	}
	if plan, err = p.plan(ctx, floor); err != nil {
		return nil, err
	}
	return p.report, p.finish(ctx, plan)
}

// finish carries out a plan, and then looks what nobody needs of the archive any more.
func (p *pruner) finish(ctx context.Context, plan *format.Plan) error {
	if err := p.execute(ctx, plan); err != nil {
		return err
	}
	return p.deleteSegments(ctx)
}

// pruner is one prune under way.
type pruner struct {
	bucket  objstore.Bucket
	cfg     Config
	locks   *locks
	report  *Report
	deleted map[string]bool
}

// raise stores the next floor.
func (p *pruner) raise(ctx context.Context, old *format.Floor, below string) (*format.Floor, error) {
	floor := &format.Floor{
		Format: 1, Region: p.cfg.Region, Number: 1, Below: below,
		Created: time.Now().UTC().Truncate(time.Millisecond), Software: p.cfg.Software, Owner: newOwner(),
	}
	if old != nil {
		floor.Number, floor.Below = old.Number+1, max(below, old.Below)
	}
	text, err := floor.Encode()
	if err != nil {
		return nil, err
	}
	return floor, p.create(ctx, format.FloorName(p.cfg.Region, floor.Number), text)
}

// plan decides, under a floor that is stored, about everything at or below it, and
// stores the decision. If somebody else has done that, theirs counts.
func (p *pruner) plan(ctx context.Context, floor *format.Floor) (*format.Plan, error) {
	// Only now: what was published before the floor was stored is seen, and what is
	// not seen comes too late.
	inv, err := p.locks.take(ctx, p.cfg.Region)
	if err != nil {
		return nil, err
	}
	d, err := p.locks.judge(ctx, inv, p.cfg.Policy, floor.Below)
	if err != nil {
		return nil, err
	}
	p.report.decided(d)
	plan := &format.Plan{
		Format: 1, Region: p.cfg.Region, Number: floor.Number, Below: floor.Below,
		Created: time.Now().UTC().Truncate(time.Millisecond), Software: p.cfg.Software, Owner: newOwner(),
		Keep: []string{}, Delete: append([]string{}, d.deletes()...),
	}
	for _, v := range d.backups {
		if v.Keep && v.Backup <= floor.Below {
			plan.Keep = append(plan.Keep, v.Backup)
		}
	}
	text, err := plan.Encode()
	if err != nil {
		return nil, err
	}
	err = p.create(ctx, format.PlanName(p.cfg.Region, plan.Number), text)
	if errors.Is(err, objstore.ErrExists) {
		return catalog.NewestPlan(ctx, p.bucket, p.cfg.Region)
	}
	return plan, err
}

func (p *pruner) create(ctx context.Context, name string, text []byte) error {
	err := p.bucket.Create(ctx, name, text)
	if errors.Is(err, objstore.ErrExists) {
		return events.Errorf(events.KindRefused, "another prune is at work; try again: %w", err)
	}
	return err
}

func newOwner() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, by its contract
	return hex.EncodeToString(random[:])
}

// execute deletes what a plan does not keep. It may be done again, and by several at
// once.
func (p *pruner) execute(ctx context.Context, plan *format.Plan) error {
	if plan == nil {
		return nil
	}
	p.report.Plan, p.report.Floor = plan.Number, plan.Below
	// Only now: a restore that has pinned its backup since the plan was stored finds
	// out from the plan, and one that pinned it before is seen here.
	inv, err := p.locks.take(ctx, p.cfg.Region)
	if err != nil {
		return err
	}
	if len(inv.Late) > 0 && inv.Newest() == nil {
		return events.Errorf(events.KindRefused, "plan %d is not carried out: no backup that can be restored would be left", plan.Number)
	}
	var ids []string
	for _, id := range inv.Late {
		if inv.GivenUp(plan, id) && pinned(inv, id) == "" {
			ids = append(ids, id)
		}
	}
	names, err := p.locks.late(ctx, inv, ids, p.report)
	if err != nil {
		return err
	}
	if err := p.delete(ctx, names); err != nil {
		return err
	}
	if err := p.deleteTables(ctx, plan); err != nil {
		return err
	}
	names = nil
	for _, pin := range inv.Pins {
		if !pin.Holds(inv.now) {
			names = append(names, pin.Object)
		}
	}
	return p.delete(ctx, names)
}

// deleteTables deletes the tables at or below a plan's floor to which no manifest
// refers that is left.
func (p *pruner) deleteTables(ctx context.Context, plan *format.Plan) error {
	inv, err := p.locks.take(ctx, p.cfg.Region)
	if err != nil {
		return err
	}
	if inv.Newest() == nil {
		return nil
	}
	for _, b := range inv.Backups {
		if b.Manifest == nil {
			return events.Errorf(events.KindRefused, "no table is deleted while manifest %s cannot be read: %s", b.Problems[0].Object, b.Problems[0].Error)
		}
	}
	var names []string
	for id, objects := range inv.Unreferenced {
		if id > plan.Below || pinned(inv, id) != "" {
			continue
		}
		for _, info := range objects {
			names = append(names, info.Name)
		}
	}
	slices.Sort(names)
	return p.delete(ctx, names)
}

// deletedAtOnce is how many objects are deleted before it is noted that they are.
const deletedAtOnce = 1000

// delete deletes objects, which nobody needs any more: so it matters little in which
// order, and which of them if it is broken off. What Object Lock holds is left, and what else the
// store does not let go; both are reported.
func (p *pruner) delete(ctx context.Context, names []string) error {
	if err := p.locks.ask(ctx, names); err != nil {
		return err
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		held := p.locks.first([]string{name})
		p.report.hold(held)
		return held != nil
	})
	for part := range slices.Chunk(names, deletedAtOnce) {
		var failed error
		for i, err := range p.bucket.DeleteAll(ctx, part) {
			switch {
			case errors.Is(err, objstore.ErrAccess):
				p.report.Left = append(p.report.Left, inventory.Problem{Object: part[i], Error: err.Error()})
			case err != nil && failed == nil:
				failed = fmt.Errorf("%w; what is left is deleted by the next prune", err)
			case err == nil && !p.deleted[part[i]]:
				p.deleted[part[i]] = true
				p.report.Deleted = append(p.report.Deleted, part[i])
			}
		}
		if failed != nil {
			return failed
		}
	}
	return nil
}
