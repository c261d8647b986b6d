// Package derivedtest is the suite of laws that every read model passes: what the
// package comment of derived asks of it, as tests. Three regions, one of them with
// a second incarnation, write what the suite draws; shards receive it in different
// interleavings and batches, one of them builds the model when half of it is there (a model
// of events by reading the logs again), is closed in the midst of that and opened again, and
// all must have the same entries: those that the model gives when it is asked as plainly as
// possible.
//
//	func TestLaws(t *testing.T) {
//		derivedtest.Suite{Model: mine.Model(), Records: genRecords()}.Run(t)
//	}
package derivedtest

import (
	"context"
	"iter"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
)

// Suite is a model and what is written for it to read.
type Suite struct {
	Model derived.Model

	// Records give records with key, value, timestamp and headers. They should meet
	// often in few keys, and hold what the model reads as well as what it cannot.
	Records *rapid.Generator[*kgo.Record]

	// Rule merges the model's streams; nil: lww.
	Rule merge.Rule
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	if s.Rule == nil {
		s.Rule = lww.Rule{}
	}
	if err := s.Model.Validate(); err != nil {
		t.Fatal(err)
	}
	t.Run("interleavings", rapid.MakeCheck(s.interleavings))
}

// world is what was written, by log.
type world map[events.Log][]*kgo.Record

var origins = []events.Origin{{Region: "us", Incarnation: 1}, {Region: "us", Incarnation: 2}, {Region: "us-a", Incarnation: 1}, {Region: "eu", Incarnation: 1}}

// streams are those of the model and one more, which it does not read unless it
// reads all.
func (s Suite) streams() []events.Stream { return append(slices.Clone(s.Model.Streams), "other") }

func (s Suite) write(t *rapid.T) (w world, logs []events.Log) {
	w = world{}
	for _, stream := range s.streams() {
		for _, origin := range origins {
			l := events.Log{Origin: origin, Stream: stream}
			for i := range rapid.IntRange(0, 12).Draw(t, "records of "+l.String()) {
				r := *s.Records.Draw(t, "record") // the generator may give one twice
				r.Offset = int64(i)
				w[l] = append(w[l], &r)
			}
			logs = append(logs, l)
		}
	}
	return w, logs
}

func (s Suite) interleavings(t *rapid.T) {
	w, logs := s.write(t)
	var all [][]derived.Row
	h := history{w, rapid.IntRange(1, 5).Draw(t, "read again at a time")}
	for _, late := range []bool{false, false, true} {
		fs := vfs.NewMem()
		at := map[events.Log]int{}
		if late {
			shard := s.open(t, fs, h)
			s.deliver(t, shard, w, logs, at, false)
			closeShard(t, shard)
		}
		shard := s.open(t, fs, h, s.Model)
		if late && s.Model.OfEvents() {
			if err := shard.RebuildModel(context.Background(), s.Model.Name, derived.Rebuild{}); err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "closed while it is built") {
				closeShard(t, shard)
				shard = s.open(t, fs, h, s.Model)
			}
		}
		s.deliver(t, shard, w, logs, at, true)
		if err := shard.WaitModels(context.Background()); err != nil {
			t.Fatal(err)
		}
		all = append(all, Rows(t, shard, s.Model.Name))
		s.checkStatus(t, shard)
		if !s.Model.OfEvents() {
			s.checkRows(t, shard, all[len(all)-1])
		}
		closeShard(t, shard)
	}
	for _, rows := range all[1:] {
		if !reflect.DeepEqual(rows, all[0]) {
			t.Fatalf("the same was written, and the entries are\n%+v\nand in another interleaving\n%+v", all[0], rows)
		}
	}
	if s.Model.OfEvents() {
		s.checkFold(t, w, logs, all[0])
	}
}

// history gives the logs again, so many records at a time.
type history struct {
	w    world
	size int
}

var _ projections.History = history{}

// First implements projections.History.
func (h history) First(context.Context, events.Log, int64) (int64, error) { return 0, nil }

// Records implements projections.History.
func (h history) Records(_ context.Context, l events.Log, from, to int64) iter.Seq2[projections.Piece, error] {
	return func(yield func(projections.Piece, error) bool) {
		for from < to {
			end := min(from+int64(h.size), int64(len(h.w[l])))
			if !yield(projections.Piece{Records: h.w[l][from:end], Next: end}, nil) {
				return
			}
			from = end
		}
	}
}

