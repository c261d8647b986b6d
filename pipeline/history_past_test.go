package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// historyOf gathers a key's history from the bucket alone.
func (p *past) historyOf(params api.HistoryParams) (*api.History, error) {
	return p.backups().History(context.Background(), params, api.MaxHistoryEvents, func(int64, int64) {})
}

// positions are those of events, by log.
func positions(found []api.HistoryEvent) map[events.Log][]int64 {
	at := map[events.Log][]int64{}
	for _, e := range found {
		at[e.Position.Log] = append(at[e.Position.Log], e.Position.Offset)
	}
	for _, offsets := range at {
		slices.Sort(offsets)
	}
	return at
}

// Whatever a region has archived, and in whatever pieces: the history of a key has every
// event of it once, and those of a time are those that a value at its end is made of, less
// those that one at its beginning is made of.
func TestAnyHistoryOutOfTheArchive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPast(t)
		defer p.close()
		end := anyPast(t, p)
		stream := rapid.SampledFrom(pastStreams).Draw(t, "stream")
		shard := rapid.Int32Range(0, pastShards-1).Draw(t, "shard")
		key := fmt.Sprint(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key"), shard)
		params := api.HistoryParams{Stream: stream, Key: []byte(key)}
		from, to := second(rapid.IntRange(-30, end).Draw(t, "from")), second(rapid.IntRange(0, end+60).Draw(t, "to"))
		if rapid.Bool().Draw(t, "since") && from.Before(to) {
			params.Since = &from
		}
		if rapid.Bool().Draw(t, "until") {
			params.Until = &to
		}
		h, err := p.historyOf(params)
		if params.Since != nil && params.Until != nil && to.Before(from) {
			return
		}
		if events.KindOf(err) == events.KindNotFound {
			return // nothing of it is archived
		}
		if err != nil {
			t.Fatal(err)
		}
		got := positions(h.Events)
		want := map[events.Log][]int64{}
		for _, l := range pastLogs(shard) {
			if l.Stream != stream {
				continue
			}
			low, high := int64(0), int64(1)<<40
			if params.Since != nil {
				low = p.mustCome(t, l, from.Add(-1))
			}
			if params.Until != nil {
				high = p.mustCome(t, l, to)
			}
			next, _ := p.builders[shard].Next(l)
			for _, r := range p.records(l, min(next, high)) {
				if string(r.Key) == key && r.Offset >= low {
					want[l] = append(want[l], r.Offset)
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%+v: %v, want %v\nlogs %+v", params, got, want, h.Logs)
		}
		for _, e := range h.Events {
			if e.Parked != "" || !slices.ContainsFunc(p.logs[e.Position.Log], func(r *kgo.Record) bool { return r.Offset == e.Position.Offset && string(r.Value) == string(e.Value) }) {
				t.Fatalf("%+v", e)
			}
		}
	})
}

