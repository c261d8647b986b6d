// Package faults puts a bucket in front of another that breaks calls as told: it fails
// before or after the work is done, tears and delays what is created, and damages what is
// read. It is for tests, and for whoever wants to see what a store's failures do.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Effect is what a [Rule] does to a call.
type Effect int

// The effects. Those on bodies concern Get and GetRange only, Late and Torn only Create.
const (
	// Wait does nothing but wait for Rule.Delay.
	Wait Effect = iota
	// FailBefore fails without calling the bucket: nothing is stored.
	FailBefore
	// FailAfter calls the bucket and loses the answer: the write is done. A List
	// breaks after some entries.
	FailAfter
	// Late fails a Create now and stores the object only when the test calls
	// [Bucket.Land]: the delayed upload that arrives after everybody
	// has given it up.
	Late
	// Torn fails a Create and stores the beginning of the object: what no store may do
	// that keeps the contract. Nobody can put the whole of it there any more.
	Torn
	// Conflict fails as a store that keeps answering 409 does: not stored.
	Conflict
	// Deny fails as a store that refuses the credentials does: not stored.
	Deny
	// TearBody ends the body early with [objstore.ErrCorrupt], as a cut connection does.
	TearBody
	// TruncateBody ends the body early with a plain io.EOF: damage which only
	// the caller's own length or hash reveals.
	TruncateBody
	// FlipBit changes one bit of the body: damage which only a hash reveals.
	FlipBit
)

func (e Effect) String() string {
	names := [...]string{"wait", "fail before", "fail after", "late", "torn", "conflict", "deny", "tear body", "truncate body", "flip bit"}
	if e < 0 || int(e) >= len(names) {
		return fmt.Sprintf("effect %d", int(e))
	}
	return names[e]
}

// Rule says which calls of a [Bucket] go wrong, and how. The zero value
// of each condition matches everything; all conditions must hold.
type Rule struct {
	Ops         []string      // Op constants; empty: every operation
	Name        string        // pattern of the name or list prefix in which "*" stands for any bytes, "/" too; empty: every name
	Nth         int           // only the nth call that Ops and Name match, from 1; 0: every one
	Times       int           // at most so many times; 0: no bound
	Probability float64       // of each call, 0 to 1; 0: always
	Delay       time.Duration // waited before the effect; ends early with the context
	Effect      Effect
	Err         error // kind for FailBefore, FailAfter, Late and Torn; nil: objstore.ErrUnavailable
}

// Injected is one fault that a [Bucket] caused.
type Injected struct {
	Call   int // number of the call, from 1
	Op     string
	Name   string
	Rule   int // index of the rule
	Effect Effect
}

func (i Injected) String() string {
	return fmt.Sprintf("call %d: %s %q: %s (rule %d)", i.Call, i.Op, i.Name, i.Effect, i.Rule)
}

// logMax bounds what Log keeps.
const logMax = 10_000

// Bucket passes calls to a bucket, breaking those that its rules match.
type Bucket struct {
	b objstore.Bucket

	mu    sync.Mutex
	seed  uint64
	rules []ruleState
	calls int
	log   []Injected
	late  []lateCreate
}

type ruleState struct {
	Rule
	matched int // calls that Ops and Name matched
	done    int // times it struck
	rng     *rand.Rand
}

type lateCreate struct {
	name string
	body []byte
}

var _ objstore.Bucket = (*Bucket)(nil)

// New is [NewSeed] with seed 1.
func New(b objstore.Bucket, rules ...Rule) *Bucket { return NewSeed(b, 1, rules...) }

// NewSeed decorates b with faults. The rules are looked at in order for each
// call: those that only wait add up, the first with another effect is the last.
// Each rule draws from its own generator made of seed and its index, so the same
// calls in the same order meet the same faults.
func NewSeed(b objstore.Bucket, seed uint64, rules ...Rule) *Bucket {
	f := &Bucket{b: b, seed: seed}
	f.SetRules(rules...)
	return f
}

// SetRules replaces the rules and starts their counters and generators anew;
// none heals the bucket.
func (f *Bucket) SetRules(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = make([]ruleState, len(rules))
	for i, r := range rules {
		f.rules[i] = ruleState{Rule: r, rng: rand.New(rand.NewPCG(f.seed, uint64(i)))}
	}
}

