package pipeline_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/fieldmap"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	"github.com/evenkeel/evenkeel/projections/merge/multivalue"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// Three or four regions write, fold, attest, bury and collect at their own pace, and lose what they have folded
// last, after one of them has lost its first incarnation, of whose log they may have unequal parts for ever. Whatever is buried and
// collected when: each region sees at any moment what it would see if nothing ever were; at equal cuts all hold the same; and in the end
// nothing is left of what nobody sees, but what the former incarnation has left and what hides that.
func TestCollectingChangesNothing(t *testing.T) {
	t.Parallel()
	for _, rule := range []merge.Rule{lww.Rule{}, fieldmap.Rule{}, multivalue.Rule{}} {
		t.Run(rule.Name(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := newGraves(t, rule, rapid.SampledFrom([]int{3, 3, 4}).Draw(t, "regions"))
				defer w.close()
				for range rapid.IntRange(0, 60).Draw(t, "steps") {
					w.step()
				}
				w.quiesce()
			})
		})
	}
}

var (
	graveKeys    = []string{"a", "b"}
	graveOrigins = []events.Origin{{Region: eu, Incarnation: 1}, {Region: us, Incarnation: 2}, {Region: west, Incarnation: 1}, {Region: "ap-south-1", Incarnation: 1}}
	graveTime    = time.Unix(1, 0)
	graveFormer  = events.Log{Origin: events.FirstOrigin(us), Stream: "session"}
)

// graves is some regions without Kafka.
type graves struct {
	*rapid.T
	rule    merge.Rule
	logs    map[events.Log][]*kgo.Record
	topics  [][]divergence.Attestation // by region
	regions []*graveRegion
	written int
}

type graveRegion struct {
	*projections.Shard
	cfg     projections.Config
	log     events.Log // its own
	clock   events.HLC
	judge   *divergence.Judge
	read    []int         // attestations, by region
	waiting []*kgo.Record // burials and collections on their way into the log
	had     events.Vector // before it lost something
	end     int64         // of its log, when its state was opened
}

// GoString is how rapid prints it.
func (r *graveRegion) GoString() string { return r.log.String() }

func newGraves(t *rapid.T, rule merge.Rule, n int) *graves {
	w := &graves{T: t, rule: rule, logs: map[events.Log][]*kgo.Record{}, topics: make([][]divergence.Attestation, n)}
	jc := divergence.Config{Origins: graveOrigins[:n], Format: func(events.Stream) uint32 { return 1 }}
	for _, o := range jc.Origins {
		jc.Logs = append(jc.Logs, events.Log{Origin: o, Stream: "session"})
	}
	for _, log := range jc.Logs {
		jc.Origin = log.Origin
		r := &graveRegion{log: log, judge: divergence.NewJudge(jc, nil, time.Time{}), read: make([]int, n)}
		r.cfg = projections.Config{Dir: "state", FS: vfs.NewCrashableMem(), Rules: map[events.Stream]merge.Rule{"session": rule}}
		w.open(r)
		w.regions = append(w.regions, r)
	}
	for range rapid.IntRange(0, 3).Draw(t, "of the former incarnation") {
		w.written++
		w.append(graveFormer, w.event(events.HLC(w.written), nil))
	}
	for _, r := range w.regions {
		end := len(w.logs[graveFormer])
		has := rapid.SampledFrom([]int{end, end, rapid.IntRange(0, end).Draw(t, "has")}).Draw(t, "of it")
		w.fold(r, graveFormer, has)
		w.attest(r)
	}
	for _, r := range w.regions {
		for of := range w.topics {
			w.hear(r, of, 1)
		}
	}
	return w
}

func (w *graves) open(r *graveRegion) {
	var err error
	if r.Shard, err = projections.Open(r.cfg); err != nil {
		w.Fatal(err)
	}
	r.end = int64(len(w.logs[r.log]))
}

