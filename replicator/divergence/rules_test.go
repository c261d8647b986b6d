package divergence_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

var theLog = events.Log{Origin: testOrigins[1], Stream: "session"}

// scene is one judge in us-east-1 that looks at one log of us-west-1.
type scene struct {
	*testing.T
	judge   *divergence.Judge
	now     time.Time
	marks   map[int64]events.Mark
	err     error // instead of a mark
	lineage string
}

func newScene(t *testing.T) *scene { return newSceneIn(t, testOrigins[0]) }

func newSceneIn(t *testing.T, origin events.Origin) *scene {
	s := &scene{T: t, now: time.UnixMilli(1_750_000_000_000), marks: map[int64]events.Mark{}, lineage: "first"}
	s.judge = divergence.NewJudge(divergence.Config{
		Origin: origin, Origins: testOrigins, Logs: []events.Log{theLog}, Format: func(events.Stream) uint32 { return testFormat },
	}, s, s.now)
	return s
}

func (s *scene) At(_ events.Log, offset int64) (events.Mark, error) {
	if s.err != nil {
		return events.Mark{}, s.err
	}
	m, ok := s.marks[offset]
	if !ok {
		return m, divergence.ErrAhead
	}
	return m, nil
}

func (s *scene) Lineage(events.Log) string { return s.lineage }

// mark is a mark whose chain and digest are of the given bytes.
func mark(next int64, chain, digest byte) events.Mark {
	return events.Mark{Next: next, Chain: events.Digest{chain}, Digest: events.Digest{digest}, Keys: 1, Bytes: 1}
}

// hear gives the judge an attestation and lets it compare.
func (s *scene) hear(m events.Mark, epoch events.Epoch) divergence.Progress {
	s.Helper()
	err := s.judge.Attested(theLog.Origin, divergence.Attestation{Log: theLog, Mark: m, Format: testFormat, Epoch: epoch}, s.now)
	if err != nil {
		s.Fatal(err)
	}
	return s.judge.Compare(s.now)
}

func (s *scene) finding() divergence.Finding {
	s.Helper()
	all := s.judge.Findings(s.now, func(events.Log) string { return "" })
	if len(all) != 1 || all[0].Log != theLog {
		s.Fatalf("findings: %+v", all)
	}
	return all[0]
}

func (s *scene) want(result divergence.Result, blocked string) divergence.Finding {
	s.Helper()
	f := s.finding()
	if f.Result != result || !strings.Contains(f.Blocked, blocked) || (blocked == "") != (f.Blocked == "") {
		s.Fatalf("got %s (%s), want %s (%s)", f.Result, f.Blocked, result, blocked)
	}
	return f
}

func TestUnknownIsNeverGood(t *testing.T) {
	s := newScene(t)
	f := s.want(divergence.Indeterminate, "no attestation of it has come yet")
	if f.At != nil || f.Compared != nil || f.Attested != nil || !f.Since.Equal(s.now) {
		t.Errorf("knows what it cannot know: %+v", f)
	}

	s.hear(mark(5, 1, 1), 1) // not folded so far
	f = s.want(divergence.Indeterminate, "attested up to offset 5: not folded up to that offset yet")
	if f.At != nil || *f.Attested != 5 {
		t.Errorf("%+v", f)
	}
	s.marks[5] = mark(5, 1, 1)
	if p := s.judge.Compare(s.now); p.Compared != 1 {
		t.Errorf("compared %d", p.Compared)
	}
	f = s.want(divergence.Consistent, "")
	if *f.At != 5 || !f.Compared.Equal(s.now) {
		t.Errorf("%+v", f)
	}

	compared := s.now
	s.now = s.now.Add(divergence.RecentFor - 1)
	s.want(divergence.Consistent, "")
	s.now = s.now.Add(1)
	f = s.want(divergence.Indeterminate, "no attestation of it has come for 1m0s")
	if !f.Since.Equal(compared) || *f.At != 5 {
		t.Errorf("%+v", f)
	}
	all := s.judge.Findings(s.now, func(events.Log) string { return "the link is paused" })
	if all[0].Blocked != "the link is paused" {
		t.Errorf("what is known to block it is not said: %+v", all[0])
	}
}

func TestWhyNothingWasCompared(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{divergence.ErrGone, "attested at offset 5: the state at that offset is not remembered any more"},
		{divergence.ErrElsewhere, "attested at offset 5: the shard is not held here"},
		{errors.New("disk on fire"), "disk on fire"},
	} {
		s := newScene(t)
		s.err = c.err
		s.hear(mark(5, 1, 1), 1)
		s.want(divergence.Indeterminate, c.want)
		s.err = nil
		s.marks[5], s.marks[6] = mark(5, 1, 1), mark(6, 2, 2)
		s.hear(mark(6, 2, 2), 1)
		s.want(divergence.Consistent, "")
	}
}