func (p *past) mustCome(t *rapid.T, l events.Log, at time.Time) int64 {
	next, err := p.came(l, at)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// What the archive lacks is named, with the reason; what comes behind it is there.
func TestHistoryNamesGaps(t *testing.T) {
	p := newPast(t)
	defer p.close()
	l := pastLogs(0)[1]
	for i := range 10 {
		p.put(l, "k", fmt.Sprint(i), second(i))
	}
	p.fold(0)
	b := p.builders[0]
	if err := b.Begin(format.LogEnd{Log: l}); err != nil {
		t.Fatal(err)
	}
	add := func(from, to int64) {
		for _, r := range p.logs[l][from:to] {
			if err := b.Add(l, r); err != nil {
				t.Fatal(err)
			}
		}
		p.closeWith(0, second(20), noMarks)
	}
	add(0, 3)
	if err := b.Skip(format.LogEnd{Log: l, Next: 5, Chain: chainOver(p.logs[l][:5])}, "expired before they were archived"); err != nil {
		t.Fatal(err)
	}
	add(5, 10)
	h, err := p.historyOf(api.HistoryParams{Stream: l.Stream, Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	if got := positions(h.Events)[l]; !slices.Equal(got, []int64{0, 1, 2, 5, 6, 7, 8, 9}) {
		t.Errorf("%v", got)
	}
	i := slices.IndexFunc(h.Logs, func(of api.HistoryLog) bool { return of.Log == l })
	if i < 0 || h.Complete || len(h.Logs[i].Gaps) != 1 || h.Logs[i].Gaps[0] != (api.HistoryGap{From: 3, To: 5, Why: "expired before they were archived"}) {
		t.Errorf("%+v", h)
	}
	// What a prune has taken is before the start.
	if err := p.bucket.Delete(t.Context(), format.SegmentName(us, 0, 1)); err != nil {
		t.Fatal(err)
	}
	h, err = p.historyOf(api.HistoryParams{Stream: l.Stream, Key: []byte("k")})
	if err != nil || h.Complete || len(h.Events) != 5 || h.Logs[0].Start != 5 || h.Logs[0].From != 5 {
		t.Errorf("%+v, %v", h, err)
	}
}

func noMarks(events.Log, int64) (events.Mark, bool) { return events.Mark{}, false }

// A key's history goes on behind the beginning of the logs, in the archive, in every
// region, each event once and in order; also without a node.
func TestHistoryBehindTheLogs(t *testing.T) {
	simulate(t, func(w *world) {
		regions, b := w.regions, w.regions[1]
		archives(regions...)
		for _, r := range regions {
			r.start()
		}
		want := map[events.Position]string{}
		ends := events.Vector{}
		var half time.Time
		write := func(from, to int) {
			for i := from; i < to; i++ {
				res, err := regions[i%3].putAfter("k", fmt.Sprint(i), nil)
				if err != nil {
					w.Fatal(err)
				}
				want[res.Position] = fmt.Sprint(i)
				ends = ends.Join(events.Vector{res.Position.Log: res.Position.Offset + 1})
			}
		}
		parked := func(i int) { // nobody folds it
			log := events.Log{Origin: events.FirstOrigin(eu), Stream: "session", Partition: ends.Positions()[0].Partition}
			b.produce(&kgo.Record{Topic: "session", Partition: log.Partition, Key: []byte("k"), Value: []byte("x"), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: fmt.Append(nil, i)}}})
			ends[log] = b.end("session", log.Partition)
			want[log.At(ends[log]-1)] = ""
		}
		write(0, 10)
		for _, r := range regions { // offsets of mirrors are other than those of their logs from here on
			r.transact(kgo.TryAbort, bareRecord("k", "aborted"))
		}
		write(10, 30)
		parked(0)
		time.Sleep(time.Minute)
		half = time.Now()
		time.Sleep(time.Second)
		write(30, 60)
		for _, r := range regions {
			if _, err := r.getAtLeast("k", ends, 60); err != nil {
				w.Fatal(err)
			}
			for l, next := range ends {
				r.archived(l, next)
			}
		}
		for _, r := range regions {
			r.expirePart(ends, 2)
			r.sameHistory("in the archive", want, time.Time{}, time.Time{})
			r.sameHistory("since half of it", want, half, time.Time{})
			r.sameHistory("until half of it", want, time.Time{}, half)
			r.expirePart(ends, 1)
			r.sameHistory("all of it", want, time.Time{}, time.Time{})
		}
		write(60, 66)
		for _, r := range regions {
			if _, err := r.getAtLeast("k", ends, 60); err != nil {
				w.Fatal(err)
			}
			r.sameHistory("and new ones", want, time.Time{}, time.Time{})
			for l, next := range ends {
				r.archived(l, next)
			}
			r.stop()
			r.down()
			direct := pipeline.Backups{Config: r.cfg, Bucket: r.bucket}
			h, err := direct.History(w.Context(), api.HistoryParams{Stream: "session", Key: []byte("k")}, 1_000, func(int64, int64) {})
			if err != nil || !h.Complete {
				w.Fatalf("%s: %+v, %v", r.cfg.Region, h, err)
			}
			r.isHistory("without a node", h.Events, want)
		}
	}, us, eu, west)
}

// expirePart takes all records, half of them, a third… from the beginnings of a region's
// logs and mirrors.
func (r *region) expirePart(logs events.Vector, part int64) {
	r.w.Helper()
	offsets := kadm.Offsets{}
	for l := range logs {
		topic := r.cfg.TopicOf(l)
		offsets.AddOffset(topic, l.Partition, r.end(topic, l.Partition)/part, -1)
	}
	r.deleteRecords(offsets)
}

// sameHistory reads what came in a time, as a client does, part by part.
func (r *region) sameHistory(what string, want map[events.Position]string, since, until time.Time) {
	r.w.Helper()
	p := api.HistoryParams{Stream: "session", Key: []byte("k")}
	if !since.IsZero() {
		p.Since = &since
	}
	if !until.IsZero() {
		p.Until = &until
	}
	h, err := api.GatherHistory(r.w.Context(), p, api.MaxHistoryEvents, func(int64, int64) {}, r.History)
	if err != nil {
		r.w.Fatalf("%s, %s: %v", r.cfg.Region, what, err)
	}
	if !h.Complete {
		r.w.Errorf("%s, %s: something is missing: %+v", r.cfg.Region, what, h.Logs)
	}
	those := map[events.Position]string{}
	for at, value := range want {
		if i := slices.IndexFunc(h.Events, func(e api.HistoryEvent) bool { return e.Position == at }); i >= 0 {
			if w := h.Events[i].Written; !since.IsZero() && w.Before(since) || !until.IsZero() && w.After(until) {
				r.w.Errorf("%s, %s: %+v", r.cfg.Region, what, h.Events[i])
			}
			those[at] = value
		}
	}
	switch whole := since.IsZero() && until.IsZero(); {
	case whole && len(those) != len(want), !whole && (len(those) < 30 || len(those) == len(want)):
		r.w.Errorf("%s, %s: %d of %d events", r.cfg.Region, what, len(those), len(want))
	}
	r.isHistory(what, h.Events, those)
}

func (r *region) isHistory(what string, found []api.HistoryEvent, want map[events.Position]string) {
	r.w.Helper()
	next, seen := map[events.Log]int64{}, map[events.Position]bool{}
	for _, e := range found {
		if seen[e.Position] || e.Parked == "" && e.Position.Offset < next[e.Position.Log] {
			r.w.Errorf("%s, %s: %s comes late, or twice", r.cfg.Region, what, e.Position)
		}
		if seen[e.Position] = true; e.Parked == "" { // nothing says when that counts
			next[e.Position.Log] = e.Position.Offset + 1
		}
		value, there := want[e.Position]
		if !there || value != string(e.Value) || (value == "") != (e.Parked != "") {
			r.w.Errorf("%s, %s: %+v, want %q", r.cfg.Region, what, e, value)
		}
	}
	if len(found) != len(want) {
		r.w.Errorf("%s, %s: %d events, want %d", r.cfg.Region, what, len(found), len(want))
	}
}

// Without its bucket a region tells what its logs have, and that there could be more.
func TestHistoryWithoutTheBucket(t *testing.T) {
	one(t, func(r *region) {
		archives(r)
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		r.start()
		var at events.Position
		for i := range 10 {
			at = r.put("k", fmt.Sprint(i))
		}
		r.eventsFolded(10)
		r.archived(at.Log, 10)
		r.expirePart(events.Vector{at.Log: 10}, 2)
		bucket.SetRules(faults.Rule{Effect: faults.FailBefore})
		h, err := api.GatherHistory(r.w.Context(), api.HistoryParams{Stream: "session", Key: []byte("k")}, 100, func(int64, int64) {}, r.History)
		if err != nil || h.Complete || len(h.Events) != 5 || len(h.Logs[0].Gaps) != 1 || h.Logs[0].Gaps[0].To != 5 {
			t.Errorf("%+v, %v", h, err)
		}
	})
}
