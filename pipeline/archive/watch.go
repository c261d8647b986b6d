package archive

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/listed"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	sampleInterval = time.Second      // between looks at where logs end
	readInterval   = 30 * time.Second // between looks at where the archive does: each is a request or two for a shard
	anewInterval   = 5 * time.Second  // between looks whether topics were made anew
	watchTimeout   = 10 * time.Second
	samplesMost    = 512 // of a shard

	// A stream is behind when it lacks something for this much longer than its limit.
	behindAfter = 30 * time.Second
)

// Point is what the loss of everything but the bucket would cost a stream, of the
// shards that this node archives, by reading the bucket.
type Point struct {
	Stream  events.Stream
	Limit   time.Duration  // of its segments
	Records *int64         // that the logs have and the bucket does not; nil: not known
	Age     *time.Duration // for how long the oldest of them has been in the log, at most; nil: not known
	Newest  time.Time      // when the newest segment with an event of the stream was closed
	Error   string         // why something is not known

	seen time.Duration // for how long it has been seen to be missing: at least so long
}

// reading is what is known of how far a shard is archived.
type reading struct {
	newest  *format.Segment  // as it was read from the bucket
	next    map[string]int64 // where the topics go on behind it
	closed  map[events.Stream]time.Time
	at      time.Time // when that was
	err     error     // why it could not be read since, or at all
	samples []sample
}

// sample is where topics ended at a time.
type sample struct {
	at   time.Time
	ends map[string]int64
}

// watch measures until the context ends.
func (a *Archiver) watch(ctx context.Context) {
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for read, looked := (time.Time{}), (time.Time{}); ctx.Err() == nil; {
		if time.Since(looked) >= anewInterval {
			a.lookAnew(ctx)
			looked = time.Now()
		}
		a.sample(ctx)
		if time.Since(read) >= readInterval {
			a.readEnds(ctx)
			read = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// lookAnew looks whether topics were made anew. The client goes on asking for those that it has
// known, which are gone; and what is to be archived of a new one, if anything, has to be looked for.
func (a *Archiver) lookAnew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	found, err := a.admin.Metadata(ctx, slices.Sorted(maps.Keys(a.cfg.Topics))...)
	if err != nil {
		return
	}
	var anew []string
	for _, t := range found.Topics {
		if t.Err != nil || t.ID == (kadm.TopicID{}) { // it is on its way, or the broker does not say
			continue
		}
		if was, known := a.ids[t.Topic]; known && was != t.ID {
			anew = append(anew, t.Topic)
		}
		a.ids[t.Topic] = t.ID
	}
	if len(anew) == 0 {
		return
	}
	a.log.Warn("topics were made anew; it is looked where their archives go on", "topics", anew)
	a.orders.Do(func() { a.client.PurgeTopicsFromClient(anew...) })
	for _, s := range a.all() {
		s.anew.Store(true)
	}
}

// sample notes where the topics end.
func (a *Archiver) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	topics := slices.Sorted(maps.Keys(a.cfg.Topics))
	begun := time.Now() // what comes while the answer is on its way is not in it, perhaps
	found, err := a.admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		return // the last sample gets older: what it says is an upper bound
	}
	for _, s := range a.all() {
		ends := map[string]int64{}
		for _, topic := range topics {
			if end, err := listed.Offset(found, topic, s.number); err == nil {
				ends[topic] = end
			}
		}
		if len(ends) == len(topics) {
			s.sampled(sample{begun, ends})
		}
	}
}

func (s *shard) sampled(at sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.reading
	if len(r.samples) == samplesMost { // the older they are, the fewer will do
		half := r.samples[:samplesMost/2]
		kept := slices.DeleteFunc(half, func(x sample) bool { return x.at.Unix()%2 == 0 })
		if len(kept) == len(half) {
			r.samples = slices.Delete(r.samples, 0, 1) // from then on each second: nothing is made anew
		} else {
			r.samples = append(kept, r.samples[samplesMost/2:]...)
		}
	}
	r.samples = append(r.samples, at)
}

// readEnds reads from the bucket how far the shards are archived.
func (a *Archiver) readEnds(ctx context.Context) {
	for _, s := range a.all() {
		if ctx.Err() != nil {
			return
		}
		short, cancel := context.WithTimeout(ctx, watchTimeout)
		begun := time.Now()
		newest, next, err := s.readEnd(short)
		cancel()
		s.ended(begun, newest, next, err)
	}
}

func (s *shard) readEnd(ctx context.Context) (newest *format.Segment, next map[string]int64, err error) {
	s.mu.Lock()
	last, next := s.reading.newest, s.reading.next
	s.mu.Unlock()
	newest, err = segment.NewestBehind(ctx, s.a.bucket, s.a.cfg.Region, s.number, last)
	if err != nil || newest == last {
		return newest, next, err
	}
	next = map[string]int64{}
	for name, topic := range s.a.cfg.Topics {
		l := topic.Log(s.number)
		end, _ := newest.End(l)
		if next[name], err = s.a.offsets.InTopic(ctx, l, end.Next); err != nil {
			return nil, nil, err
		}
	}
	return newest, next, nil
}

func (s *shard) ended(at time.Time, newest *format.Segment, next map[string]int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.reading
	r.err = err
	if err != nil {
		return
	}
	r.at = at
	if newest == nil {
		return
	}
	if r.closed == nil {
		r.closed = map[events.Stream]time.Time{}
	}
	for _, p := range newest.Parts {
		r.closed[p.Log.Stream] = newest.Created
	}
	r.newest, r.next = newest, next
}