// crash takes away some of what a region has folded last.
func (w *graves) crash(r *graveRegion) {
	kept := vfs.CrashCloneCfg{UnsyncedDataPercent: rapid.SampledFrom([]int{0, 50, 90}).Draw(w.T, "percent kept"), RNG: rand.New(rand.NewPCG(uint64(w.written), 0))}
	crashed := r.cfg.FS.(*vfs.MemFS).CrashClone(kept)
	r.had = r.had.Join(events.VectorOf(r.Logs()))
	if err := r.Close(); err != nil {
		w.Fatal(err)
	}
	r.cfg.FS = crashed
	w.open(r)
	r.had[graveFormer] = r.Next(graveFormer) // nobody reads the log of a former incarnation again
}

// catchUp folds what a region had folded before it lost it.
func (w *graves) catchUp(r *graveRegion) {
	for _, log := range slices.SortedFunc(maps.Keys(r.had), events.Log.Compare) {
		w.fold(r, log, int(max(0, r.had[log]-r.Next(log))))
	}
}

func (w *graves) close() {
	for _, r := range w.regions {
		if err := r.Close(); err != nil {
			w.Error(err)
		}
	}
}

func (w *graves) step() {
	r := rapid.SampledFrom(w.regions).Draw(w.T, "region")
	switch rapid.SampledFrom([]string{"write", "write", "fold", "fold", "fold", "attest", "hear", "collect", "collect", "land", "crash", "crashes", "most", "most"}).Draw(w.T, "step") {
	case "write":
		w.write(r)
	case "fold":
		log := rapid.SampledFrom(w.regions).Draw(w.T, "log of").log
		w.fold(r, log, rapid.IntRange(1, 4).Draw(w.T, "records"))
	case "attest":
		w.attest(r)
	case "hear":
		for of := range w.topics {
			w.hear(r, of, rapid.IntRange(0, 2).Draw(w.T, "attestations"))
		}
	case "collect":
		w.collect(r)
		if rapid.Bool().Draw(w.T, "at once") {
			w.land(r)
		}
	case "land":
		w.land(r)
	case "crash":
		w.crash(r)
	case "crashes": // of all regions, in which the logs' ends are folded again at their own pace
		for _, r := range w.regions {
			w.crash(r)
		}
		first := rapid.SampledFrom(w.regions).Draw(w.T, "first")
		w.spread(func(to, of *graveRegion) bool { return of == first })
	case "most": // but for one link
		from := rapid.SampledFrom(w.regions).Draw(w.T, "but from")
		w.spread(func(to, of *graveRegion) bool { return to != r || of != from })
	}
}

// spread has regions fold all of each other's logs where links work, and hear what all attest then.
func (w *graves) spread(works func(to, of *graveRegion) bool) {
	for _, r := range w.regions {
		for _, of := range w.regions {
			if works(r, of) {
				w.fold(r, of.log, math.MaxInt)
			}
		}
		w.attest(r)
	}
	for _, r := range w.regions {
		for of := range w.topics {
			w.hear(r, of, math.MaxInt)
		}
	}
}

// event is something that is written of a key.
func (w *graves) event(clock events.HLC, deps events.Context) events.Event {
	e := events.Event{Key: rapid.SampledFrom(graveKeys).Draw(w.T, "key"), ID: fmt.Sprint(w.written), Source: "/test", Clock: clock, Deps: deps}
	n := w.written
	patches := []string{
		fmt.Sprintf(`{"set":{"f":%d}}`, n), fmt.Sprintf(`{"set":{"g":%d},"unset":["f"]}`, n), `{"unset":["f","g"]}`,
		`{"increment":{"n":1}}`, `{"add":{"s":["x"]}}`, `{"remove":{"s":["x","y"]}}`, `{"add":{"s":["y"]},"remove":{"s":["x"]}}`,
	}
	what := rapid.SampledFrom([]string{"put", "delete", "patch", "patch"}).Draw(w.T, "what")
	switch {
	case what == "delete":
		e.Type, e.Op = events.TypeDelete, events.OpDelete
	case what == "patch" && w.rule.Name() == "fieldmap":
		e.Type, e.Op, e.Value = events.TypePatch, events.OpPatch, []byte(rapid.SampledFrom(patches).Draw(w.T, "patch"))
	default:
		e.Type, e.Op, e.Value = events.TypePut, events.OpPut, fmt.Appendf(nil, `{"f":%d}`, n)
	}
	return e
}