// Log returns the faults so far, oldest first, at most the first 10,000.
func (f *Bucket) Log() []Injected {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// Land performs the creations that Late held back, oldest first, and returns
// what the bucket said to each.
func (f *Bucket) Land(ctx context.Context) []error {
	f.mu.Lock()
	late := f.late
	f.late = nil
	f.mu.Unlock()
	errs := make([]error, len(late))
	for i, c := range late {
		errs[i] = f.b.Create(ctx, c.name, c.body)
	}
	return errs
}

// fault is what one call must suffer.
type fault struct {
	effect Effect
	kind   error
	roll   uint64 // drawn for effects that need a place
}

// strike finds out what happens to a call, waits, and returns the fault.
func (f *Bucket) strike(ctx context.Context, op, name string) (fault, error) {
	hit, delay := f.draw(op, name)
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fault{}, &objstore.Error{Op: op, Bucket: f.String(), Object: name, Err: ctx.Err()}
		}
	}
	switch hit.effect {
	case FailBefore:
		return fault{}, f.fail(op, name, hit.kind, "injected: failed before")
	case Conflict:
		return fault{}, f.fail(op, name, objstore.ErrUnavailable, "injected: 409 ConditionalRequestConflict")
	case Deny:
		return fault{}, f.fail(op, name, objstore.ErrAccess, "injected: 403 AccessDenied")
	}
	return hit, nil
}

func (f *Bucket) draw(op, name string) (hit fault, delay time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	for i := range f.rules {
		r := &f.rules[i]
		if !r.strikes(op, name) || hit.effect != Wait {
			continue
		}
		r.done++
		delay += r.Delay
		hit = fault{effect: r.Effect, kind: r.Err, roll: r.rng.Uint64()}
		if hit.kind == nil {
			hit.kind = objstore.ErrUnavailable
		}
		if len(f.log) < logMax {
			f.log = append(f.log, Injected{Call: f.calls, Op: op, Name: name, Rule: i, Effect: r.Effect})
		}
	}
	return hit, delay
}

// strikes counts the call and reports whether the rule applies to it.
func (r *ruleState) strikes(op, name string) bool {
	switch {
	case len(r.Ops) > 0 && !slices.Contains(r.Ops, op):
		return false
	case r.Effect >= TearBody && op != objstore.OpGet && op != objstore.OpGetRange:
		return false
	case (r.Effect == Late || r.Effect == Torn) && op != objstore.OpCreate:
		return false
	case r.Name != "" && !match(r.Name, name):
		return false
	}
	r.matched++
	switch {
	case r.Nth > 0 && r.matched != r.Nth:
		return false
	case r.Times > 0 && r.done >= r.Times:
		return false
	}
	return r.Probability == 0 || r.rng.Float64() < r.Probability
}

// match reports whether name fits pattern, in which "*" stands for any bytes.
func match(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		if _, name, ok = strings.Cut(name, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(name, parts[last])
}

func (f *Bucket) fail(op, name string, kind error, why string) error {
	return &objstore.Error{Op: op, Bucket: f.String(), Object: name, Kind: kind, Err: errors.New(why)}
}

// lose turns the success of a call whose answer is lost into a failure.
func (f *Bucket) lose(hit fault, op, name string, err error) error {
	if err == nil && hit.effect == FailAfter {
		return f.fail(op, name, hit.kind, "injected: done, answer lost")
	}
	return err
}

// Get implements [objstore.Reader].
func (f *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	hit, err := f.strike(ctx, objstore.OpGet, name)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	rc, info, err := f.b.Get(ctx, name)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	if err := f.lose(hit, objstore.OpGet, name, nil); err != nil {
		return nil, objstore.Info{}, errors.Join(err, rc.Close())
	}
	return f.spoil(hit, objstore.OpGet, name, rc, info.Size), info, nil
}

// GetRange implements [objstore.Reader].
func (f *Bucket) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	hit, err := f.strike(ctx, objstore.OpGetRange, name)
	if err != nil {
		return nil, err
	}
	rc, err := f.b.GetRange(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	if err := f.lose(hit, objstore.OpGetRange, name, nil); err != nil {
		return nil, errors.Join(err, rc.Close())
	}
	return f.spoil(hit, objstore.OpGetRange, name, rc, length), nil
}

// Stat implements [objstore.Reader].
func (f *Bucket) Stat(ctx context.Context, name string) (objstore.Info, error) {
	hit, err := f.strike(ctx, objstore.OpStat, name)
	if err != nil {
		return objstore.Info{}, err
	}
	info, err := f.b.Stat(ctx, name)
	if err := f.lose(hit, objstore.OpStat, name, err); err != nil {
		return objstore.Info{}, err
	}
	return info, nil
}

// List implements [objstore.Reader].
func (f *Bucket) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return f.ListAfter(ctx, prefix, "")
}