func TestTroubleOfTheMomentLosesNothing(t *testing.T) {
	s := newScene(t)
	s.err = errors.New("disk on fire")
	s.hear(mark(5, 1, 1), 1)
	s.err, s.marks[5] = nil, mark(5, 1, 2)
	if p := s.judge.Compare(s.now); len(p.Found) != 1 {
		t.Fatalf("%+v", p)
	}
}

func TestOtherRulesAreNotCompared(t *testing.T) {
	s := newScene(t)
	s.marks[5] = mark(5, 9, 9)
	a := divergence.Attestation{Log: theLog, Mark: mark(5, 1, 1), Format: testFormat + 1, Epoch: 1}
	if err := s.judge.Attested(theLog.Origin, a, s.now); err != nil {
		t.Fatal(err)
	}
	if p := s.judge.Compare(s.now); p.Compared != 0 || len(p.Found) != 0 {
		t.Errorf("%+v", p)
	}
	f := s.want(divergence.Skipped, "")
	if *f.Formats != (divergence.Skew{Theirs: 8, Ours: 7}) || f.At != nil {
		t.Errorf("%+v", f)
	}
}

// The layer, and that each part of a mark counts.
func TestLayers(t *testing.T) {
	other := mark(5, 1, 1)
	other.Keys = 2
	larger := mark(5, 1, 1)
	larger.Bytes = 2
	for _, c := range []struct {
		ours  events.Mark
		layer divergence.Layer
	}{
		{mark(5, 2, 1), divergence.LayerLog},
		{mark(5, 2, 2), divergence.LayerLog},
		{mark(5, 1, 2), divergence.LayerFold},
		{other, divergence.LayerFold},
		{larger, divergence.LayerFold},
	} {
		s := newScene(t)
		s.marks[5] = c.ours
		if p := s.hear(mark(5, 1, 1), 1); len(p.Found) != 1 || p.Found[0].Layer != c.layer {
			t.Errorf("%+v: %+v", c.ours, p)
		}
		f := s.want(divergence.Diverged, "")
		if *f.Ours != c.ours || *f.Theirs != mark(5, 1, 1) || *f.At != 5 {
			t.Errorf("%+v", f)
		}
		if text := f.Describe("us-east-1"); !strings.Contains(text, "us-west-1/session/0 in us-east-1 differs from what us-west-1 attests at offset 5, layer "+string(c.layer)) {
			t.Error(text)
		}
	}
}

func TestDivergenceStays(t *testing.T) {
	s := newScene(t)
	s.marks[5], s.marks[6], s.marks[7] = mark(5, 1, 2), mark(6, 2, 2), mark(7, 3, 9)
	s.hear(mark(5, 1, 1), 1)
	s.now = s.now.Add(time.Hour)
	s.want(divergence.Diverged, "") // nothing new for long
	if p := s.hear(mark(6, 2, 2), 1); len(p.Found)+len(p.Repaired) != 0 {
		t.Errorf("%+v", p)
	}
	f := s.want(divergence.Diverged, "") // equal folds cover it up
	if f.EqualAgain == nil || *f.EqualAgain != 6 || *f.At != 5 {
		t.Errorf("%+v", f)
	}
	s.hear(mark(7, 3, 3), 1)
	if f := s.finding(); f.EqualAgain != nil {
		t.Errorf("equal again, and not: %+v", f)
	}
	s.lineage, s.marks[7] = "restored", mark(7, 3, 3)
	if p := s.hear(mark(7, 3, 3), 1); len(p.Repaired) != 1 || p.Repaired[0] != theLog {
		t.Errorf("%+v", p)
	}
	s.want(divergence.Consistent, "")
}

// State that was folded anew proves nothing about a place that it has not passed.
func TestRepairIsProvedBehindTheFault(t *testing.T) {
	s := newScene(t)
	s.marks[5] = mark(5, 1, 2)
	s.hear(mark(5, 1, 1), 1)
	s.lineage, s.marks[3] = "restored", mark(3, 7, 7)
	s.hear(mark(3, 7, 7), 2)
	s.want(divergence.Diverged, "")
}

// Chains hash everything before: equal ones again mean that the records are others.
func TestMirrorRepaired(t *testing.T) {
	s := newScene(t)
	s.marks[5], s.marks[6] = mark(5, 2, 2), mark(6, 3, 3)
	s.hear(mark(5, 1, 1), 1)
	if p := s.hear(mark(6, 3, 3), 1); len(p.Repaired) != 1 {
		t.Errorf("%+v", p)
	}
	s.want(divergence.Consistent, "")
}

