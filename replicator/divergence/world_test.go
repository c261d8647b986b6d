package divergence_test

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// every is the distance of marks that regions keep for long: small, so that runs
// of a few hundred records pass many.
const every = 8

const testFormat = 7

var (
	testOrigins = []events.Origin{events.FirstOrigin("us-east-1"), events.FirstOrigin("us-west-1"), {Region: "eu-central-1", Incarnation: 2}}
	testStreams = []events.Stream{"session", "config"}
)

func allLogs() (logs []events.Log) {
	for _, o := range testOrigins {
		for _, s := range testStreams {
			logs = append(logs, events.Log{Origin: o, Stream: s})
		}
	}
	return logs
}

// record is one record of a log; state is the fold of a prefix. Keys below half
// keep what happened to them for ever, the others forget with the next event.
type record struct {
	key   int
	value uint64
}

const keys = 8

type state struct {
	next   int64
	chain  uint64
	slices [keys]uint64
}

func (s state) fold(r record, times int) state {
	s.chain = hash(s.chain, uint64(s.next), uint64(r.key), r.value)
	s.next++
	for range times {
		was := s.slices[r.key]
		if r.key >= keys/2 {
			was = 0
		}
		s.slices[r.key] = hash(was, r.value)
	}
	return s
}

func (s state) mark() events.Mark {
	m := events.Mark{Next: s.next}
	if s.next == 0 {
		return m
	}
	binary.BigEndian.PutUint64(m.Chain[:], s.chain)
	var sum uint64
	for key, slice := range s.slices {
		if slice != 0 {
			sum += hash(uint64(key), slice)
			m.Keys++
			m.Bytes += 8
		}
	}
	binary.BigEndian.PutUint64(m.Digest[:], sum)
	return m
}

func hash(words ...uint64) uint64 {
	h := fnv.New64a()
	for _, w := range words {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, w))
	}
	return h.Sum64() | 1
}

// fault is one thing that goes wrong in one region, each time that it comes to
// the offset.
type fault struct {
	region int
	log    events.Log
	offset int64
	layer  divergence.Layer
	times  int // of a fold: 0 skips the record, 2 doubles it
}

// fold is one region's fold of one log, with the marks that it remembers.
type fold struct {
	history []state // by next offset
	recent  int64   // marks from here on are in memory
}

func (f *fold) state() state { return f.history[len(f.history)-1] }

func (f *fold) at(offset int64) (events.Mark, error) {
	next := f.state().next
	switch {
	case offset > next:
		return events.Mark{}, divergence.ErrAhead
	case offset == next, offset == 0, offset%every == 0, offset >= max(f.recent, next-every):
		return f.history[offset].mark(), nil
	}
	return events.Mark{}, fmt.Errorf("offset %d: %w", offset, divergence.ErrGone)
}

// back takes the fold to an earlier cut; what was in memory is gone.
func (f *fold) back(to int64) {
	f.history = f.history[:to+1]
	f.recent = to
}

// region is one region: its logs, its mirrors, its folds and its judge.
type region struct {
	w       *world
	i       int
	origin  events.Origin
	log     map[events.Log][]record // its own logs, and its mirrors
	folds   map[events.Log]*fold
	epoch   events.Epoch
	lineage int
	judge   *divergence.Judge
	paces   map[events.Log]*divergence.Pace
	topics  [][]*divergence.Attestation // by origin: the own topic of attestations, and mirrors of the others'; nil: compacted away
	read    []int                       // of each
	cut     []bool                      // the link from each origin is cut
}

// world is three regions. It has no Kafka and no goroutines: thousands of runs
// take seconds.
type world struct {
	rng     *rand.Rand
	now     time.Time
	regions []*region
	fault   *fault
	found   map[string]int // findings, by region, log and layer
}

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), now: time.UnixMilli(1_750_000_000_000), found: map[string]int{}}
	for i, o := range testOrigins {
		r := &region{w: w, i: i, origin: o, log: map[events.Log][]record{}, folds: map[events.Log]*fold{},
			topics: make([][]*divergence.Attestation, len(testOrigins)), cut: make([]bool, len(testOrigins))}
		for _, l := range allLogs() {
			r.folds[l] = &fold{history: []state{{}}}
		}
		w.regions = append(w.regions, r)
		r.start()
	}
	return w
}

