package divergence

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// Local is what a Judge asks of the region that it works in.
type Local interface {
	// At is the region's own mark of a log at an offset. Errors are ErrAhead,
	// ErrGone or ErrElsewhere, or wrap them; any other is trouble of the moment.
	At(log events.Log, offset int64) (events.Mark, error)

	// Lineage names the line of descent of the state that holds the log. State of
	// another name was folded anew.
	Lineage(log events.Log) string
}

// Why there is no mark.
var (
	ErrAhead     = errors.New("not folded up to that offset yet")
	ErrGone      = errors.New("the state at that offset is not remembered any more")
	ErrElsewhere = errors.New("the shard is not held here")
)

// Config is what a Judge judges.
type Config struct {
	Origin  events.Origin   // of the region that compares
	Origins []events.Origin // of all regions, its own included
	Logs    []events.Log    // everything that has to be compared, its own logs included

	// Format is the version of what this region folds of a stream.
	Format func(events.Stream) uint32

	// Group is the consumer group of the region's nodes, Topic the topic of a stream's logs
	// in all regions. What says otherwise is of another deployment. nil: of no matter.
	Group string
	Topic func(events.Stream) string
}

// pendingMost bounds the attestations of a log that wait for the fold to reach
// them. Of more, every other one is let go: a region that is far behind has
// something to compare on its way, and at its end.
const pendingMost = 16

// Judge compares attestations with a region's own marks.
type Judge struct {
	cfg    Config
	local  Local
	tracks map[events.Log]*track
	order  []*track // by log
	likes  map[events.Stream]*likeness
}

// track is what is known of one log.
type track struct {
	log     events.Log
	begun   time.Time
	newest  Attestation
	heard   time.Time // when newest came; zero: none yet
	made    time.Time // when newest was made, by the origin's clock, and not after it came
	pending []claim   // to be compared, by offset
	last    verdict   // newest comparison; zero: none yet
	found   *verdict  // a divergence that stays
	again   *int64    // offset at which the folds were equal after it
	missed  error     // why the last attestation that was not compared was not
	refused error     // the last refusal, if it is newer than what was heard
}

// claim is what there is to compare of an attestation.
type claim struct {
	mark   events.Mark
	format uint32
}

// verdict is one comparison.
type verdict struct {
	result  Result
	layer   Layer
	theirs  claim
	ours    events.Mark
	lineage string // of the state compared
	at      time.Time
	since   time.Time // of the same result
}

// NewJudge makes a judge that has heard nothing yet.
func NewJudge(cfg Config, local Local, now time.Time) *Judge {
	j := &Judge{cfg: cfg, local: local, tracks: map[events.Log]*track{}, likes: map[events.Stream]*likeness{}}
	for _, l := range cfg.Logs {
		t := &track{log: l, begun: now}
		j.tracks[l] = t
		j.order = append(j.order, t)
		if j.likes[l.Stream] == nil {
			j.likes[l.Stream] = &likeness{}
		}
		j.likes[l.Stream].unlike++
	}
	slices.SortFunc(j.order, func(a, b *track) int { return a.log.Compare(b.log) })
	return j
}

// Attested takes in an attestation from an origin's topic. Errors are
// *RefusedError: it is not heeded.
func (j *Judge) Attested(from events.Origin, a Attestation, now time.Time) error {
	if a.Log.Origin != from {
		return refuse(NotTheirs, "%s speaks of %s", from, a.Log)
	}
	t, ok := j.tracks[a.Log]
	if !ok {
		return refuse(UnknownLog, "%s is not configured", a.Log)
	}
	if err := j.isOurs(a); err != nil {
		return err
	}
	if a.Epoch < t.newest.Epoch {
		t.refused = refuse(OldEpoch, "%s is attested under epoch %s, which was over when epoch %s began", a.Log, a.Epoch, t.newest.Epoch)
		return t.refused
	}
	if a.Epoch > t.newest.Epoch && a.Log.Origin != j.cfg.Origin {
		// The state may have been restored to before what its former owner
		// attested, and its log may be another one from there on. One's own word
		// still holds: it proves a restore.
		t.pending = nil
	}
	wasAlike := j.speaks(t) == nil
	t.newest, t.heard, t.refused = a, now, nil
	if t.made = a.Made; t.made.After(now) {
		t.made = now
	}
	j.likes[a.Log.Stream].change(wasAlike, j.speaks(t) == nil, now)
	t.add(claim{a.Mark, a.Format})
	return nil
}

