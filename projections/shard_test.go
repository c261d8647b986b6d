package projections_test

import (
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
)

// A gap stops its log, and no other, until the shard is opened again.
func TestGapBlocksItsLogOnly(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	cfg := config(fs)
	var log strings.Builder
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := open(t, cfg)
	gapped, other := logsOf(0)[0], logsOf(0)[1]
	done := apply(t, s, w.from(gapped, 0, 3), w.from(gapped, 5, 2), w.from(gapped, 3, 9), w.from(other, 0, 4))
	if want := (projections.Applied{Events: 7, MaxClock: events.HLCFromMillis(3)}); done != want {
		t.Errorf("applied %+v, want %+v", done, want)
	}
	gap := wantAs[*projections.GapError](t, s.Blocked()[gapped])
	if want := (projections.GapError{Log: gapped, Want: 3, Got: 5}); *gap != want {
		t.Errorf("gap %+v, want %+v", *gap, want)
	}
	const text = "us/config/0: offsets 3 to 4 are missing (expired, compacted away, or never copied); restore this region from a backup that covers them"
	if gap.Error() != text {
		t.Errorf("error %q", gap)
	}
	if n := strings.Count(log.String(), text); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &log)
	}
	at := events.Vector{gapped: 3, other: 4}
	checkShard(t, s, w, at)
	if done := apply(t, s, w.from(gapped, 3, 9)); done != (projections.Applied{}) {
		t.Errorf("a blocked log: applied %+v", done)
	}
	checkShard(t, s, w, at)
	closeShard(t, s)
	s = open(t, config(fs))
	defer closeShard(t, s)
	apply(t, s, w.everything()...)
	checkShard(t, s, w, w.ends())
}

func TestBlock(t *testing.T) {
	w, s := smallWorld(0), openNew(t)
	l := logsOf(0)[2]
	first, second := fmt.Errorf("first"), fmt.Errorf("second")
	s.Block(l, first)
	s.Block(l, second)
	if got := s.Blocked(); len(got) != 1 || got[l] != first {
		t.Errorf("blocked: %v", got)
	}
	apply(t, s, w.everything()...)
	at := w.ends()
	at[l] = 0
	checkShard(t, s, w, at)
}

func TestStreamWithoutRuleBlocks(t *testing.T) {
	w, s := smallWorld(0), openNew(t)
	l := events.Log{Origin: regions[0], Stream: "nobodys"}
	apply(t, s, append(w.everything(), projections.Run{Log: l, Records: []*kgo.Record{bare("a", nil, 1)}})...)
	if err := s.Blocked()[l]; err == nil || err.Error() != "us/nobodys/0: stream nobodys is not configured" {
		t.Errorf("blocked by %v", err)
	}
	checkShard(t, s, w, w.ends())
}

// A run that is not this shard's is the caller's mistake and must not get in.
func TestApplyRefusesForeignLogs(t *testing.T) {
	for name, l := range map[string]events.Log{
		"another partition": {Origin: regions[0], Stream: "session", Partition: 1},
		"no origin":         {Stream: "session"},
		"no stream":         {Origin: regions[0]},
	} {
		w, s := smallWorld(0), openNew(t)
		_, err := s.Apply(append(w.everything(), projections.Run{Log: l, Records: []*kgo.Record{bare("a", nil, 1)}}))
		if events.KindOf(err) != events.KindInvalid {
			t.Errorf("%s: error %v", name, err)
		}
		checkShard(t, s, w, events.Vector{})
	}
}

func TestAppliedCounts(t *testing.T) {
	w, s := world{}, openNew(t)
	l := logsOf(0)[0]
	w.write(l, bare("a", []byte("v"), 7))
	w.write(l, bare("", nil, 9))
	w.write(l, bare("a", nil, 8))
	for _, c := range []struct {
		from, n int64
		want    projections.Applied
	}{
		{0, 0, projections.Applied{}},
		{0, 2, projections.Applied{Events: 1, Parked: 1, MaxClock: events.HLCFromMillis(7)}},
		{0, 3, projections.Applied{Events: 1, Skipped: 2, MaxClock: events.HLCFromMillis(8)}},
		{0, 3, projections.Applied{Skipped: 3}},
	} {
		if got := apply(t, s, w.from(l, c.from, int(c.n))); got != c.want {
			t.Errorf("applied %+v, want %+v", got, c.want)
		}
	}
	checkShard(t, s, w, w.ends())
}