// Points measures the streams.
func (a *Archiver) Points() []Point {
	now := time.Now()
	points := map[events.Stream]*Point{}
	for stream, limit := range a.cfg.Limits {
		points[stream] = &Point{Stream: stream, Limit: limit, Records: new(int64), Age: new(time.Duration)}
	}
	for _, s := range a.all() {
		for name, topic := range a.cfg.Topics {
			p := points[topic.Stream]
			lack, err := s.lacks(name, now)
			if err != nil {
				p.Records, p.Age, p.Error = nil, nil, cmp.Or(p.Error, err.Error())
				continue
			}
			if p.Records != nil {
				*p.Records += lack.records
				*p.Age = max(*p.Age, lack.most)
			}
			p.seen = max(p.seen, lack.least)
			s.mu.Lock()
			if at := s.reading.closed[topic.Stream]; at.After(p.Newest) {
				p.Newest = at
			}
			s.mu.Unlock()
		}
	}
	var list []Point
	for _, stream := range slices.Sorted(maps.Keys(points)) {
		list = append(list, *points[stream])
	}
	return list
}

// lack is what the bucket lacks of a log: how many records, and how long the oldest of
// them has been there, at least and at most.
type lack struct {
	records     int64
	least, most time.Duration
}

// lacks compares what was read of the bucket with where a topic ends.
func (s *shard) lacks(name string, now time.Time) (lack, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, t := &s.reading, s.tails[s.a.cfg.Topics[name].Log(s.number)]
	switch {
	case r.newest == nil && r.err != nil:
		return lack{}, fmt.Errorf("shard %d: %w", s.number, r.err)
	case len(r.samples) == 0:
		return lack{}, fmt.Errorf("shard %d: it is not known yet where its logs end", s.number)
	}
	// As long as the bucket can be read, what was true then counts.
	samples := r.samples
	if r.err == nil {
		seen := slices.IndexFunc(samples, func(x sample) bool { return x.at.After(r.at) })
		if seen >= 0 {
			samples = samples[:max(1, seen)]
		}
		now = later(r.at, samples[len(samples)-1].at)
	}
	// In some of them the log went no further than the archive does, in the others it did.
	next := r.next[name]
	i, _ := slices.BinarySearchFunc(samples, next, func(x sample, next int64) int { return cmp.Compare(t.end(x.ends[name]), next+1) })
	if i == len(samples) {
		return lack{}, nil
	}
	from := samples[0].at
	switch {
	case i > 0:
		from = samples[i-1].at
	case r.newest != nil && r.newest.Created.Before(from):
		from = r.newest.Created
	}
	end := t.end(samples[len(samples)-1].ends[name])
	return lack{records: end - next, least: now.Sub(samples[i].at), most: now.Sub(from)}, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// end is where the records of a log end that ends at an offset.
func (t tail) end(offset int64) int64 {
	if t.records <= offset && offset <= t.read {
		return t.records
	}
	return offset
}

// lagging says which streams the bucket lacks something of for too long.
func (a *Archiver) lagging() (problems []string) {
	for _, p := range a.Points() {
		if p.Age != nil && p.seen > p.Limit+behindAfter {
			problems = append(problems, fmt.Sprintf("the archive lacks the last %d records of %s, the oldest for %s", *p.Records, p.Stream, p.Age.Round(time.Second)))
		}
	}
	return problems
}

// Gauges show what an archiver has measured whenever they are asked.
type Gauges struct {
	archiver              *Archiver
	age, lag, held, shard *prometheus.Desc
}

// NewGauges makes them; the caller registers them.
func NewGauges(a *Archiver) *Gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("evenkeel_archive_"+name, help, labels, nil)
	}
	return &Gauges{
		archiver: a,
		age:      desc("age_seconds", "For how long, at most, the oldest record has been in the logs that the bucket does not have, of the shards that this node archives, by reading the bucket; +Inf: not known.", "stream"),
		lag:      desc("lag_records", "Records that the logs have and the bucket does not, by reading the bucket; +Inf: not known.", "stream"),
		held:     desc("held_bytes", "Bytes that were read from logs and are not in the bucket yet."),
		shard:    desc("shard", "1 for a shard that this node archives, 0 for any other of the region. One that is 0 on all nodes is archived by nobody, and in no age or lag.", "shard"),
	}
}

// Describe implements prometheus.Collector.
func (g *Gauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.age
	ch <- g.lag
	ch <- g.held
	ch <- g.shard
}

// Collect implements prometheus.Collector.
func (g *Gauges) Collect(ch chan<- prometheus.Metric) {
	for _, p := range g.archiver.Points() {
		age, lag := math.Inf(1), math.Inf(1)
		if p.Age != nil {
			age, lag = p.Age.Seconds(), float64(*p.Records)
		}
		ch <- prometheus.MustNewConstMetric(g.age, prometheus.GaugeValue, age, string(p.Stream))
		ch <- prometheus.MustNewConstMetric(g.lag, prometheus.GaugeValue, lag, string(p.Stream))
	}
	ch <- prometheus.MustNewConstMetric(g.held, prometheus.GaugeValue, float64(g.archiver.Held()))
	for p := range g.archiver.cfg.Partitions {
		here := 0.0
		if g.archiver.shard(p) != nil {
			here = 1
		}
		ch <- prometheus.MustNewConstMetric(g.shard, prometheus.GaugeValue, here, strconv.Itoa(int(p)))
	}
}
