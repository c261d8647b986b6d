package replicator

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

var (
	logID    = topicID{1}
	mirrorID = topicID{2}
	otherID  = topicID{3}
)

// sound are findings of a partition that is mirrored up to offset 10 of 12.
func sound() findings {
	return findings{
		topic: "t", mirror: "us.t", sourceName: "us", destName: "eu", sourceID: logID.String(), mirrorID: mirrorID.String(),
		known: ledger.Mirror{SourceTopicID: logID.String(), MirrorTopicID: mirrorID.String()},
		runs:  new(mapping.Map), mirrorEnd: 10, producing: true, lastSequence: 9, sourceEnd: 12,
	}
}

func runsOf(runs ...mapping.Run) *mapping.Map {
	m, err := mapping.New(runs...)
	if err != nil {
		panic(err)
	}
	return m
}

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name     string
		change   func(f *findings)
		next     int64
		runs     int
		state    State // "": goes on
		from, to int64
	}{
		{"goes on", func(*findings) {}, 10, 0, "", 0, 0},
		{"goes on with the same tail", func(f *findings) { f.tail = same }, 10, 0, "", 0, 0},
		{"has all", func(f *findings) { f.sourceEnd = 10 }, 10, 0, "", 0, 0},
		{"producer forgotten", func(f *findings) { f.producing = false }, 10, 0, "", 0, 0},
		{"by the mapping", func(f *findings) { f.runs = runsOf(mapping.Run{}, mapping.Run{Source: 7, Dest: 5}) }, 12, 0, "", 0, 0},
		{"a run is planned at the end", func(f *findings) { f.runs = runsOf(mapping.Run{}, mapping.Run{Source: 12, Dest: 10}) }, 12, 0, "", 0, 0},
		{"nothing yet", func(f *findings) { f.known, f.fresh, f.mirrorEnd, f.producing = ledger.Mirror{}, true, 0, false }, 0, 0, "", 0, 0},
		{"nothing yet, the log has begun to expire", func(f *findings) {
			f.known, f.fresh, f.mirrorEnd, f.producing, f.sourceStart = ledger.Mirror{}, true, 0, false, 5
		}, 5, 1, "", 0, 0},
		{"new partition of a known topic", func(f *findings) { f.fresh, f.mirrorEnd, f.producing = true, 0, false }, 0, 0, "", 0, 0},
		{"new partition of a topic that is another one", func(f *findings) { f.fresh, f.mirrorEnd, f.producing, f.sourceID = true, 0, false, otherID.String() }, 0, 0, SourceRecreated, -1, -1},
		{"filled by nobody knows whom", func(f *findings) { f.known, f.fresh, f.producing = ledger.Mirror{}, true, false }, 0, 0, ForeignWriter, 0, 9},
		{"filled by nobody knows whom, and it has expired", func(f *findings) {
			f.known, f.fresh, f.producing, f.mirrorStart = ledger.Mirror{}, true, false, 4
		}, 0, 0, ForeignWriter, 4, 9},
		{"filled with the same", func(f *findings) { f.known, f.fresh, f.producing, f.tail = ledger.Mirror{}, true, false, same }, 10, 0, "", 0, 0},
		{"filled with others", func(f *findings) { f.known, f.fresh, f.producing, f.tail = ledger.Mirror{}, true, false, differs }, 0, 0, ForeignWriter, 0, 9},
		{"log re-created", func(f *findings) { f.sourceID = otherID.String() }, 0, 0, SourceRecreated, -1, -1},
		{"mirror re-created", func(f *findings) { f.mirrorID = otherID.String() }, 0, 0, MirrorRecreated, -1, -1},
		{"both re-created", func(f *findings) { f.sourceID, f.mirrorID = otherID.String(), otherID.String() }, 0, 0, SourceRecreated, -1, -1},
		{"one foreign record", func(f *findings) { f.mirrorEnd = 11 }, 0, 0, ForeignWriter, 10, 10},
		{"many foreign records", func(f *findings) { f.mirrorEnd = 20 }, 0, 0, ForeignWriter, 10, 19},
		{"foreign beats truncated", func(f *findings) { f.mirrorEnd, f.sourceEnd = 20, 5 }, 0, 0, ForeignWriter, 10, 19},
		{"sequences wrap", func(f *findings) {
			f.mirrorEnd, f.sourceEnd, f.lastSequence = 1<<31, 1<<31, math.MaxInt32
		}, 1 << 31, 0, "", 0, 0},
		{"sequences have wrapped", func(f *findings) {
			f.mirrorEnd, f.sourceEnd, f.lastSequence = 3<<31+7, 3<<31+7, 6
		}, 3<<31 + 7, 0, "", 0, 0},
		{"foreign over the wrap", func(f *findings) {
			f.mirrorEnd, f.sourceEnd, f.lastSequence = 1<<31+1, 1<<32, math.MaxInt32-1
		}, 0, 0, ForeignWriter, 1<<31 - 1, 1 << 31},
		{"goes on where an operator has let it", func(f *findings) { f.runs = runsOf(mapping.Run{Source: 11, Dest: 10}) }, 11, 0, "", 0, 0},
		{"has lost more than came since", func(f *findings) { f.runs = runsOf(mapping.Run{Source: 11, Dest: 15}) }, 0, 0, MirrorTruncated, 10, 14},
		{"differs", func(f *findings) { f.tail, f.tailOffset, f.tailMirrorAt = differs, 9, 9 }, 0, 0, Diverged, 9, 9},
		{"truncated", func(f *findings) { f.sourceEnd = 7 }, 0, 0, Truncated, 7, 9},
		{"truncated, producer forgotten", func(f *findings) { f.sourceEnd, f.producing = 7, false }, 0, 0, Truncated, 7, 9},
		{"truncated and grown, by its epochs", func(f *findings) { f.epochKnown, f.epochEnd = true, 8 }, 0, 0, Truncated, 8, 9},
		{"epoch ends where the mirror does", func(f *findings) { f.epochKnown, f.epochEnd = true, 10 }, 10, 0, "", 0, 0},
		{"epoch goes on", func(f *findings) { f.epochKnown, f.epochEnd = true, 12 }, 10, 0, "", 0, 0},
		{"expired", func(f *findings) { f.sourceStart = 11 }, 0, 0, LostRecords, 10, 10},
		{"all expired", func(f *findings) { f.sourceStart = 12 }, 0, 0, LostRecords, 10, 11},
		{"expired up to the mirror's end", func(f *findings) { f.sourceStart = 10 }, 10, 0, "", 0, 0},
		{"expired, but read before", func(f *findings) { f.sourceStart, f.reached = 12, start{next: 12, end: 10} }, 12, 0, "", 0, 0},
		{"expired, read before the mirror grew", func(f *findings) { f.sourceStart, f.reached = 12, start{next: 12, end: 9} }, 0, 0, LostRecords, 10, 11},
		{"expired before the first was mirrored, which was planned", func(f *findings) {
			f.mirrorEnd, f.producing, f.sourceStart = 0, false, 3
		}, 0, 0, LostRecords, 0, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := sound()
			test.change(&f)
			before := f.runs.Len()
			s, stop := f.decide()
			switch {
			case f.runs.Len() != before:
				t.Error("deciding has changed the map")
			case test.state == "" && stop != nil:
				t.Errorf("stopped: %v", stop)
			case test.state == "" && (s.next != test.next || s.end != f.mirrorEnd || len(s.runs) != test.runs):
				t.Errorf("goes on with %+v, want next %d", s, test.next)
			case test.state != "" && (stop == nil || stop.State != test.state || stop.From != test.from || stop.To != test.to):
				t.Errorf("goes on with %+v, stopped %+v; want %s %d to %d", s, stop, test.state, test.from, test.to)
			case stop != nil && !strings.Contains(stop.Reason, "t"):
				t.Errorf("reason %q", stop.Reason)
			}
		})
	}
}

