package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

func TestSurvivesRestartAndCompaction(t *testing.T) {
	w := single(t)
	l := w.open()
	defer l.Close()
	other := Partition{Topic: "registry", Partition: 7}
	winners, err := l.Propose(w.ctx, map[Partition]ProducerID{p0: {ID: 41, Epoch: 2}, other: {ID: 42}})
	w.do(err)
	if winners[p0] != (ProducerID{ID: 41, Epoch: 2}) || winners[other] != (ProducerID{ID: 42}) {
		t.Fatalf("winners %v", winners)
	}
	mirror := Mirror{SourceCluster: "c", SourceTopicID: "s", MirrorTopicID: "m", Generation: 3}
	w.do(l.SetMirror(w.ctx, "session", mirror))
	w.do(l.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}, {Source: 10, Dest: 4}, {Source: 13, Dest: 5}}))
	w.do(l.AppendEpoch(w.ctx, p0, Epoch{Epoch: 0, Start: 5}))
	w.do(l.AppendEpoch(w.ctx, p0, Epoch{Epoch: 4, Start: 9}))
	w.do(l.AppendEpoch(w.ctx, p0, Epoch{Epoch: 4, Start: 9}))
	w.do(l.SetPause(w.ctx, "link", true))
	w.do(l.SetPause(w.ctx, "topic/session/3", true))
	w.do(l.SetPause(w.ctx, "link", false))
	want := `pauses map[topic/session/3:true]
session/0: producer {41 2} true, mirror {c s m 3} true, epochs [{0 5} {4 9}], runs [5→0 10→4 13→5]
registry/7: producer {42 0} true, mirror {   0} false, epochs [], runs []
unreadable []`
	for range 3 {
		if got := w.same([]Partition{p0, other}, l); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		w.compact(l)
	}
}

func TestLinksDoNotSeeEachOther(t *testing.T) {
	w := single(t)
	l := w.open()
	defer l.Close()
	w.do(l.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}}))
	o, err := Open(w.ctx, w.opts(), Config{Topic: w.topic, Link: "ap→eu", Instance: "i1"})
	w.do(err)
	defer o.Close()
	if !o.Map(p0).Identity() {
		t.Fatalf("runs of another link: %v", o.Map(p0).Runs())
	}
}

func TestFirstProposalWins(t *testing.T) {
	w := single(t)
	a, b, c := w.open(), w.open(), w.open()
	defer a.Close()
	defer b.Close()
	defer c.Close()
	type answer struct {
		winners map[Partition]ProducerID
		err     error
	}
	answers := make(chan answer)
	for i, l := range []*Ledger{a, b, c} {
		go func() {
			proposals := map[Partition]ProducerID{}
			for p := range int32(50) {
				proposals[Partition{Topic: "session", Partition: p}] = ProducerID{ID: int64(100*i) + int64(p)}
			}
			winners, err := l.Propose(w.ctx, proposals)
			answers <- answer{winners, err}
		}()
	}
	first := <-answers
	w.do(first.err)
	if len(first.winners) != 50 {
		t.Fatalf("%d winners", len(first.winners))
	}
	for range 2 {
		next := <-answers
		w.do(next.err)
		for p, id := range first.winners {
			if next.winners[p] != id {
				t.Fatalf("%s: %v for one, %v for another", p, id, next.winners[p])
			}
		}
	}
	// The losers' proposals go, but a loser sweeps only what it has seen.
	for _, l := range []*Ledger{a, b, c} {
		w.do(l.Refresh(w.ctx))
		l.sweep(w.ctx)
	}
	w.compact(a)
	w.compact(a)
	if left := w.content(); left[kindProducer] != 50 || left["tombstone"] != 0 {
		t.Fatalf("left in the topic: %v", left)
	}
	d := w.open()
	defer d.Close()
	again, err := d.Propose(w.ctx, map[Partition]ProducerID{p0: {ID: 9999}})
	w.do(err)
	if again[p0] != first.winners[p0] {
		t.Fatalf("a later proposal has won: %v", again)
	}
}

