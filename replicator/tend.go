package replicator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/replicator/follow"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Task is one of the things that a link does besides moving batches. Each can be
// paused on its own.
type Task string

// The tasks.
const (
	TaskTopics Task = "topics" // topics, partitions and their configs
	TaskGroups Task = "groups" // offsets of consumer groups
	TaskACLs   Task = "acls"
	TaskData   Task = "data" // the batches themselves
)

// TaskStatus is how a task did last.
type TaskStatus struct {
	Task     Task      `json:"task"`
	State    string    `json:"state"` // off, paused, ok, failing (in whole or in part), or waiting for its first pass
	Last     time.Time `json:"last,omitzero"`
	Problems []string  `json:"problems,omitempty"`
}

// States of tasks.
const (
	taskOff     = "off"
	taskPaused  = "paused"
	taskOK      = "ok"
	taskFailing = "failing"
	taskWaiting = "waiting"
)

// outcome is what a pass of a task came to.
type outcome struct {
	problems []string // for an operator to know
	partly   bool     // some of it has failed
}

// soon is when a pass is repeated that failed, or that cannot be complete before
// the brokers know of what it has made.
const soon = 500 * time.Millisecond

func newTasks() map[Task]TaskStatus {
	tasks := map[Task]TaskStatus{}
	for _, t := range []Task{TaskTopics, TaskGroups, TaskACLs} {
		tasks[t] = TaskStatus{Task: t, State: taskWaiting}
	}
	return tasks
}

// tend does the tasks around the data, each in its interval, until the mover
// ends.
func (m *mover) tend(ctx context.Context) {
	type duty struct {
		task  Task
		every time.Duration
		do    func(context.Context) (outcome, error)
		due   time.Time
	}
	topics := m.followTopics
	if m.relay != nil {
		topics = m.relayTopics
	}
	duties := []*duty{
		{task: TaskTopics, every: topicsInterval, do: topics},
		{task: TaskGroups, every: groupsInterval, do: m.followGroups},
		{task: TaskACLs, every: aclsInterval, do: m.followACLs},
	}
	lagDue, lookDue := time.Now().Add(lagInterval), time.Now().Add(checkInterval)
	for ctx.Err() == nil {
		now := time.Now()
		if !lagDue.After(now) {
			m.doLag(ctx)
			lagDue = time.Now().Add(lagInterval)
		}
		if !lookDue.After(now) {
			m.lookAround(ctx)
			m.noteReached(ctx, requestTimeout)
			lookDue = time.Now().Add(checkInterval)
		}
		next := lagDue
		for _, d := range duties {
			if !d.due.After(now) {
				if d.task == TaskTopics {
					m.refresh(ctx)
				}
				failed := m.doTask(ctx, d.task, d.do)
				d.due = time.Now().Add(d.every)
				if failed || d.task == TaskTopics && m.again.Swap(false) {
					d.due = time.Now().Add(soon)
				}
			}
			if d.due.Before(next) {
				next = d.due
			}
		}
		sleep(ctx, time.Until(next))
	}
}

// refresh reads what others have written to the link topic: pauses, above all.
func (m *mover) refresh(life context.Context) {
	ctx, cancel := context.WithTimeout(life, requestTimeout)
	defer cancel()
	err := m.ledger.Refresh(ctx)
	if life.Err() == nil {
		m.trouble("link topic", err)
	}
}

// doLag finds out what lag is in seconds. Where it cannot, that is not known soon.
func (m *mover) doLag(life context.Context) {
	ctx, cancel := context.WithTimeout(life, requestTimeout/2)
	defer cancel()
	m.probeLag(ctx)
}