// Whatever is found: who goes on neither leaves out a record that the source still
// has, nor goes on beyond what the source has or a foreign writer's record.
func TestDecideAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := sound()
		f.mirrorStart = 0
		f.mirrorEnd = rapid.Int64Range(0, 20).Draw(t, "mirror end")
		f.lastSequence = rapid.Int32Range(0, 20).Draw(t, "last sequence")
		f.producing = rapid.Bool().Draw(t, "producing")
		f.sourceStart = rapid.Int64Range(0, 20).Draw(t, "source start")
		f.sourceEnd = rapid.Int64Range(f.sourceStart, 30).Draw(t, "source end")
		f.tail = rapid.SampledFrom([]comparison{notCompared, same, differs}).Draw(t, "tail")
		if f.mirrorEnd == 0 {
			f.tail = notCompared
		}
		f.fresh = rapid.Bool().Draw(t, "fresh")
		if rapid.Bool().Draw(t, "mapped") {
			f.runs = runsOf(mapping.Run{}, mapping.Run{Source: 7, Dest: 5})
		}
		s, stop := f.decide()
		if stop != nil {
			if !stop.State.Stopped() || stop.Reason == "" || stop.From > stop.To {
				t.Fatalf("%+v", stop)
			}
			return
		}
		after := runsOf(append(slices.Clone(f.runs.Runs()), s.runs...)...)
		if at, _ := after.Source(s.end); s.end != f.mirrorEnd || at != s.next {
			t.Fatalf("goes on with %+v, the map says %d", s, at)
		}
		if s.next < f.sourceStart || s.next > f.sourceEnd || f.tail == differs {
			t.Fatalf("goes on with %+v", s)
		}
		if f.producing && f.mirrorEnd > 0 && int64(f.lastSequence) != f.mirrorEnd-1 {
			t.Fatalf("goes on with %+v behind a foreign writer", s)
		}
	})
}