func TestAppendRunsIsCompareAndSwap(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	w.do(a.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}}))
	err := b.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 6}})
	if !errors.Is(err, ErrSuperseded) {
		t.Fatalf("error %v", err)
	}
	if got := b.Map(p0).Runs(); !slices.Equal(got, mapping.Runs{{Source: 5}}) {
		t.Fatalf("the loser knows %v", got)
	}
	// Knowing what the ledger knows is not enough: the caller has to.
	if err := b.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 9, Dest: 2}}); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("error %v", err)
	}
	w.do(b.AppendRuns(w.ctx, p0, 1, []mapping.Run{{Source: 9, Dest: 2}}))
	if err := a.AppendRuns(w.ctx, p0, 1, []mapping.Run{{Source: 8, Dest: 1}}); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("error %v", err)
	}
	if err := a.AppendRuns(w.ctx, p0, 2, []mapping.Run{{Source: 8, Dest: 1}}); err == nil || errors.Is(err, ErrSuperseded) {
		t.Fatalf("a run that does not fit: error %v", err)
	}
	w.do(a.AppendRuns(w.ctx, p0, 2, []mapping.Run{{Source: 10, Dest: 3}})) // continues: nothing to write
	w.same([]Partition{p0}, a, b)
	w.compact(a)
	w.compact(a)
	if left := w.content(); left[kindRuns] != 2 || left["tombstone"] != 0 {
		t.Fatalf("left in the topic: %v", left)
	}
}

func TestManyRunsBecomeBlocks(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	w.fill(a, p0, 2*blockChunks-1)
	more := someRuns(a.Map(p0), 3*chunkRuns+1)
	w.do(a.AppendRuns(w.ctx, p0, a.Map(p0).Len(), more))
	if want := 2*blockChunks - 1 + len(more); a.Map(p0).Len() != want {
		t.Fatalf("%d runs, want %d", a.Map(p0).Len(), want)
	}
	w.same([]Partition{p0}, a, b)
	w.compact(a)
	w.compact(a)
	if left := w.content(); left[kindRuns] != 3 || left[kindBlock] != 2 || left["tombstone"] != 0 {
		t.Fatalf("left in the topic: %v", left)
	}
	w.same([]Partition{p0}, a, b)
	w.do(b.AppendRuns(w.ctx, p0, b.Map(p0).Len(), someRuns(b.Map(p0), 5)))
	w.same([]Partition{p0}, a, b)
}

// A crash after a block was written, and before what it stands for was removed.
func TestCrashBetweenBlockAndRemoval(t *testing.T) {
	w := single(t)
	a := w.open()
	w.fill(a, p0, blockChunks)
	var records []*kgo.Record
	for number, chunks := range a.state.partition(p0).fullBlocks() {
		records = append(records, a.record(key{Kind: kindBlock, Topic: p0.Topic, Partition: &p0.Partition, Number: &number}, blockValue{Chunks: chunks}))
	}
	if len(records) != 1 {
		t.Fatalf("%d full blocks", len(records))
	}
	w.do(a.produce(w.ctx, records))
	a.Close()
	b := w.open()
	defer b.Close()
	if b.Map(p0).Len() != blockChunks {
		t.Fatalf("%d runs", b.Map(p0).Len())
	}
	w.do(b.AppendRuns(w.ctx, p0, blockChunks, someRuns(b.Map(p0), 1)))
	w.compact(b)
	w.compact(b)
	if left := w.content(); left[kindRuns] != 1 || left[kindBlock] != 1 {
		t.Fatalf("left in the topic: %v", left)
	}
	w.same([]Partition{p0}, b)
}