// otherRule is lww by another name.
type otherRule struct{ lww.Rule }

func (otherRule) Name() string { return "other" }

func TestChangedRuleIsRefused(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, w.everything()...)
	closeShard(t, s)
	cfg := config(fs)
	cfg.Rules["session"] = otherRule{}
	_, err := projections.Open(cfg)
	wantKind(t, err, events.KindRefused)
	const text = "state in state: stream session was folded by lww, the configuration says other; go back to lww, or delete the state and let it be rebuilt"
	if err == nil || err.Error() != text {
		t.Errorf("error %v, want %s", err, text)
	}
	s = open(t, config(fs)) // it was closed, and is unharmed
	defer closeShard(t, s)
	checkShard(t, s, w, w.ends())
}

// Two directories that change places are noticed before anything is folded.
func TestShardOfAnotherPartitionIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, smallWorld(0).everything()...)
	closeShard(t, s)
	cfg := config(fs)
	cfg.Partition = 1
	if _, err := projections.Open(cfg); err == nil || !strings.HasSuffix(err.Error(), "/0 is a log of another shard; this is shard 1") {
		t.Errorf("error %v", err)
	}
}

func TestOneShardOneProcess(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, config(fs))
	if _, err := projections.Open(config(fs)); err == nil || !strings.HasPrefix(err.Error(), "state in state cannot be opened: ") {
		t.Errorf("error %v", err)
	}
	closeShard(t, s)
	closeShard(t, open(t, config(fs)))
}

func TestLineageIsGivenOnce(t *testing.T) {
	fs := vfs.NewMem()
	cfg := config(fs)
	cfg.Lineage = projections.Lineage{ID: "a", Parent: "b", Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	for _, next := range []projections.Lineage{cfg.Lineage, {ID: "another"}} {
		c := cfg
		c.Lineage = next
		s := open(t, c)
		if s.Lineage() != cfg.Lineage {
			t.Errorf("lineage %+v, want %+v", s.Lineage(), cfg.Lineage)
		}
		closeShard(t, s)
	}
}

func TestOnARealDisk(t *testing.T) {
	w := smallWorld(0)
	cfg := projections.Config{Dir: t.TempDir() + "/not/there/yet", Rules: rules(), MinFreeBytes: 1}
	for range 2 {
		s := open(t, cfg)
		apply(t, s, w.everything()...)
		checkShard(t, s, w, w.ends())
		closeShard(t, s)
	}
}

func TestLookupRule(t *testing.T) {
	for _, r := range projections.Rules() {
		if found, err := projections.LookupRule(r.Name()); err != nil || found != r {
			t.Errorf("%s: %v, %v", r.Name(), found, err)
		}
	}
	_, err := projections.LookupRule("none")
	wantKind(t, err, events.KindInvalid)
	if err == nil || err.Error() != `merge rule "none" is unknown; there is append, fieldmap, lww, multivalue` {
		t.Errorf("error %v", err)
	}
}

// A parked record is kept whole, however odd it is, and is in nobody's way.
func TestParkedRecordsAreKeptWhole(t *testing.T) {
	odd := []*kgo.Record{
		{},
		{Value: []byte{}},
		{Key: []byte("\xff\x00"), Value: []byte("\x80\x00"), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: nil}}},
		{Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "\xff\xfe", Value: []byte("\xff")}, {}}, Timestamp: time.UnixMilli(-1)},
		{Value: []byte("v"), Timestamp: time.UnixMilli(math.MaxInt64)},
		{Value: []byte("v"), Timestamp: time.UnixMilli(math.MinInt64)},
		{Key: make([]byte, events.MaxKeyBytes+1), Timestamp: time.UnixMilli(1)},
	}
	w, s := world{}, openNew(t)
	l := logsOf(0)[0]
	for _, r := range odd {
		w.write(l, r)
	}
	w.write(l, bare("a", []byte("v"), 1))
	apply(t, s, w.everything()...)
	checkShard(t, s, w, w.ends())
	got, err := s.Parked(100)
	if err != nil || len(got) != len(odd) {
		t.Fatalf("%d parked, %v", len(got), err)
	}
	for i, p := range got {
		again := &kgo.Record{Key: p.Record.Key, Value: p.Record.Value, Timestamp: time.UnixMilli(p.Record.TimestampMillis), Offset: p.Position.Offset}
		for _, h := range p.Record.Headers {
			again.Headers = append(again.Headers, kgo.RecordHeader{Key: string(h.Key), Value: h.Value})
		}
		want := *odd[i]
		want.Timestamp = time.UnixMilli(want.Timestamp.UnixMilli())
		if !reflect.DeepEqual(*again, want) || p.Position != l.At(int64(i)) {
			t.Errorf("%s: parked as %+v, was %+v", p.Position, *again, want)
		}
		if _, err := events.Decode(odd[i]); err == nil || p.Reason != err.Error() {
			t.Errorf("%s: reason %q, want %v", p.Position, p.Reason, err)
		}
	}
	for most := range 3 {
		if got, err := s.Parked(most); err != nil || len(got) != most {
			t.Errorf("asked for %d, got %d, %v", most, len(got), err)
		}
	}
}