func (s Suite) open(t *rapid.T, fs vfs.FS, h projections.History, models ...derived.Model) *projections.Shard {
	rules := map[events.Stream]merge.Rule{}
	for _, stream := range s.streams() {
		rules[stream] = s.Rule
	}
	shard, err := projections.Open(projections.Config{Dir: "state", FS: fs, Rules: rules, Models: models, History: h})
	if err != nil {
		t.Fatal(err)
	}
	return shard
}

func closeShard(t *rapid.T, shard *projections.Shard) {
	if err := shard.Close(); err != nil {
		t.Fatal(err)
	}
}

// deliver has a shard fold logs in pieces, all there is or some of it.
func (s Suite) deliver(t *rapid.T, shard *projections.Shard, w world, logs []events.Log, at map[events.Log]int, all bool) {
	for begun := false; !begun || all && !delivered(w, at); begun = true {
		for _, l := range rapid.Permutation(logs).Draw(t, "order") {
			end := min(len(w[l]), at[l]+rapid.IntRange(0, 8).Draw(t, "records"))
			rapid.SampledFrom([]func(){
				func() { s.apply(t, shard, projections.Run{Log: l, Records: w[l][at[l]:end]}) },
				func() { // together with another log, record by record
					for i := at[l]; i < end; i++ {
						other := rapid.SampledFrom(logs).Draw(t, "with")
						runs := []projections.Run{{Log: l, Records: w[l][i : i+1]}}
						if other != l && at[other] < len(w[other]) {
							runs = append(runs, projections.Run{Log: other, Records: w[other][at[other] : at[other]+1]})
							at[other]++
						}
						s.apply(t, shard, runs...)
					}
				},
			}).Draw(t, "way")()
			at[l] = end
		}
	}
}

func delivered(w world, at map[events.Log]int) bool {
	for l, records := range w {
		if at[l] < len(records) {
			return false
		}
	}
	return true
}

func (s Suite) apply(t *rapid.T, shard *projections.Shard, runs ...projections.Run) {
	if _, err := shard.Apply(runs); err != nil {
		t.Fatal(err)
	}
}

// checkStatus wants the model to have gone through everything.
func (s Suite) checkStatus(t *rapid.T, shard *projections.Shard) {
	for _, m := range shard.Models() {
		if m.State != derived.Running || m.Stale != "" {
			t.Fatalf("model %s is %s: %s%s", m.Name, m.State, m.Stopped, m.Stale)
		}
	}
}

// checkRows compares entries with what Rows gives for every view, asked twice.
func (s Suite) checkRows(t *rapid.T, shard *projections.Shard, got []derived.Row) {
	type place struct{ key, stream, of string }
	want := map[place][]byte{}
	for _, stream := range s.Model.Streams {
		for e, err := range projections.Scan([]*projections.Shard{shard}, stream, "", "") {
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				err := s.Model.Rows(derived.View(e), func(key string, value []byte) {
					at := place{key, string(stream), e.Key}
					want[at] = append([]byte{}, value...)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if s.Model.Streams == nil {
		return
	}
	for _, row := range got {
		at := place{row.Key, string(row.Stream), row.Of}
		if value, ok := want[at]; !ok || string(value) != string(row.Value) {
			t.Fatalf("entry %q of %s %q is %q; the view has %q (%v)", row.Key, row.Stream, row.Of, row.Value, value, ok)
		}
		delete(want, at)
	}
	for at := range want {
		t.Fatalf("entry %q of %s %q is missing", at.key, at.stream, at.of)
	}
}

// checkFold compares entries with those that each log makes alone, record by
// record.
func (s Suite) checkFold(t *rapid.T, w world, logs []events.Log, got []derived.Row) {
	want := 0
	for _, l := range logs {
		shard := s.open(t, vfs.NewMem(), nil, s.Model)
		for i := range w[l] {
			s.apply(t, shard, projections.Run{Log: l, Records: w[l][i : i+1]})
		}
		for _, row := range Rows(t, shard, s.Model.Name) {
			if !slices.ContainsFunc(got, func(r derived.Row) bool { return reflect.DeepEqual(r, row) }) {
				t.Fatalf("%s alone has the entry %+v, which is missing or different", l, row)
			}
			want++
		}
		closeShard(t, shard)
	}
	if want != len(got) {
		t.Fatalf("%d entries, and %d when each log is alone", len(got), want)
	}
}

// Rows are a model's entries in a shard, in order.
func Rows(t rapid.TB, shard *projections.Shard, name string) []derived.Row {
	rows := []derived.Row{}
	for row, err := range projections.QueryModel([]*projections.Shard{shard}, name, "", nil) {
		if err != nil {
			t.Fatal(err)
		}
		row.Next = nil
		rows = append(rows, row)
	}
	return rows
}