// ListAfter implements [objstore.Reader].
func (f *Bucket) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		hit, err := f.strike(ctx, objstore.OpList, prefix)
		if err != nil {
			yield(objstore.Info{}, err)
			return
		}
		left := hit.roll % 16
		for info, err := range f.b.ListAfter(ctx, prefix, after) {
			if err == nil && hit.effect == FailAfter && left == 0 {
				break
			}
			left--
			if !yield(info, err) || err != nil {
				return
			}
		}
		if err := f.lose(hit, objstore.OpList, prefix, nil); err != nil {
			yield(objstore.Info{}, err)
		}
	}
}

// Create implements [objstore.Creator].
func (f *Bucket) Create(ctx context.Context, name string, body []byte) error {
	hit, err := f.strike(ctx, objstore.OpCreate, name)
	if err != nil {
		return err
	}
	switch hit.effect {
	case Late:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.late = append(f.late, lateCreate{name: name, body: slices.Clone(body)})
		return f.fail(objstore.OpCreate, name, hit.kind, "injected: on its way, will land later")
	case Torn:
		part := body[:hit.roll%uint64(max(1, len(body)))]
		if err := f.b.Create(ctx, name, part); err != nil {
			return err
		}
		return f.fail(objstore.OpCreate, name, hit.kind, "injected: stored in part")
	}
	return f.lose(hit, objstore.OpCreate, name, f.b.Create(ctx, name, body))
}

// Delete implements [objstore.Deleter].
func (f *Bucket) Delete(ctx context.Context, name string) error {
	hit, err := f.strike(ctx, objstore.OpDelete, name)
	if err != nil {
		return err
	}
	return f.lose(hit, objstore.OpDelete, name, f.b.Delete(ctx, name))
}

// DeleteAll implements [objstore.Deleter]. Each object meets the faults of its own deletion. One that
// is denied is no matter for the others; with any other failure the request breaks off, and
// what comes behind is not deleted.
func (f *Bucket) DeleteAll(ctx context.Context, names []string) []error {
	errs := make([]error, len(names))
	var broken error
	for i, name := range names {
		if broken != nil && ctx.Err() == nil {
			errs[i] = f.fail(objstore.OpDelete, name, objstore.ErrUnavailable, "injected: the request broke off before")
			continue
		}
		errs[i] = f.Delete(ctx, name)
		if errs[i] != nil && !errors.Is(errs[i], objstore.ErrAccess) && !errors.Is(errs[i], objstore.ErrInvalid) {
			broken = errs[i]
		}
	}
	return errs
}

// Thaw implements [objstore.Thawer].
func (f *Bucket) Thaw(ctx context.Context, name string, days int) (bool, error) {
	hit, err := f.strike(ctx, objstore.OpThaw, name)
	if err != nil {
		return false, err
	}
	ready, err := f.b.Thaw(ctx, name, days)
	return ready, f.lose(hit, objstore.OpThaw, name, err)
}

// Holds implements [objstore.Holder]. It meets the faults of its first object.
func (f *Bucket) Holds(ctx context.Context, names []string) ([]objstore.Hold, error) {
	first := ""
	if len(names) > 0 {
		first = names[0]
	}
	hit, err := f.strike(ctx, objstore.OpHolds, first)
	if err != nil {
		return nil, err
	}
	holds, err := f.b.Holds(ctx, names)
	return holds, f.lose(hit, objstore.OpHolds, first, err)
}

// Check implements [objstore.Bucket].
func (f *Bucket) Check(ctx context.Context) error {
	hit, err := f.strike(ctx, objstore.OpCheck, "")
	if err != nil {
		return err
	}
	return f.lose(hit, objstore.OpCheck, "", f.b.Check(ctx))
}

// String implements [objstore.Bucket].
func (f *Bucket) String() string { return f.b.String() }