// start is a node's start: nothing is in memory, its epoch is a new one.
func (r *region) start() {
	r.epoch++
	r.judge = divergence.NewJudge(divergence.Config{
		Origin: r.origin, Origins: testOrigins, Logs: allLogs(), Format: func(events.Stream) uint32 { return testFormat },
	}, r, r.w.now)
	r.paces = map[events.Log]*divergence.Pace{}
	r.read = make([]int, len(testOrigins))
}

func (r *region) At(l events.Log, offset int64) (events.Mark, error) { return r.folds[l].at(offset) }
func (r *region) Lineage(events.Log) string                          { return fmt.Sprint(r.lineage) }

func (w *world) write(n int) {
	r := w.regions[w.rng.IntN(len(w.regions))]
	l := events.Log{Origin: r.origin, Stream: testStreams[w.rng.IntN(len(testStreams))]}
	for range n {
		r.log[l] = append(r.log[l], record{key: w.rng.IntN(keys), value: w.rng.Uint64()})
	}
}

// mirror takes up to n records, and as many attestations, over one link.
func (w *world) mirror(from, to *region, n int) {
	if from == to || to.cut[from.i] {
		return
	}
	for _, s := range testStreams {
		l := events.Log{Origin: from.origin, Stream: s}
		have := len(to.log[l])
		for _, rec := range from.log[l][have:min(have+n, len(from.log[l]))] {
			if f := w.fault; f.hits(to, l, int64(len(to.log[l])), divergence.LayerLog) {
				rec.value ^= 1
			}
			to.log[l] = append(to.log[l], rec)
		}
	}
	have := len(to.topics[from.i])
	own := from.topics[from.i]
	if have < len(own) {
		to.topics[from.i] = append(to.topics[from.i], own[have:min(have+n, len(own))]...)
	}
}

func (f *fault) hits(r *region, l events.Log, offset int64, layer divergence.Layer) bool {
	return f != nil && f.region == r.i && f.log == l && f.offset == offset && f.layer == layer
}

// apply folds up to n records of every log.
func (r *region) apply(n int) {
	for _, l := range allLogs() {
		f := r.folds[l]
		for range n {
			s := f.state()
			if s.next == int64(len(r.log[l])) {
				break
			}
			times := 1
			if r.w.fault.hits(r, l, s.next, divergence.LayerFold) {
				times = r.w.fault.times
			}
			f.history = append(f.history, s.fold(r.log[l][s.next], times))
		}
	}
}

// attest is the attester's second.
func (r *region) attest() {
	for _, s := range testStreams {
		l := events.Log{Origin: r.origin, Stream: s}
		if r.paces[l] == nil {
			r.paces[l] = &divergence.Pace{}
		}
		offset, due := r.paces[l].Due(r.folds[l].state().next, every, r.w.now)
		if !due {
			continue
		}
		mark, err := r.folds[l].at(offset)
		if err != nil {
			continue // gone: the next one is newer
		}
		r.paces[l].Attested(offset, r.w.now)
		r.say(divergence.Attestation{
			Log: l, Mark: mark, Format: testFormat, Epoch: r.epoch, Applied: r.applied(s), Made: r.w.now,
		})
	}
}

func (r *region) applied(s events.Stream) (c events.Context) {
	for _, o := range testOrigins {
		if next := r.folds[events.Log{Origin: o, Stream: s}].state().next; next > 0 {
			c = append(c, events.Seen{Origin: o, Next: next})
		}
	}
	slices.SortFunc(c, func(a, b events.Seen) int { return a.Origin.Compare(b.Origin) })
	return c
}

func (r *region) say(a divergence.Attestation) { r.topics[r.i] = append(r.topics[r.i], &a) }