// An instance writes a chunk, falls asleep before it has read it back, and wakes up
// when the chunk that came first has long been put into a block, removed and
// compacted away. It must not take its own for the first.
func TestLoserWhoseWinnerIsCompactedAway(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	w.do(b.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}}))
	number := int64(0)
	writer := a.writerOfThis()
	a.state.awaited[writer] = false
	mine := a.record(key{Kind: kindRuns, Topic: p0.Topic, Partition: &p0.Partition, Number: &number, Writer: writer},
		runsValue{Runs: mapping.Runs{{Source: 6}}})
	w.do(a.produce(w.ctx, []*kgo.Record{mine}))
	w.fill(b, p0, blockChunks-1)
	b.state.void = map[string]bool{} // the loser's is not removed by whoever writes the block
	b.tidy(w.ctx, p0)
	w.compact(b)
	if left := w.content(); left[kindRuns] != 1 || left[kindBlock] != 1 {
		t.Fatalf("the topic is not as the test wants it: %v", left)
	}
	a.reader.bytes = 1 // one batch an answer: it does not see the block by accident
	w.do(a.readTo(w.ctx, mine.Offset+1))
	if a.hasWon(writer) {
		t.Fatal("two instances have won chunk 0")
	}
	if got := a.Map(p0).Runs()[0]; got.Source != 5 {
		t.Fatalf("first run %s", got)
	}
	w.same([]Partition{p0}, a, b)
}

func TestResetVoidsWhatCameBefore(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	nothing := new(mapping.Map)
	_, err := a.Propose(w.ctx, map[Partition]ProducerID{p0: {ID: 7}})
	w.do(err)
	w.fill(a, p0, blockChunks)
	a.tidy(w.ctx, p0)
	w.do(a.AppendRuns(w.ctx, p0, blockChunks, someRuns(a.Map(p0), 2)))
	w.do(a.AppendEpoch(w.ctx, p0, Epoch{Epoch: 3, Start: 3}))
	w.do(b.Refresh(w.ctx))
	w.do(a.Reset(w.ctx, p0, nothing))
	if !a.Map(p0).Identity() || len(a.Epochs(p0)) != 0 {
		t.Fatal("it is still there")
	}
	if _, ok := a.Producer(p0); ok {
		t.Fatal("it still has a producer")
	}
	// b does not know yet.
	if err := b.AppendRuns(w.ctx, p0, b.Map(p0).Len(), someRuns(b.Map(p0), 1)); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("error %v", err)
	}
	if !b.Map(p0).Identity() {
		t.Fatalf("b has %v", b.Map(p0).Runs())
	}
	w.do(b.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 1}}))
	w.do(b.AppendEpoch(w.ctx, p0, Epoch{Epoch: 3, Start: 1}))
	w.do(a.Reset(w.ctx, Partition{Topic: "session", Partition: 1}, nothing))
	w.same([]Partition{p0}, a, b)
	w.compact(a)
	w.compact(a)
	if left := w.content(); left[kindRuns] != 1 || left[kindEpoch] != 1 || left[kindBlock] != 0 || left[kindReset] != 2 {
		t.Fatalf("left in the topic: %v", left)
	}
	w.do(b.Reset(w.ctx, p0, nothing))
	w.compact(a)
	w.same([]Partition{p0}, a, b)
}

// Runs are taken back, in one step that others compete with.
func TestRunsAreTakenBack(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	w.do(a.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}, {Source: 10, Dest: 4}, {Source: 20, Dest: 9}}))
	w.do(a.AppendEpoch(w.ctx, p0, Epoch{Epoch: 3, Start: 5}))
	w.do(b.Refresh(w.ctx))
	w.do(w.keep(a, p0, 2))
	if err := w.keep(b, p0, 2); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("error %v", err)
	}
	w.do(a.AppendRuns(w.ctx, p0, 2, []mapping.Run{{Source: 22, Dest: 9}}))
	w.fill(a, p0, blockChunks) // so that what was taken back is in a block
	a.tidy(w.ctx, p0)
	w.compact(a)
	w.same([]Partition{p0}, a, b)
	if got := fmt.Sprint(b.Map(p0).Runs()[:3], b.Epochs(p0)); got != "[5→0 10→4 22→9] [{3 5}]" {
		t.Fatal(got)
	}
}