// After a restore to an earlier cut the region's own former word is the proof of the
// replay; others let go what a former epoch said of a place that was not reached.
func TestFormerEpoch(t *testing.T) {
	for origin, found := range map[events.Origin]int{testOrigins[0]: 0, theLog.Origin: 1} {
		s := newSceneIn(t, origin)
		s.hear(mark(9, 1, 1), 1)
		s.marks[3] = mark(3, 7, 7)
		s.hear(mark(3, 7, 7), 2)
		s.want(divergence.Consistent, "")
		s.marks[9] = mark(9, 1, 2)
		if p := s.judge.Compare(s.now); len(p.Found) != found {
			t.Errorf("in %s: %+v", origin, p)
		}
	}
}

func TestWorseIsTold(t *testing.T) {
	s := newScene(t)
	s.marks[5], s.marks[6] = mark(5, 1, 2), mark(6, 9, 9)
	s.hear(mark(5, 1, 1), 1)
	if p := s.hear(mark(6, 2, 2), 1); len(p.Found) != 1 || p.Found[0].Layer != divergence.LayerLog {
		t.Errorf("%+v", p)
	}
}

func TestAcknowledge(t *testing.T) {
	s := newScene(t)
	if err := s.judge.Acknowledge(theLog); events.KindOf(err) != events.KindRefused {
		t.Errorf("nothing to acknowledge: %v", err)
	}
	if err := s.judge.Acknowledge(events.Log{}); events.KindOf(err) != events.KindNotFound {
		t.Errorf("no such log: %v", err)
	}
	s.marks[5] = mark(5, 1, 2)
	s.hear(mark(5, 1, 1), 1)
	if err := s.judge.Acknowledge(theLog); err != nil {
		t.Fatal(err)
	}
	s.want(divergence.Indeterminate, "nothing was compared yet")
	if p := s.hear(mark(5, 1, 1), 1); len(p.Found) != 1 {
		t.Errorf("it lasts and is not found again: %+v", p)
	}
}

// Of a shard that another node owns nothing is told that nothing can end any more.
func TestForget(t *testing.T) {
	s := newScene(t)
	s.marks[5] = mark(5, 1, 2)
	s.hear(mark(5, 1, 1), 1)
	s.judge.Forget(theLog.Partition + 1)
	s.want(divergence.Diverged, "")
	s.judge.Forget(theLog.Partition)
	s.want(divergence.Indeterminate, "nothing was compared yet")
	if err := s.judge.Acknowledge(theLog); events.KindOf(err) != events.KindRefused {
		t.Errorf("nothing is left to acknowledge: %v", err)
	}
	if p := s.hear(mark(5, 1, 1), 1); len(p.Found) != 1 {
		t.Errorf("the shard is back, and what lasts is not found again: %+v", p)
	}
}

func TestRefusals(t *testing.T) {
	s := newScene(t)
	s.marks[5] = mark(5, 1, 1)
	s.hear(mark(5, 1, 1), 4)
	for _, c := range []struct {
		from   events.Origin
		log    events.Log
		epoch  events.Epoch
		reason divergence.Refusal
	}{
		{testOrigins[2], theLog, 5, divergence.NotTheirs},
		{events.Origin{Region: "us-west-1", Incarnation: 2}, theLog, 5, divergence.NotTheirs},
		{testOrigins[1], events.Log{Origin: testOrigins[1], Stream: "session", Partition: 1}, 5, divergence.UnknownLog},
		{testOrigins[1], theLog, 3, divergence.OldEpoch},
	} {
		err := s.judge.Attested(c.from, divergence.Attestation{Log: c.log, Mark: mark(5, 9, 9), Format: testFormat, Epoch: c.epoch}, s.now)
		var refused *divergence.RefusedError
		if !errors.As(err, &refused) || refused.Reason != c.reason {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if p := s.judge.Compare(s.now); p.Compared != 0 {
		t.Errorf("a refused attestation was compared: %+v", p)
	}
	s.now = s.now.Add(divergence.RecentFor)
	s.want(divergence.Indeterminate, "under epoch 3, which was over when epoch 4 began")
}

// A region that is always many seconds behind compares all the same.
func TestSteadyLag(t *testing.T) {
	s := newScene(t)
	for second := range int64(1000) {
		s.now = s.now.Add(time.Second)
		if at := second - 40; at >= 0 {
			s.marks[at] = mark(at, byte(at), byte(at))
		}
		s.hear(mark(second, byte(second), byte(second)), 1)
		if second > 120 && s.finding().Result != divergence.Consistent {
			t.Fatalf("second %d: %+v", second, s.finding())
		}
	}
}