// look reads what came and compares.
func (r *region) look() {
	for o, topic := range r.topics {
		for ; r.read[o] < len(topic); r.read[o]++ {
			if a := topic[r.read[o]]; a != nil {
				_ = r.judge.Attested(testOrigins[o], *a, r.w.now) // refusals are part of life
			}
		}
	}
	for _, f := range r.judge.Compare(r.w.now).Found {
		r.w.found[fmt.Sprintf("%s %s %s", r.origin.Region, f.Log, f.Layer)]++
	}
}

func (r *region) findings() []divergence.Finding {
	return r.judge.Findings(r.w.now, func(events.Log) string { return "" })
}

// back takes the region's state to an earlier cut: far back by a restore, or a
// little by a crash.
func (r *region) back(most int64) {
	for _, l := range allLogs() { // in order: the seed decides
		f := r.folds[l]
		f.back(max(f.state().next-r.w.rng.Int64N(most+1), 0))
	}
	r.start()
}

// compact keeps the newest attestation of each log in an origin's topic.
func (r *region) compact(o int) {
	seen := map[events.Log]bool{}
	for i, a := range slices.Backward(r.topics[o]) {
		if a != nil && seen[a.Log] {
			r.topics[o][i] = nil
		} else if a != nil {
			seen[a.Log] = true
		}
	}
}

// zombie is a former owner, with the state that it had, that does not know that
// it is one.
func (r *region) zombie() {
	if r.epoch < 2 {
		return
	}
	l := events.Log{Origin: r.origin, Stream: testStreams[r.w.rng.IntN(len(testStreams))]}
	at := r.w.rng.Int64N(r.folds[l].state().next + 1)
	r.say(divergence.Attestation{
		Log: l, Mark: r.folds[l].history[at].mark(), Format: testFormat, Epoch: r.epoch - 1, Applied: r.applied(l.Stream), Made: r.w.now,
	})
}

// step does one random thing.
func (w *world) step() {
	rng := w.rng
	r, from := w.regions[rng.IntN(len(w.regions))], w.regions[rng.IntN(len(w.regions))]
	switch rng.IntN(20) {
	case 0, 1, 2:
		w.write(1 + rng.IntN(3))
	case 3:
		w.write(1 + rng.IntN(5*every))
	case 4, 5, 6:
		w.mirror(from, r, 1+rng.IntN(3*every))
	case 7, 8, 9:
		r.apply(1 + rng.IntN(2*every))
	case 10:
		r.back(every) // a crash
	case 11:
		if rng.IntN(3) == 0 {
			r.lineage++
			r.back(20 * every) // a restore
		}
	case 12:
		r.cut[from.i] = rng.IntN(2) == 0
	case 13:
		r.compact(from.i)
	case 14:
		r.zombie()
	case 15:
		// Another incarnation's word, in the wrong topic.
		l := events.Log{Origin: events.Origin{Region: r.origin.Region, Incarnation: 9}, Stream: "session"}
		r.say(divergence.Attestation{Log: l, Mark: events.Mark{Next: 1, Keys: 99}, Format: testFormat, Epoch: 99})
	case 16:
		if rng.IntN(5) == 0 { // the topic is created anew; mirrors keep what they have
			r.topics[r.i] = make([]*divergence.Attestation, len(r.topics[r.i]))
		}
	default:
		w.second()
	}
}

// second is a second of everybody's life.
func (w *world) second() {
	w.now = w.now.Add(time.Duration(500+w.rng.IntN(1000)) * time.Millisecond)
	for _, r := range w.regions {
		if w.rng.IntN(4) > 0 {
			r.attest()
		}
		r.look()
	}
}

// quiesce heals all links and lets everybody fold everything.
func (w *world) quiesce() {
	const all = 1 << 20
	for range 2 {
		w.now = w.now.Add(divergence.IdleInterval)
		for _, to := range w.regions {
			to.cut = make([]bool, len(testOrigins))
			for _, from := range w.regions {
				w.mirror(from, to, all)
			}
			to.apply(all)
		}
		for _, r := range w.regions {
			r.attest()
		}
		for _, to := range w.regions {
			for _, from := range w.regions {
				w.mirror(from, to, all)
			}
			to.look()
		}
	}
}