// A broker's idea of a session is the fetcher's, whatever happens in between.
func TestSessionMatchesTheBrokers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s session
		type entry struct {
			offset int64
			epoch  int32
		}
		type place struct {
			topic topicID
			num   int32
		}
		broker := map[place]entry{} // as in its session
		id, epoch := int32(0), int32(0)
		for range rapid.IntRange(1, 30).Draw(t, "fetches") {
			want := wanted{flows: map[partition]*flow{}, granted: rapid.Int64Range(1<<20, 16<<20).Draw(t, "granted")}
			truth := map[place]entry{}
			for num := range int32(4) {
				if rapid.IntRange(0, 2).Draw(t, "absent") == 0 {
					continue
				}
				p := &part{partition: partition{"t", num}, sourceID: rapid.SampledFrom([]topicID{logID, otherID}).Draw(t, "id")}
				f := &flow{part: p, next: rapid.Int64Range(0, 2).Draw(t, "next"), leader: leader{epoch: rapid.Int32Range(0, 1).Draw(t, "epoch")}}
				want.flows[p.partition] = f
				truth[place{p.sourceID, num}] = entry{f.next, f.leader.epoch}
			}
			req := s.request(want)
			if req.SessionID != id || req.SessionEpoch != epoch {
				t.Fatalf("session %d epoch %d, the broker is at %d and %d", req.SessionID, req.SessionEpoch, id, epoch)
			}
			if epoch == 0 {
				clear(broker)
			}
			for _, f := range req.ForgottenTopics {
				for _, num := range f.Partitions {
					delete(broker, place{f.TopicID, num})
				}
			}
			for _, rt := range req.Topics {
				for _, rp := range rt.Partitions {
					broker[place{rt.TopicID, rp.Partition}] = entry{rp.FetchOffset, rp.CurrentLeaderEpoch}
				}
			}
			if fmt.Sprint(broker) != fmt.Sprint(truth) {
				t.Fatalf("the broker reads %v, wanted is %v", broker, truth)
			}
			resp := &kmsg.FetchResponse{}
			switch rapid.IntRange(0, 8).Draw(t, "answer") {
			case 0: // no room for a session
				id, epoch = 0, 0
			case 1: // lost
				s, id, epoch = session{}, 0, 0
				continue
			default:
				if id == 0 {
					id = 77
				}
				resp.SessionID = id
				epoch++
			}
			s.answered(resp)
			for _, f := range want.flows {
				if rapid.IntRange(0, 3).Draw(t, "error") == 0 {
					s.forget(f.part)
				}
			}
		}
	})
}