// lookAround compares where mirrors end with where the link believes they end:
// an idle partition has no acks that could show that somebody else writes to it.
// It also finds out that a destination has gone for which there is nothing to write.
func (m *mover) lookAround(life context.Context) {
	ctx, cancel := context.WithTimeout(life, requestTimeout)
	defer cancel()
	idle := map[*flow]int64{} // where their mirrors end
	set := map[string]bool{}
	m.mu.Lock()
	for _, p := range m.parts {
		if p.flow != nil && p.flow.careful && p.flow.landed == nil && m.failedPlans(p) {
			m.interruptLocked(p.flow, nil)
		}
		if p.flow != nil && p.unanswered == 0 && p.flow.landed == nil {
			idle[p.flow] = p.acked
			set[p.mirror] = true
		}
	}
	m.mu.Unlock()
	if len(idle) == 0 {
		return
	}
	ends, err := m.dest.admin.ListEndOffsets(ctx, slices.Sorted(maps.Keys(set))...)
	if life.Err() != nil {
		return
	}
	if err != nil {
		err = fmt.Errorf("offsets of %s: %w", m.dest.name, err)
	}
	m.trouble("destination offsets", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	for f, acked := range idle {
		p := f.part
		end, ok := ends.Lookup(p.mirror, p.num)
		if p.flow != f || !ok || end.Err != nil || p.unanswered > 0 || f.landed != nil || p.acked != acked || end.Offset == acked {
			continue
		}
		p.doubts++
		m.interruptLocked(f, fmt.Errorf("%s of %s, partition %d, ends at offset %d, the link wrote up to %d", p.mirror, m.dest.name, p.num, end.Offset, acked))
	}
}

// failedPlans reports whether there are plans that something else has overtaken:
// they are removed when the part is located, so that nobody waits for them. The
// caller holds the lock.
func (m *mover) failedPlans(p *part) bool {
	for _, plan := range m.ledger.Plans(p.ledger()) {
		if plan.Dest < p.acked {
			return true
		}
	}
	return false
}

// noteReached writes down how far idle logs were read whose last offsets have no
// place in the mirror: once those have expired, nobody could tell that nothing was
// lost.
func (m *mover) noteReached(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reached := map[ledger.Partition]mapping.Run{}
	m.mu.Lock()
	for _, p := range m.parts {
		if p.flow == nil || !p.flow.idle() {
			continue
		}
		key, at := p.ledger(), mapping.Run{Source: p.mirrored, Dest: p.acked}
		if next, ok := m.ledger.Map(key).Source(at.Dest); ok && next < at.Source && m.ledger.Reached(key) != at {
			reached[key] = at
		}
	}
	m.mu.Unlock()
	if err := m.ledger.SetReached(ctx, reached); err != nil {
		m.log.Debug("the link topic cannot be written", "error", err)
	}
}

// doTask does a task once and notes how it went.
func (m *mover) doTask(life context.Context, t Task, do func(context.Context) (outcome, error)) (failed bool) {
	status := TaskStatus{Task: t, State: taskOK, Last: time.Now()}
	switch {
	case !m.wants(t):
		status = TaskStatus{Task: t, State: taskOff}
	case m.isPaused(t):
		status = TaskStatus{Task: t, State: taskPaused}
		if t == TaskTopics {
			ctx, cancel := context.WithTimeout(life, requestTimeout)
			defer cancel()
			if err := m.knownTopics(ctx); err != nil {
				status.Problems, failed = []string{err.Error()}, true
			}
		}
	default:
		ctx, cancel := context.WithTimeout(life, requestTimeout)
		done, err := do(ctx)
		cancel()
		if life.Err() != nil {
			return false
		}
		if err != nil {
			done.problems, failed = append(done.problems, err.Error()), true
		}
		if failed || done.partly {
			status.State = taskFailing
		}
		status.Problems = done.problems
		if t == TaskTopics {
			m.trouble("topics", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tasks[t] = status
	return failed
}

// dataTask sums up how the partitions do; what ails one is told there. The caller holds
// the lock.
func (m *mover) dataTask() TaskStatus {
	s := TaskStatus{Task: TaskData, State: taskOK}
	if len(m.parts) == 0 {
		s.State = taskWaiting
	}
	for _, p := range m.parts {
		if p.fetchedAt.After(s.Last) {
			s.Last = p.fetchedAt
		}
		if p.state.Stopped() || p.state == Waiting {
			s.State = taskFailing
		}
	}
	if m.paused[pauseLink] || m.paused[string(TaskData)] {
		s.State = taskPaused
	}
	return s
}

func (m *mover) wants(t Task) bool {
	if m.relay != nil {
		return t == TaskTopics
	}
	switch t {
	case TaskGroups:
		return !m.cfg.Groups.Empty()
	case TaskACLs:
		return m.cfg.Principal != ""
	}
	return true
}

func (m *mover) isPaused(t Task) bool {
	pauses := m.ledger.Pauses()
	return pauses[pauseLink] || pauses[string(t)]
}

const pauseLink = "link"

// followTopics brings topics in step, and parts with them.
func (m *mover) followTopics(ctx context.Context) (done outcome, err error) {
	report, err := follow.Topics(ctx, m.source.admin, m.dest.admin, follow.TopicsConfig{
		Select: m.cfg.selects, Mirror: m.cfg.Origin.MirrorTopic, Overrides: m.cfg.Overrides,
	})
	if err != nil {
		return outcome{}, fmt.Errorf("topics of %s and %s: %w", m.source.name, m.dest.name, err)
	}
	for _, name := range report.Created {
		m.log.Info("mirror created", "topic", name)
	}
	for _, name := range report.Grown {
		m.log.Info("mirror has got more partitions", "topic", name)
	}
	for name, changes := range report.Configured {
		m.log.Info("configuration of mirror changed", "topic", name, "changes", changes)
		m.forgetLimits(name)
	}
	reasons := map[string]string{} // the first ones
	for _, p := range report.Problems {
		done.problems = append(done.problems, fmt.Sprintf("topic %s: %s", p.Topic, p.Reason))
		reasons[p.Topic] = cmp.Or(reasons[p.Topic], p.Reason)
	}
	done.partly = len(report.Problems) > 0
	for _, what := range m.ledger.Unreadable() {
		done.problems = append(done.problems, fmt.Sprintf("link topic %s of %s: a record that is not understood is passed over: %s; nobody but links writes there", LinkTopic, m.dest.name, what))
	}
	m.setTopics(report.Topics, reasons)
	if len(report.Created)+len(report.Grown) > 0 {
		m.again.Store(true)
	}
	return done, nil
}

// forgetLimits lets larger batches be tried again, since the mirror may take them
// by now.
func (m *mover) forgetLimits(mirror string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parts {
		if p.mirror == mirror {
			p.limitBytes, p.refused = 0, 0
		}
	}
}

// selects reports whether a topic of the origin is mirrored.
func (c Config) selects(topic string) bool { return c.Topics.Match(topic) }

// setTopics makes a part of every partition that is to be mirrored. A topic that
// is gone keeps its parts: they say what they wait for. Of a topic that lacks some of
// its parts the reasons tell why.
func (m *mover) setTopics(topics []follow.TopicState, reasons map[string]string) {
	pauses := m.ledger.Pauses()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = pauses
	m.heardAt = time.Now()
	m.missing, m.lacking = nil, nil
	if m.relay == nil && !pauses[pauseLink] && !pauses[string(TaskTopics)] {
		m.missing = m.cfg.Topics.Literals()
	}
	for _, t := range topics {
		m.missing = slices.DeleteFunc(m.missing, func(name string) bool { return name == t.Topic })
		able := 0
		if t.Configured {
			able = min(t.Partitions, t.MirrorPartitions) // if they differ for good, locating finds out that one was re-created
		}
		for num := range int32(able) {
			key := partition{t.Topic, num}
			if m.parts[key] != nil {
				continue
			}
			m.parts[key] = &part{partition: key, log: m.logOf(t), mirror: t.Mirror, state: Starting, since: time.Now()}
			m.wakeLocator()
		}
		if last := int32(max(t.Partitions, 1)) - 1; !t.Ready && m.parts[partition{t.Topic, last}] == nil {
			m.lacking = append(m.lacking, fmt.Sprintf("topic %s: %s", t.Topic, cmp.Or(reasons[t.Topic], "its mirror is being made")))
		}
	}
	m.applyPauses()
}

// logOf is the topic's name in the cluster that is read: a peer has it under the
// name of its mirror.
func (m *mover) logOf(t follow.TopicState) string {
	if m.relay != nil {
		return t.Mirror
	}
	return t.Topic
}

// applyPauses pauses and resumes parts. The caller holds the lock.
func (m *mover) applyPauses() {
	for _, p := range m.parts {
		paused := m.paused[pauseLink] || m.paused[string(TaskData)] || m.paused[pauseOf(p.topic, p.num)]
		switch {
		case paused && !p.state.Stopped() && p.state != Paused:
			m.endFlow(p)
			p.state, p.reason, p.since = Paused, nil, time.Now()
		case !paused && p.state == Paused:
			p.state, p.since, p.retryAt = Starting, time.Now(), time.Now()
			p.doubts++ // what becomes of its topic meanwhile nobody sees
			m.wakeLocator()
		}
	}
}

// pauseOf names the pause of one partition in the link topic.
func pauseOf(topic string, num int32) string { return fmt.Sprintf("topic/%s/%d", topic, num) }

// followGroups brings the offsets of consumer groups in step.
func (m *mover) followGroups(ctx context.Context) (done outcome, err error) {
	report, err := follow.Groups(ctx, m.source.admin, m.dest.admin, follow.GroupsConfig{
		Select: m.cfg.Groups.Match, Named: m.cfg.Groups.Literals(), Mirror: m.cfg.Origin.MirrorTopic, Selected: m.cfg.selects, Translate: m.translate,
	})
	for _, s := range report.Skipped {
		done.problems = append(done.problems, describeSkip(s))
		done.partly = done.partly || s.Reason == follow.SkipFailed
	}
	return done, err
}

// translate gives the mirror's offset for an offset of the source, if what comes
// before it has been mirrored.
func (m *mover) translate(topic string, num int32, source int64) (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.parts[partition{topic, num}]
	if p == nil || p.flow == nil {
		return 0, false
	}
	if p.checked && source <= p.mirrored {
		// All that comes before it is mirrored, be it in front of a hole or in it.
		dest, _ := m.ledger.Map(p.ledger()).Dest(source, p.acked)
		return dest, true
	}
	return 0, false
}

// followACLs brings ACLs in step.
func (m *mover) followACLs(ctx context.Context) (done outcome, err error) {
	report, err := follow.ACLs(ctx, m.source.client, m.dest.client, follow.ACLConfig{
		Principal: m.cfg.Principal, Mirror: m.cfg.Origin.MirrorTopic, Select: m.cfg.selects, MirrorPrefix: m.cfg.Origin.String() + ".",
		Internal: m.cfg.Internal,
	})
	for _, p := range report.Problems {
		done.problems = append(done.problems, fmt.Sprintf("%v: %s", p.Binding, p.Reason))
	}
	done.partly = len(report.Problems) > 0
	if report.Disabled != "" {
		done.problems = append(done.problems, "the "+report.Disabled+" has no authorizer, so there are no ACLs to follow")
	}
	return done, err
}

// describeSkip says why an offset of a group was not brought forward.
func describeSkip(s follow.Skip) string {
	text := "group " + s.Group
	if s.Topic != "" {
		text += fmt.Sprintf(", topic %s, partition %d", s.Topic, s.Partition)
	}
	text += ": " + string(s.Reason)
	if s.Detail != "" {
		text += ": " + s.Detail
	}
	return text
}

// sortedKeys are the partitions in order.
func sortedKeys[V any](m map[partition]V) []partition {
	return slices.SortedFunc(maps.Keys(m), partition.compare)
}