func (w *graves) append(log events.Log, e events.Event) {
	record, err := events.Encode(e)
	if err != nil {
		w.Fatal(err)
	}
	w.put(log, record)
}

func (w *graves) put(log events.Log, record *kgo.Record) {
	record.Offset, record.Timestamp = int64(len(w.logs[log])), time.UnixMilli(1<<40)
	w.logs[log] = append(w.logs[log], record)
}

// write writes as the API does: with a clock and a context of all that the region has, and first with
// what keeps counts that were reset from coming back.
func (w *graves) write(r *graveRegion) {
	w.catchUp(r)
	w.written++
	r.clock++
	var deps events.Context
	for _, s := range r.applied() {
		if s.Origin != r.log.Origin {
			deps = append(deps, s)
		}
	}
	e := w.event(r.clock, deps)
	if rule, ok := w.rule.(fieldmap.Rule); ok {
		below, err := rule.Revives(&e, r.log, func() ([]merge.Slice, error) { return w.without(r)[e.Key], nil })
		if err != nil {
			w.Fatal(err)
		}
		if below > 0 {
			reset := events.Event{Key: e.Key, Op: events.OpDelete, Type: events.TypeDelete, ID: e.ID + "-reset", Source: e.Source, Clock: r.clock}
			reset.Deps = events.Context{{Origin: r.log.Origin, Next: below}}
			w.append(r.log, reset)
			r.clock++
			e.Clock = r.clock
		}
	}
	w.append(r.log, e)
	w.fold(r, r.log, math.MaxInt)
}

func (r *graveRegion) applied() (c events.Context) {
	for _, st := range r.Logs() {
		if st.Next > 0 {
			c = append(c, events.Seen{Origin: st.Log.Origin, Next: st.Next})
		}
	}
	return c
}

func (w *graves) fold(r *graveRegion, log events.Log, n int) {
	records := w.logs[log][r.Next(log):]
	done, err := r.Apply([]projections.Run{{Log: log, Records: records[:min(n, len(records))]}})
	if err != nil {
		w.Fatal(err)
	}
	if done.Parked > 0 {
		w.Fatalf("%+v", done)
	}
	r.clock = max(r.clock, done.MaxClock)
	w.check(r)
}

func (w *graves) attest(r *graveRegion) {
	i := slices.Index(w.regions, r)
	w.topics[i] = append(w.topics[i], divergence.Attestation{
		Log: r.log, Format: 1, Applied: r.applied(), Lagging: r.Next(r.log) < r.end, Made: graveTime,
	})
}

func (w *graves) hear(r *graveRegion, of, n int) {
	for ; n > 0 && r.read[of] < len(w.topics[of]); n-- {
		if err := r.judge.Attested(graveOrigins[of], w.topics[of][r.read[of]], graveTime); err != nil {
			w.Fatal(err)
		}
		r.read[of]++
	}
}

// collect decides as the collector does, but waits for no age; what it writes is on its way for a while, perhaps in part for ever.
func (w *graves) collect(r *graveRegion) {
	least, most, err := r.judge.Known("session", 0, graveTime)
	atLeast := events.Vector{}
	for _, s := range most {
		atLeast[events.Log{Origin: s.Origin, Stream: "session"}] = s.Next
	}
	if err != nil || r.Reached(atLeast) != nil {
		return
	}
	page, err := r.Dead(r.log, "", 100)
	if err != nil {
		w.Fatal(err)
	}
	r.waiting = nil
	for _, buries := range []bool{true, false} {
		upkeep := events.NewCollection
		if buries {
			upkeep = events.NewBurial
		}
		var going []events.Tombstone
		for _, d := range page.Dead {
			if d.Holds == buries && pipeline.HasSeen(least, d.Seen) {
				going = append(going, d.Tombstone)
			}
		}
		if len(going) == 0 {
			continue
		}
		e, err := upkeep(going)
		if err != nil {
			w.Fatal(err)
		}
		w.written++
		r.clock++
		e.ID, e.Source, e.Clock, e.Deps = fmt.Sprint(w.written), "/test", r.clock, r.applied()
		record, err := events.Encode(e)
		if err != nil {
			w.Fatal(err)
		}
		r.waiting = append(r.waiting, record)
	}
}