func TestSessionEpochWraps(t *testing.T) {
	s := session{id: 5, epoch: math.MaxInt32}
	s.answered(&kmsg.FetchResponse{SessionID: 5})
	if s.epoch != 1 {
		t.Errorf("epoch %d after the largest", s.epoch)
	}
}

func TestSequence(t *testing.T) {
	for offset, want := range map[int64]int32{0: 0, 1: 1, math.MaxInt32: math.MaxInt32, 1 << 31: 0, 1<<31 + 5: 5, 5<<31 - 1: math.MaxInt32, math.MaxInt64: math.MaxInt32} {
		if got := sequence(offset); got != want {
			t.Errorf("sequence of offset %d is %d, want %d", offset, got, want)
		}
	}
}

// A limiter lets through what it says, on average and from the first on.
func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &limiter{bytesPerSecond: 1000}
		began := time.Now()
		for range 20 {
			if err := l.wait(context.Background(), 500); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("10000 bytes took %v", took)
		}
		time.Sleep(time.Hour) // saves nothing up
		began = time.Now()
		_ = l.wait(context.Background(), 1000)
		_ = l.wait(context.Background(), 1000)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("2000 bytes after an hour took %v", took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began = time.Now()
		if err := l.wait(ctx, 1_000_000); err == nil || time.Since(began) != time.Second {
			t.Errorf("ended after %v with %v", time.Since(began), err)
		}
		if err := (&limiter{}).wait(context.Background(), 1<<40); err != nil || time.Since(began) != time.Second {
			t.Error("a limiter without a limit waits")
		}
	})
}

func TestBehind(t *testing.T) {
	now := time.Now()
	ptr := func(n int64) *int64 { return &n }
	sec := func(s float64) *float64 { return &s }
	for name, test := range map[string]struct {
		p    part
		want Lag
	}{
		"nothing":                   {part{mirrored: 7, lag: sourceEnd{known: true, stable: 7, end: 7}}, Lag{ptr(0), ptr(0), sec(0)}},
		"open transaction":          {part{mirrored: 7, lag: sourceEnd{known: true, stable: 7, end: 90}}, Lag{ptr(0), ptr(0), sec(0)}},
		"ahead of what it said":     {part{mirrored: 8, lag: sourceEnd{known: true, stable: 7, end: 7}}, Lag{ptr(0), ptr(0), sec(0)}},
		"nothing mirrored yet":      {part{lag: sourceEnd{known: true, stable: 7}}, Lag{ptr(7), nil, nil}},
		"half, times not known":     {part{mirrored: 5, records: 5, bytes: 1000, lastTime: 50, lag: sourceEnd{known: true, stable: 10}}, Lag{ptr(5), ptr(1000), nil}},
		"half":                      {part{mirrored: 5, records: 5, bytes: 1000, lastTime: 2500, lag: sourceEnd{known: true, stable: 10, seconds: 1.5, measuredAt: now}}, Lag{ptr(5), ptr(1000), sec(1.5)}},
		"measured a moment ago":     {part{mirrored: 5, records: 5, bytes: 1000, lastTime: 2500, lag: sourceEnd{known: true, stable: 10, seconds: 1.5, measuredAt: now.Add(-knownFor)}}, Lag{ptr(5), ptr(1000), sec(1.5)}},
		"measured long ago":         {part{mirrored: 5, records: 5, bytes: 1000, lastTime: 2500, lag: sourceEnd{known: true, stable: 10, seconds: 1.5, measuredAt: now.Add(-knownFor - 1)}}, Lag{ptr(5), ptr(1000), nil}},
		"estimate by the mean size": {part{mirrored: 4, records: 3, bytes: 100, lag: sourceEnd{known: true, stable: 10}}, Lag{ptr(6), ptr(200), nil}},
	} {
		t.Run(name, func(t *testing.T) {
			got := test.p.behind(now)
			if show(got) != show(test.want) {
				t.Errorf("%s, want %s", show(got), show(test.want))
			}
		})
	}
}

