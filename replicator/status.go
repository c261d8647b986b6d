package replicator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Status is what a link is doing.
type Status struct {
	Origin      events.Origin `json:"origin"`
	Destination events.Region `json:"destination"`
	Running     bool          `json:"running"`         // everything that is not stopped or paused is being mirrored
	Error       string        `json:"error,omitempty"` // why not, if it is not
	Since       time.Time     `json:"since"`           // of Running's present value
	Stopped     []string      `json:"stopped,omitempty"`
}

// Details is all there is to know about a link.
type Details struct {
	Status
	Tasks      []TaskStatus      `json:"tasks"`
	Partitions []PartitionStatus `json:"partitions"`
	Lacking    []string          `json:"lacking,omitempty"` // topics of which not every partition has a place in the destination, and why
	Memory     int64             `json:"memory_bytes"`      // of batches on their way
}

// PartitionStatus is what the mirroring of one partition is doing. What is not
// known is nil, never zero.
type PartitionStatus struct {
	Topic     string        `json:"topic"`
	Partition int32         `json:"partition"`
	Mirror    string        `json:"mirror"`
	State     State         `json:"state"`
	Since     time.Time     `json:"since"`
	Reason    string        `json:"reason,omitempty"`
	Stop      *StoppedError `json:"stop,omitempty"`

	SourceNext *int64 `json:"source_next"` // offset of the source to be mirrored next
	MirrorEnd  *int64 `json:"mirror_end"`  // where the mirror ends
	Identity   bool   `json:"identity"`    // offsets are the source's
	Lag        Lag    `json:"lag"`

	FetchAge *float64 `json:"fetch_age_s"` // since the last good fetch of it
	AckAge   *float64 `json:"ack_age_s"`   // since the destination last acknowledged a batch; nil: none yet
}

// Lag is how far a mirror is behind its source. It is measured against what the
// source said last, at most ten seconds ago, and not known when that is longer ago.
type Lag struct {
	Records *int64   `json:"records"` // offsets up to the last stable one
	Bytes   *int64   `json:"bytes"`   // as produced; estimated from what was mirrored
	Seconds *float64 `json:"seconds"` // between the times of the last record there and the last mirrored, measured every five seconds
}

// knownFor is how long what the source said last, and what was measured by it, is
// taken for its present state.
const knownFor = 10 * time.Second

// Status tells what the link is doing at present.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.statusLocked()
}

func (l *Link) statusLocked() Status {
	s := Status{Origin: l.cfg.Origin, Destination: l.cfg.Destination, Since: l.since}
	err := l.err
	if l.mover != nil {
		err, s.Stopped = l.mover.condition()
	} else {
		for _, p := range l.last {
			if p.Stop != nil {
				s.Stopped = append(s.Stopped, p.Stop.Error())
			}
		}
	}
	l.tell(err)
	s.Since = l.since
	s.Running = err == nil
	if err != nil {
		s.Error = err.Error()
	}
	return s
}

// tell notes since when the link runs or does not, and says so in the log. The
// caller holds the lock.
func (l *Link) tell(err error) {
	if (err == nil) == l.told {
		return
	}
	l.told = err == nil
	l.since = time.Now()
	switch {
	case err == nil:
		l.log.Info("link runs")
	case !errors.Is(err, errEnded):
		l.log.Warn("link is interrupted and tries again", "error", err)
	}
}

func (l *Link) connected(m *mover) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mover = m
}

func (l *Link) disconnected(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mover != nil {
		l.last = l.mover.partitions(time.Now())
		l.metrics.clear(l.cfg.Origin) // what is stopped is found again, or is not
		for i := range l.last {
			p := &l.last[i]
			p.Lag = Lag{} // nobody looks any more
			if p.State == Mirroring || p.State == Starting {
				p.State, p.Reason, p.Since = Waiting, err.Error(), time.Now()
			}
		}
	}
	l.mover, l.err = nil, err
	l.tell(err)
}

