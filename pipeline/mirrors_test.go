package pipeline_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

func bareRecord(key, value string) *kgo.Record {
	return &kgo.Record{Topic: "session", Key: []byte(key), Value: []byte(value)}
}

// Logs with transactions have holes where these end or were aborted, and mirrors
// have none. Regions fold the same all the same, under the offsets of the log: live,
// from the beginning on an empty disk, and on from anywhere.
func TestTransactions(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		n := 0
		write := func(end kgo.TransactionEndTry) {
			var records []*kgo.Record
			for range 3 {
				n++
				records = append(records, bareRecord(fmt.Sprint("k", n%7), fmt.Sprint("v", n)))
			}
			a.transact(end, records...)
		}
		for i := range 10 {
			write(kgo.TryCommit)
			write(kgo.TryAbort)
			a.put("plain", fmt.Sprint(i))
			if i == 4 {
				b.has("plain", "4")
				b.stop() // it misses what follows
			}
		}
		b.start()
		write(kgo.TryCommit)
		last := a.put("last", "one")
		for _, r := range []*region{a, b, c} {
			r.has("last", "one")
			if s := r.status(); api.Known(s.Events) != 10*4+4 || api.Known(s.Parked) != 0 {
				t.Errorf("%s: %d events, %d parked, problems %q", r.cfg.Region, api.Known(s.Events), api.Known(s.Parked), s.Problems)
			}
			if e := r.get("last"); e.Position != last {
				t.Errorf("%s: the last write is at %s, it was acknowledged at %s", r.cfg.Region, e.Position, last)
			}
			if _, err := r.getAtLeast("last", events.Vector{last.Log: last.Offset + 1}, 1); err != nil {
				t.Errorf("%s: %v", r.cfg.Region, err)
			}
			r.consistent()
		}
		cut := a.status().Vector()
		for _, r := range []*region{b, c} {
			if v := r.status().Vector(); v.Compare(cut) != events.Equal {
				t.Errorf("%s stands at %s, %s at %s", r.cfg.Region, v, a.cfg.Region, cut)
			}
			if d, want := *r.status().Digest, *a.status().Digest; d != want {
				t.Errorf("%s has the digest %s, %s has %s", r.cfg.Region, d, a.cfg.Region, want)
			}
		}
		// What is told of the past names the offsets of the log, in every region.
		want, _, _ := a.history("plain", nil)
		for _, r := range []*region{b, c} {
			got, _, _ := r.history("plain", nil)
			if !slices.EqualFunc(got, want, func(x, y api.HistoryEvent) bool { return x.Position == y.Position }) {
				t.Errorf("%s: history %+v, want that of %s, %+v", r.cfg.Region, got, a.cfg.Region, want)
			}
		}
		for _, row := range c.lag().Folds {
			if row.Records == nil || *row.Records != 0 {
				t.Errorf("lag of %s: %+v", row.Log, row)
			}
		}
	})
}