// The lag in seconds is measured between the source's last record and what was mirrored
// when its place was taken; what has been read before is not read again.
func TestMeasuredLag(t *testing.T) {
	now := time.Now()
	key := partition{"session", 0}
	p := &part{partition: key, flow: &flow{}, mirrored: 8, lastTime: 2000, lag: sourceEnd{known: true, stable: 10, lastTime: 1000, timeAt: 6}}
	m := &mover{parts: map[partition]*part{key: p}}
	probes, spots := m.lagProbes(now)
	if len(spots) != 1 || spots[0].offset != 9 {
		t.Fatalf("read at %+v, want offset 9", spots)
	}
	p.mirrored, p.lastTime = 11, 5000 // it goes on while that is read
	probes[0].measured(4500)
	if p.lag.seconds != 2.5 || p.lag.measuredAt != now {
		t.Errorf("%v s at %v, want 2.5 s", p.lag.seconds, p.lag.measuredAt)
	}
	p.lag.stable, p.lag.timeAt, p.lag.lastTime = 20, 20, 7000
	later := now.Add(lagInterval)
	if _, spots = m.lagProbes(later); len(spots) != 0 || p.lag.seconds != 2 || p.lag.measuredAt != later {
		t.Errorf("read at %+v, %v s at %v, want 2 s without reading", spots, p.lag.seconds, p.lag.measuredAt)
	}
	p.lag.stable, p.lag.measuredAt, p.lastTime = 30, time.Time{}, 0
	if probes, _ = m.lagProbes(later); len(probes) != 1 {
		t.Fatalf("%d probes", len(probes))
	}
	if probes[0].measured(9000); !p.lag.measuredAt.IsZero() {
		t.Error("a lag is known before anything was mirrored")
	}
	p.mirrored = 30
	if probes, _ = m.lagProbes(later); len(probes) != 0 {
		t.Error("what has caught up is measured")
	}
}

func show(l Lag) string {
	text := ""
	for _, n := range []*int64{l.Records, l.Bytes} {
		if n == nil {
			text += "? "
		} else {
			text += fmt.Sprint(*n, " ")
		}
	}
	if l.Seconds == nil {
		return text + "?"
	}
	return text + fmt.Sprint(*l.Seconds)
}

func TestStates(t *testing.T) {
	for s, want := range map[State]bool{
		Starting: false, Mirroring: false, Waiting: false, Paused: false, LostRecords: true, Truncated: true, SourceRecreated: true,
		MirrorRecreated: true, MirrorTruncated: true, ForeignWriter: true, Diverged: true, TooLarge: true, Refused: true, Corrupt: true,
	} {
		if s.Stopped() != want {
			t.Errorf("%s: stopped %t", s, !want)
		}
	}
}

// What two logs have in common is up to where the last epoch ended under which both
// were led.
func TestCommon(t *testing.T) {
	mirrored := []ledger.Epoch{{Epoch: 1, Start: 0}, {Epoch: 3, Start: 50}, {Epoch: 5, Start: 80}}
	for _, test := range []struct {
		name            string
		asked, answered int32
		end             int64
		upTo            int64
		earlier         int32
	}{
		{"nothing lost", 5, 5, 120, 120, -1},
		{"the end lost", 5, 5, 85, 85, -1},
		{"never led under it", 5, 3, 80, 80, -1},
		{"never led under it, and lost more", 5, 3, 70, 70, -1},
		{"never led under it, but for longer under the one before", 5, 3, 100, 80, -1},
		{"led under one of which nothing was mirrored", 5, 4, 100, 80, 3},
		{"led under one of which nothing was mirrored, long before", 5, 2, 100, 50, 1},
		{"led under another only, before all that is known", 5, 0, 100, 0, -1},
		{"asked again", 3, 1, 60, 50, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			if upTo, earlier := common(mirrored, test.asked, test.answered, test.end); upTo != test.upTo || earlier != test.earlier {
				t.Errorf("up to %d, ask about %d; want %d and %d", upTo, earlier, test.upTo, test.earlier)
			}
		})
	}
}