// isOurs refuses what is of another deployment. Groups are known of the own region alone.
func (j *Judge) isOurs(a Attestation) error {
	if j.cfg.Topic == nil || a.Topic == "" {
		return nil
	}
	if topic := j.cfg.Topic(a.Log.Stream); a.Topic != topic {
		return refuse(OtherDeployment, "%s is attested as topic %s; here it is topic %s", a.Log, a.Topic, topic)
	}
	if a.Log.Origin == j.cfg.Origin && a.Group != j.cfg.Group {
		return refuse(OtherDeployment, "%s is attested by nodes of group %s; those of this deployment are group %s", a.Log, a.Group, j.cfg.Group)
	}
	return nil
}

func (t *track) add(c claim) {
	if slices.Contains(t.pending, c) {
		return
	}
	// Behind others of the same offset: an origin that contradicts itself is
	// compared with both.
	i, _ := slices.BinarySearchFunc(t.pending, c.mark.Next+1, func(a claim, next int64) int { return cmp.Compare(a.mark.Next, next) })
	t.pending = slices.Insert(t.pending, i, c)
	if len(t.pending) <= pendingMost {
		return
	}
	kept := t.pending[:0]
	for i, c := range t.pending {
		if i%2 == 0 || i == len(t.pending)-1 {
			kept = append(kept, c)
		}
	}
	t.pending = kept
}

// Progress is what Compare has done.
type Progress struct {
	Compared int
	Found    []Finding    // divergences that were not there before
	Repaired []events.Log // whose divergence is over
}

// Compare compares what the region has folded far enough for.
func (j *Judge) Compare(now time.Time) Progress {
	var p Progress
	for _, t := range j.order {
		for len(t.pending) > 0 {
			if !j.settle(t, t.pending[0], now, &p) {
				break
			}
			t.pending = t.pending[1:]
		}
		if len(t.pending) == 0 {
			t.pending = nil
		}
	}
	return p
}

// settle compares one claim. It is not done with it if it has to wait.
func (j *Judge) settle(t *track, c claim, now time.Time, p *Progress) (done bool) {
	v := verdict{theirs: c, at: now, since: now}
	if format := j.cfg.Format(t.log.Stream); c.format != format {
		v.result = Skipped
		t.note(v)
		return true
	}
	ours, err := j.local.At(t.log, c.mark.Next)
	switch {
	case errors.Is(err, ErrAhead):
		t.missed = fmt.Errorf("attested up to offset %d: %w", c.mark.Next, err)
		return false
	case errors.Is(err, ErrGone), errors.Is(err, ErrElsewhere):
		t.missed = fmt.Errorf("attested at offset %d: %w", c.mark.Next, err)
		return true
	case err != nil:
		t.missed = err
		return false
	}
	v.ours, v.lineage = ours, j.local.Lineage(t.log)
	v.result, v.layer = compare(c.mark, ours)
	p.Compared++
	t.note(v)
	t.missed = nil
	switch {
	case v.result == Diverged:
		t.again = nil
		if t.found == nil || t.found.layer == LayerFold && v.layer == LayerLog {
			t.found = &v
			p.Found = append(p.Found, j.finding(t, now))
		}
	case t.found == nil:
	case v.repairs(*t.found):
		t.found, t.again = nil, nil
		p.Repaired = append(p.Repaired, t.log)
	case t.again == nil && c.mark.Next > t.found.theirs.mark.Next:
		t.again = &c.mark.Next
	}
	return true
}

// compare is the whole of it.
func compare(theirs, ours events.Mark) (Result, Layer) {
	switch {
	case theirs.Chain != ours.Chain:
		return Diverged, LayerLog
	case theirs != ours:
		return Diverged, LayerFold
	}
	return Consistent, ""
}

