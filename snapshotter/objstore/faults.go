package objstore

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
	// [FaultyBucket.Land]: the delayed upload that arrives after everybody
	// has given it up.
	Late
	// Torn fails a Create and stores the beginning of the object: what no store may do
	// that keeps the contract. Nobody can put the whole of it there any more.
	Torn
	// Conflict fails as a store that keeps answering 409 does: not stored.
	Conflict
	// Deny fails as a store that refuses the credentials does: not stored.
	Deny
	// TearBody ends the body early with [ErrCorrupt], as a cut connection does.
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

// Rule says which calls of a [Faulty] bucket go wrong, and how. The zero value
// of each condition matches everything; all conditions must hold.
type Rule struct {
	Ops         []string      // Op constants; empty: every operation
	Name        string        // pattern of the name or list prefix in which "*" stands for any bytes, "/" too; empty: every name
	Nth         int           // only the nth call that Ops and Name match, from 1; 0: every one
	Times       int           // at most so many times; 0: no bound
	Probability float64       // of each call, 0 to 1; 0: always
	Delay       time.Duration // waited before the effect; ends early with the context
	Effect      Effect
	Err         error // kind for FailBefore, FailAfter, Late and Torn; nil: ErrUnavailable
}

// Injected is one fault that a [FaultyBucket] caused.
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

// FaultyBucket passes calls to a bucket, breaking those that its rules match.
type FaultyBucket struct {
	b Bucket

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

var _ Bucket = (*FaultyBucket)(nil)

// Faulty is [FaultySeed] with seed 1.
func Faulty(b Bucket, rules ...Rule) *FaultyBucket { return FaultySeed(b, 1, rules...) }

// FaultySeed decorates b with faults. The rules are looked at in order for each
// call: those that only wait add up, the first with another effect is the last.
// Each rule draws from its own generator made of seed and its index, so the same
// calls in the same order meet the same faults.
func FaultySeed(b Bucket, seed uint64, rules ...Rule) *FaultyBucket {
	f := &FaultyBucket{b: b, seed: seed}
	f.SetRules(rules...)
	return f
}

// SetRules replaces the rules and starts their counters and generators anew;
// none heals the bucket.
func (f *FaultyBucket) SetRules(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = make([]ruleState, len(rules))
	for i, r := range rules {
		f.rules[i] = ruleState{Rule: r, rng: rand.New(rand.NewPCG(f.seed, uint64(i)))}
	}
}

// Log returns the faults so far, oldest first, at most the first 10,000.
func (f *FaultyBucket) Log() []Injected {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// Land performs the creations that Late held back, oldest first, and returns
// what the bucket said to each.
func (f *FaultyBucket) Land(ctx context.Context) []error {
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
func (f *FaultyBucket) strike(ctx context.Context, op, name string) (fault, error) {
	hit, delay := f.draw(op, name)
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fault{}, &Error{Op: op, Bucket: f.String(), Object: name, Err: ctx.Err()}
		}
	}
	switch hit.effect {
	case FailBefore:
		return fault{}, f.fail(op, name, hit.kind, "injected: failed before")
	case Conflict:
		return fault{}, f.fail(op, name, ErrUnavailable, "injected: 409 ConditionalRequestConflict")
	case Deny:
		return fault{}, f.fail(op, name, ErrAccess, "injected: 403 AccessDenied")
	}
	return hit, nil
}

func (f *FaultyBucket) draw(op, name string) (hit fault, delay time.Duration) {
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
			hit.kind = ErrUnavailable
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
	case r.Effect >= TearBody && op != OpGet && op != OpGetRange:
		return false
	case (r.Effect == Late || r.Effect == Torn) && op != OpCreate:
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

func (f *FaultyBucket) fail(op, name string, kind error, why string) error {
	return &Error{Op: op, Bucket: f.String(), Object: name, Kind: kind, Err: errors.New(why)}
}

// lose turns the success of a call whose answer is lost into a failure.
func (f *FaultyBucket) lose(hit fault, op, name string, err error) error {
	if err == nil && hit.effect == FailAfter {
		return f.fail(op, name, hit.kind, "injected: done, answer lost")
	}
	return err
}

// Get implements [Reader].
func (f *FaultyBucket) Get(ctx context.Context, name string) (io.ReadCloser, Info, error) {
	hit, err := f.strike(ctx, OpGet, name)
	if err != nil {
		return nil, Info{}, err
	}
	rc, info, err := f.b.Get(ctx, name)
	if err != nil {
		return nil, Info{}, err
	}
	if err := f.lose(hit, OpGet, name, nil); err != nil {
		return nil, Info{}, errors.Join(err, rc.Close())
	}
	return f.spoil(hit, OpGet, name, rc, info.Size), info, nil
}

// GetRange implements [Reader].
func (f *FaultyBucket) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	hit, err := f.strike(ctx, OpGetRange, name)
	if err != nil {
		return nil, err
	}
	rc, err := f.b.GetRange(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	if err := f.lose(hit, OpGetRange, name, nil); err != nil {
		return nil, errors.Join(err, rc.Close())
	}
	return f.spoil(hit, OpGetRange, name, rc, length), nil
}

// Stat implements [Reader].
func (f *FaultyBucket) Stat(ctx context.Context, name string) (Info, error) {
	hit, err := f.strike(ctx, OpStat, name)
	if err != nil {
		return Info{}, err
	}
	info, err := f.b.Stat(ctx, name)
	if err := f.lose(hit, OpStat, name, err); err != nil {
		return Info{}, err
	}
	return info, nil
}

// List implements [Reader].
func (f *FaultyBucket) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return f.ListAfter(ctx, prefix, "")
}

// ListAfter implements [Reader].
func (f *FaultyBucket) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		hit, err := f.strike(ctx, OpList, prefix)
		if err != nil {
			yield(Info{}, err)
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
		if err := f.lose(hit, OpList, prefix, nil); err != nil {
			yield(Info{}, err)
		}
	}
}