func TestResetBeginsAnew(t *testing.T) {
	w := single(t)
	a, b, c := w.open(), w.open(), w.open()
	defer a.Close()
	defer b.Close()
	defer c.Close()
	_, err := a.Propose(w.ctx, map[Partition]ProducerID{p0: {ID: 7}})
	w.do(err)
	w.do(b.Refresh(w.ctx))
	w.do(a.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}}))
	runs, err := mapping.New(mapping.Run{Source: 700, Dest: 30})
	w.do(err)
	w.do(a.Reset(w.ctx, p0, runs))
	if _, ok := a.Producer(p0); ok {
		t.Fatal("it still has a producer")
	}
	// A proposal from before the reset that arrives after it.
	w.do(a.write(w.ctx, a.record(key{Kind: kindProducer, Topic: p0.Topic, Partition: &p0.Partition, Writer: "late"}, producerValue{ID: 6})))
	// c has heard neither of the first producer nor of the reset: it proposes twice.
	winners, err := c.Propose(w.ctx, map[Partition]ProducerID{p0: {ID: 8}})
	w.do(err)
	if winners[p0] != (ProducerID{ID: 8}) {
		t.Fatalf("producer %v", winners[p0])
	}
	again, err := b.Propose(w.ctx, map[Partition]ProducerID{p0: {ID: 9}})
	w.do(err)
	if again[p0] != (ProducerID{ID: 7}) {
		t.Fatalf("b has not read on, and was told %v", again[p0])
	}
	w.compact(c)
	if got := w.same([]Partition{p0}, a, b, c); !strings.Contains(got, "producer {8 0} true") || !strings.Contains(got, "runs [700→30]") {
		t.Fatal(got)
	}
}

func TestEpochs(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	for e := range int32(epochsMax + 10) {
		w.do(a.AppendEpoch(w.ctx, p0, Epoch{Epoch: e, Start: int64(10 * e)}))
	}
	if got := a.Epochs(p0); len(got) != epochsMax || got[0] != (Epoch{Epoch: 10, Start: 100}) {
		t.Fatalf("%d epochs, first %v", len(got), got[0])
	}
	for _, e := range []Epoch{{5, 5000}, {-1, 9000}, {80, -1}, {epochsMax + 9, 729}} {
		if err := a.AppendEpoch(w.ctx, p0, e); err == nil || errors.Is(err, ErrSuperseded) {
			t.Errorf("epoch %v: error %v", e, err)
		}
	}
	w.do(a.AppendEpoch(w.ctx, p0, Epoch{Epoch: 20, Start: 205})) // noted at 200
	// b knows of none of these.
	if err := b.AppendEpoch(w.ctx, p0, Epoch{Epoch: 73, Start: 729}); !errors.Is(err, ErrSuperseded) {
		t.Errorf("error %v", err)
	}
	w.same([]Partition{p0}, a, b)
	w.compact(a)
	w.compact(a)
	if left := w.content(); left[kindEpoch] != epochsMax {
		t.Fatalf("left in the topic: %v", left)
	}
	w.same([]Partition{p0}, a, b)
}

// A log can lose records that were read, and whose epoch was noted, before they were
// mirrored. What it goes on with is noted as well, or else said to be no continuation.
func TestEpochsOfLostRecords(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	for _, e := range []Epoch{{1, 0}, {3, 75}, {4, 90}} {
		w.do(a.AppendEpoch(w.ctx, p0, e))
	}
	w.do(a.AppendEpoch(w.ctx, p0, Epoch{5, 70})) // neither 3 nor 4 ever came
	if got := fmt.Sprint(a.Epochs(p0)); got != "[{1 0} {5 70}]" {
		t.Fatal(got)
	}
	w.do(b.Refresh(w.ctx))
	if err := b.AppendEpoch(w.ctx, p0, Epoch{1, 70}); !errors.Is(err, ErrReplaced) { // nor did 5
		t.Errorf("error %v", err)
	}
	if err := b.AppendEpoch(w.ctx, p0, Epoch{2, 100}); !errors.Is(err, ErrReplaced) {
		t.Errorf("error %v", err)
	}
	w.same([]Partition{p0}, a, b)
	w.compact(a)
	w.same([]Partition{p0}, a, b)
}