// condition says what keeps the link from mirroring, and what has stopped.
func (m *mover) condition() (trouble error, stops []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(m.troubles)) {
		return m.troubles[what], m.stops()
	}
	if m.relay != nil {
		return fmt.Errorf("%s cannot be reached; what %s has of it is relayed", m.cfg.Origin, m.relay.region), m.stops()
	}
	if m.tasks[TaskTopics].State == taskWaiting {
		return errors.New("starting"), m.stops()
	}
	if len(m.missing) > 0 {
		return fmt.Errorf("%s does not have yet, or does not authorize this link to see: topic %s", m.source.name, strings.Join(m.missing, ", topic ")), m.stops()
	}
	if len(m.lacking) > 0 {
		return fmt.Errorf("not all that is to be mirrored has a place: %s", strings.Join(m.lacking, "; ")), m.stops()
	}
	for _, key := range sortedKeys(m.parts) {
		switch p := m.parts[key]; p.state {
		case Waiting:
			return p.reason, m.stops()
		case Starting:
			if time.Since(p.since) > backoffMost || p.records == 0 && p.heardAt.IsZero() {
				return fmt.Errorf("%s is being started", key), m.stops()
			}
		}
	}
	return nil, m.stops()
}

func (m *mover) stops() (texts []string) {
	for _, key := range sortedKeys(m.parts) {
		if stop := m.parts[key].stop; stop != nil {
			texts = append(texts, stop.Error())
		}
	}
	return texts
}

// Details tells everything about the link.
func (l *Link) Details() Details {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := Details{Status: l.statusLocked(), Tasks: []TaskStatus{}, Partitions: l.last}
	if m := l.mover; m != nil {
		d.Partitions = m.partitions(time.Now())
		m.mu.Lock()
		defer m.mu.Unlock()
		d.Memory, d.Lacking = m.used, slices.Clone(m.lacking)
		for _, t := range []Task{TaskTopics, TaskGroups, TaskACLs} {
			d.Tasks = append(d.Tasks, m.tasks[t])
		}
		d.Tasks = append(d.Tasks, m.dataTask())
	}
	if d.Partitions == nil {
		d.Partitions = []PartitionStatus{}
	}
	return d
}

// Runs are the runs by which a partition's offsets translate; none: they are the
// source's.
func (l *Link) Runs(ctx context.Context, topic string, num int32) (mapping.Runs, error) {
	m, err := l.active()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := m.ledger.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("link topic of %s: %w", m.dest.name, err)
	}
	return m.ledger.Map(partition{topic, num}.ledger()).Runs(), nil
}

func (m *mover) partitions(now time.Time) []PartitionStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]PartitionStatus, 0, len(m.parts))
	for _, key := range sortedKeys(m.parts) {
		list = append(list, m.parts[key].status(now))
	}
	return list
}

// status describes a part. The caller holds the mover's lock.
func (p *part) status(now time.Time) PartitionStatus {
	s := PartitionStatus{Topic: p.topic, Partition: p.num, Mirror: p.mirror, State: p.state, Since: p.since}
	if p.stop != nil {
		stop := *p.stop // which grows while batches are on their way
		s.Stop = &stop
	}
	if p.reason != nil {
		s.Reason = p.reason.Error()
	}
	if !p.checked {
		return s
	}
	next, end := p.mirrored, p.acked
	s.SourceNext, s.MirrorEnd, s.Identity = &next, &end, next == end
	s.FetchAge, s.AckAge = age(now, p.fetchedAt), age(now, p.ackedAt)
	if p.lag.known && now.Sub(p.heardAt) <= knownFor {
		s.Lag = p.behind(now)
	}
	return s
}

// behind is the lag by what the source said last.
func (p *part) behind(now time.Time) Lag {
	records := max(p.lag.stable-p.mirrored, 0)
	lag := Lag{Records: &records}
	switch {
	case records == 0:
		lag.Bytes, lag.Seconds = new(int64), new(float64)
		return lag
	case p.records > 0:
		bytes := int64(float64(p.bytes) / float64(p.records) * float64(records))
		lag.Bytes = &bytes
	}
	if now.Sub(p.lag.measuredAt) <= knownFor {
		seconds := p.lag.seconds
		lag.Seconds = &seconds
	}
	return lag
}

func age(now, then time.Time) *float64 {
	if then.IsZero() {
		return nil
	}
	s := now.Sub(then).Seconds()
	return &s
}