// Create implements [Creator].
func (f *FaultyBucket) Create(ctx context.Context, name string, body []byte) error {
	hit, err := f.strike(ctx, OpCreate, name)
	if err != nil {
		return err
	}
	switch hit.effect {
	case Late:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.late = append(f.late, lateCreate{name: name, body: slices.Clone(body)})
		return f.fail(OpCreate, name, hit.kind, "injected: on its way, will land later")
	case Torn:
		part := body[:hit.roll%uint64(max(1, len(body)))]
		if err := f.b.Create(ctx, name, part); err != nil {
			return err
		}
		return f.fail(OpCreate, name, hit.kind, "injected: stored in part")
	}
	return f.lose(hit, OpCreate, name, f.b.Create(ctx, name, body))
}

// Delete implements [Deleter].
func (f *FaultyBucket) Delete(ctx context.Context, name string) error {
	hit, err := f.strike(ctx, OpDelete, name)
	if err != nil {
		return err
	}
	return f.lose(hit, OpDelete, name, f.b.Delete(ctx, name))
}

// DeleteAll implements [Deleter]. Each object meets the faults of its own deletion. One that
// is denied is no matter for the others; with any other failure the request breaks off, and
// what comes behind is not deleted.
func (f *FaultyBucket) DeleteAll(ctx context.Context, names []string) []error {
	var broken error
	return eachOf(names, func(name string) error {
		if broken != nil && ctx.Err() == nil {
			return f.fail(OpDelete, name, ErrUnavailable, "injected: the request broke off before")
		}
		err := f.Delete(ctx, name)
		if err != nil && !errors.Is(err, ErrAccess) && !errors.Is(err, ErrInvalid) {
			broken = err
		}
		return err
	})
}

// Thaw implements [Thawer].
func (f *FaultyBucket) Thaw(ctx context.Context, name string, days int) (bool, error) {
	hit, err := f.strike(ctx, OpThaw, name)
	if err != nil {
		return false, err
	}
	ready, err := f.b.Thaw(ctx, name, days)
	return ready, f.lose(hit, OpThaw, name, err)
}

// Holds implements [Holder]. It meets the faults of its first object.
func (f *FaultyBucket) Holds(ctx context.Context, names []string) ([]Hold, error) {
	first := ""
	if len(names) > 0 {
		first = names[0]
	}
	hit, err := f.strike(ctx, OpHolds, first)
	if err != nil {
		return nil, err
	}
	holds, err := f.b.Holds(ctx, names)
	return holds, f.lose(hit, OpHolds, first, err)
}

// Check implements [Bucket].
func (f *FaultyBucket) Check(ctx context.Context) error {
	hit, err := f.strike(ctx, OpCheck, "")
	if err != nil {
		return err
	}
	return f.lose(hit, OpCheck, "", f.b.Check(ctx))
}

// String implements [Bucket].
func (f *FaultyBucket) String() string { return f.b.String() }