// repairs reports whether an equal comparison ends a divergence. Chains hash the
// whole prefix, so that equal ones at or behind the place where they differed mean
// that other records are there now. A sum over slices can be equal again because
// later events replaced the wrong slices; only state that was folded anew ends that.
func (v verdict) repairs(found verdict) bool {
	if v.theirs.mark.Next < found.theirs.mark.Next {
		return false
	}
	return found.layer == LayerLog || v.lineage != found.lineage
}

func (t *track) note(v verdict) {
	if t.last.result == v.result && t.last.layer == v.layer {
		v.since = t.last.since
	}
	t.last = v
}

// Acknowledge ends a divergence by an operator's word. If it lasts it is found
// again by the next comparison.
func (j *Judge) Acknowledge(log events.Log) error {
	t, ok := j.tracks[log]
	if !ok {
		return events.Errorf(events.KindNotFound, "%s is not a log of this region's configuration", log)
	}
	if t.found == nil {
		return events.Errorf(events.KindRefused, "%s has not diverged in this region", log)
	}
	t.forget()
	return nil
}

// Forget lets go all that comparisons have said of the logs of a partition: its shard is
// another's, who finds what lasts. A divergence that was kept here would be told for ever:
// nothing is compared here any more that could end it.
func (j *Judge) Forget(partition int32) {
	for _, t := range j.order {
		if t.log.Partition == partition {
			t.forget()
		}
	}
}

func (t *track) forget() { t.found, t.again, t.last = nil, nil, verdict{} }

// Findings tell how every log stands, in order.
//
// Blocked says what keeps a log's fold, or its attestations, from coming; empty if
// nothing is known to.
func (j *Judge) Findings(now time.Time, blocked func(events.Log) string) []Finding {
	stable := j.Stable()
	findings := make([]Finding, 0, len(j.order))
	for _, t := range j.order {
		f := j.finding(t, now)
		f.Stable = stable[t.log]
		if f.Result == Indeterminate {
			f.Blocked = cmp.Or(blocked(t.log), t.why(now))
		}
		findings = append(findings, f)
	}
	return findings
}

func (j *Judge) finding(t *track, now time.Time) Finding {
	f := Finding{Log: t.log, Result: t.last.result}
	if !t.heard.IsZero() {
		f.Attested, f.Heard = new(t.newest.Mark.Next), new(t.heard)
	}
	v := t.last
	switch {
	case t.found != nil:
		v = *t.found
		f.Result, f.Layer, f.Theirs, f.Ours, f.EqualAgain = Diverged, v.layer, &v.theirs.mark, &v.ours, t.again
	case v.result == "" || now.Sub(v.at) >= RecentFor:
		f.Result = Indeterminate
	case v.result == Skipped:
		f.Formats = &Skew{Theirs: v.theirs.format, Ours: j.cfg.Format(t.log.Stream)}
	}
	f.Since = &v.since
	switch {
	case v.result == "":
		f.Since = new(t.begun)
		return f
	case f.Result == Indeterminate:
		f.Since = &v.at
	}
	if v.result != Skipped {
		f.At, f.Compared = &v.theirs.mark.Next, &v.at
	}
	return f
}

// why says, as far as the attestations tell, why nothing was compared.
func (t *track) why(now time.Time) string {
	switch {
	case t.refused != nil:
		return t.refused.Error()
	case t.heard.IsZero():
		return "no attestation of it has come yet"
	case now.Sub(t.heard) >= RecentFor:
		return fmt.Sprintf("no attestation of it has come for %s", now.Sub(t.heard).Round(time.Second))
	case t.missed != nil:
		return t.missed.Error()
	}
	return "nothing was compared yet"
}

// Stable is the cut that every region has folded, as the attestations say.
func (j *Judge) Stable() events.Vector {
	var newest []Attestation
	for _, t := range j.order {
		if !t.heard.IsZero() {
			newest = append(newest, t.newest)
		}
	}
	return Stable(j.cfg.Origins, newest)
}