func (w *graves) land(r *graveRegion) {
	for _, record := range r.waiting {
		w.put(r.log, record)
	}
	r.waiting = nil
	w.fold(r, r.log, math.MaxInt)
}

// without are the slices that a region would have if nothing were collected.
func (w *graves) without(r *graveRegion) map[string][]merge.Slice {
	all := map[string][]merge.Slice{}
	for _, log := range slices.SortedFunc(maps.Keys(w.logs), events.Log.Compare) {
		folded := map[string][]byte{}
		for _, record := range w.logs[log][:r.Next(log)] {
			e, err := events.Decode(record)
			if err != nil {
				w.Fatal(err)
			}
			if e.IsUpkeep() {
				continue
			}
			if folded[e.Key], err = w.rule.Fold(nil, folded[e.Key], &e, log.At(record.Offset)); err != nil {
				w.Fatal(err)
			}
		}
		for key, slice := range folded {
			all[key] = append(all[key], merge.Slice{Log: log, Data: slice})
		}
	}
	return all
}

// check compares what a region shows with what it would show if nothing were buried or collected. A region that folds again
// what it has lost may fold what was written later sooner now.
func (w *graves) check(r *graveRegion) {
	if r.Reached(r.had) != nil {
		return
	}
	all := w.without(r)
	for _, key := range graveKeys {
		want, err := w.rule.Join(all[key])
		if err != nil {
			w.Fatal(err)
		}
		got, err := projections.Get([]*projections.Shard{r.Shard}, "session", key)
		if err != nil {
			w.Fatal(err)
		}
		if got.Exists != want.Exists || string(got.Value) != string(want.Value) || !reflect.DeepEqual(got.Siblings, want.Siblings) {
			w.Fatalf("%s at %s: %s is %q, without collecting it is %q", r.log.Origin, events.VectorOf(r.Logs()), key, got.Value, want.Value)
		}
	}
}

// quiesce has all regions get to know everything, and collect what can go.
func (w *graves) quiesce() {
	for _, r := range w.regions {
		w.catchUp(r)
	}
	for range 8 {
		w.spread(func(*graveRegion, *graveRegion) bool { return true })
		for _, r := range w.regions {
			w.land(r)
			w.collect(r)
		}
	}
	first := w.regions[0]
	if slices.ContainsFunc(w.regions, func(r *graveRegion) bool { return r.Next(graveFormer) != first.Next(graveFormer) }) {
		return // whoever has less of it collects nothing
	}
	for _, r := range w.regions {
		if !slices.Equal(r.Logs(), first.Logs()) {
			w.Fatalf("%s has\n%+v, %s\n%+v", r.log.Origin, r.Logs(), first.log.Origin, first.Logs())
		}
		for _, key := range graveKeys {
			e, err := projections.EntityOf([]*projections.Shard{r.Shard}, "session", key)
			if err != nil {
				w.Fatal(err)
			}
			if view, err := w.rule.Join(e.Slices); err != nil || view.Exists {
				continue
			}
			live := slices.DeleteFunc(slices.Clone(e.Slices), func(s merge.Slice) bool { return !w.rule.Live(s.Data) })
			if len(live) == 1 && live[0].Log == graveFormer {
				continue // what hides it is needed
			}
			former := slices.ContainsFunc(e.Slices, func(s merge.Slice) bool { return s.Log == graveFormer })
			if left := len(e.Slices); left > 1 || left == 1 && !former {
				w.Fatalf("%s: of %s, which shows nothing, %d slices are left: %x", r.log.Origin, key, left, e.Slices)
			}
		}
	}
}