// A shard knows a reading that no clock in it is above, also when it is opened again,
// whatever clocks the events of a log had.
func TestShardClock(t *testing.T) {
	w, fs := world{}, vfs.NewMem()
	log, other := logsOf(0)[0], logsOf(0)[3]
	for _, ms := range []int64{7, 9, 3, 3, 8} {
		w.write(log, bare("a", []byte("v"), ms))
	}
	w.write(other, bare("a", []byte("v"), 50))
	s := open(t, config(fs))
	if got := s.Clock(log.Stream, events.MaxHLC); got != 0 {
		t.Errorf("of nothing: %s", got)
	}
	apply(t, s, w.everything()...)
	e, err := projections.Get([]*projections.Shard{s}, log.Stream, "a")
	if err != nil {
		t.Fatal(err)
	}
	want := events.HLCFromMillis(9) + 3
	if got := s.Clock(log.Stream, events.MaxHLC); got != want || e.Clock != want {
		t.Errorf("%s, want %s; the slice has %s", got, want, e.Clock)
	}
	closeShard(t, s)
	s = open(t, config(fs))
	defer closeShard(t, s)
	if got := s.Clock(log.Stream, events.MaxHLC); got != want {
		t.Errorf("opened again: %s, want %s", got, want)
	}
	broken := logsOf(0)[2]
	w.write(broken, bare("b", []byte("v"), 1e9))
	apply(t, s, w.from(broken, 0, 1))
	if got := s.Clock(log.Stream, events.HLCFromMillis(1e6)); got != want {
		t.Errorf("beside a clock that is far ahead: %s, want %s", got, want)
	}
}

// An Apply tells the largest clock of those that its caller follows, whatever others there are.
func TestMaxClock(t *testing.T) {
	w, cfg := world{}, config(vfs.NewMem())
	log := logsOf(0)[0]
	for _, ms := range []int64{7, 1e9, 9, 3, 10} {
		w.write(log, bare("a", []byte("v"), ms))
	}
	limit := events.HLCFromMillis(9)
	cfg.ClockLimit = func() events.HLC { return limit }
	s := open(t, cfg)
	defer closeShard(t, s)
	if done := apply(t, s, w.from(log, 0, 4)); done.MaxClock != limit {
		t.Errorf("%s, want %s", done.MaxClock, limit)
	}
	limit++
	if done := apply(t, s, w.from(log, 4, 1)); done.MaxClock != 0 {
		t.Errorf("%s of an event above the limit", done.MaxClock)
	}
	checkShard(t, s, w, w.ends())
}