func TestSetMirrorSeesOthers(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	w.do(a.SetMirror(w.ctx, "session", Mirror{SourceTopicID: "1"}))
	if err := b.SetMirror(w.ctx, "session", Mirror{SourceTopicID: "2"}); !errors.Is(err, ErrSuperseded) {
		t.Fatalf("error %v", err)
	}
	if m, _ := b.Mirror("session"); m.SourceTopicID != "1" {
		t.Fatalf("b knows %v", m)
	}
	w.do(b.SetMirror(w.ctx, "session", Mirror{SourceTopicID: "2", Generation: 1}))
	w.do(a.SetMirror(w.ctx, "session", Mirror{SourceTopicID: "2", Generation: 1}))
	w.same([]Partition{p0}, a, b)
}

func TestRubbishIsReported(t *testing.T) {
	w := single(t)
	l := w.open()
	defer l.Close()
	w.do(l.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}}))
	next := int64(1)
	good := key{Kind: kindRuns, Link: linkName, Topic: p0.Topic, Partition: &p0.Partition, Number: &next, Writer: "x"}
	keys := []string{
		"", "rubbish", "{}", "null", `{"link":"us→eu"}`, `{"kind":"runs","link":"us→eu","topic":"session","partition":0}`,
		`{"kind":"runs","link":"us→eu","topic":"session","partition":0,"number":-1,"writer":"x"}`,
		`{"kind":"block","link":"us→eu","topic":"session","partition":0,"number":9223372036854775807}`,
		`{"kind":"producer","link":"us→eu","topic":"session","partition":0}`, string(encode(good)),
		`{"kind":"block","link":"us→eu","topic":"session","partition":0,"number":0}`,
		`{"kind":"mirror","link":"us→eu"}`, `{"kind":"pause","link":"us→eu"}`, `{"kind":"later","link":"us→eu"}`,
	}
	values := []string{"", "rubbish", "[]", "7", `{"runs":[[1]]}`, `{"chunks":[]}`}
	var records []*kgo.Record
	for _, k := range keys {
		for _, v := range values {
			records = append(records, &kgo.Record{Topic: w.topic, Key: []byte(k), Value: []byte(v)})
		}
		records = append(records, &kgo.Record{Topic: w.topic, Key: []byte(k)})
	}
	w.do(l.write(w.ctx, records...))
	if got := l.Unreadable(); len(got) != unreadableMax+1 || !strings.HasPrefix(got[unreadableMax], "and ") {
		t.Fatalf("unreadable: %q", got)
	}
	w.do(l.AppendRuns(w.ctx, p0, 1, []mapping.Run{{Source: 50, Dest: 20}}))
	w.same([]Partition{p0}, l)
}

func TestRunsThatDoNotFitAreIgnoredByAll(t *testing.T) {
	w := single(t)
	a, b := w.open(), w.open()
	defer a.Close()
	defer b.Close()
	number, keep := int64(0), 7
	w.do(a.write(w.ctx, a.record(key{Kind: kindRuns, Topic: p0.Topic, Partition: &p0.Partition, Number: &number, Writer: "by hand"},
		runsValue{Keep: &keep, Runs: mapping.Runs{{Source: 4}, {Source: 2, Dest: 9}, {Source: -1}, {Source: 20, Dest: 9}}})))
	if got := fmt.Sprint(a.Map(p0).Runs()); got != "[4→0 20→9]" || len(a.Unreadable()) != 3 {
		t.Fatalf("runs %s, unreadable %q", got, a.Unreadable())
	}
	w.same([]Partition{p0}, a, b)
}
