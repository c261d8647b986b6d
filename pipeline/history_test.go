package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// history reads all parts of a key's history.
func (r *region) history(key string, since *time.Time) (found []api.HistoryEvent, logs []api.HistoryLog, parts int) {
	r.w.Helper()
	p := api.HistoryParams{Stream: "session", Key: []byte(key), Since: since}
	for {
		part, err := r.History(r.w.Context(), p)
		if err != nil {
			r.w.Fatalf("%s: history of %s: %v", r.cfg.Region, key, err)
		}
		found, p.Logs, parts = append(found, part.Events...), part.Logs, parts+1
		if part.Done {
			return found, p.Logs, parts
		}
	}
}

// A key's history has every event of every origin, and nothing else, in each region.
func TestHistory(t *testing.T) {
	three(t, func(a, b, c *region) {
		want := map[events.Position]string{}
		cut := events.Vector{}
		var partition int32
		for i := range 60 {
			r := []*region{a, b, c}[i%3]
			key := []string{"k", "other"}[i%2]
			res, err := r.putAfter(key, fmt.Sprint(i), nil)
			if err != nil {
				t.Fatal(err)
			}
			cut = cut.Join(res.AtLeast)
			if key == "k" {
				want[res.Position] = fmt.Sprint(i)
				partition = res.Position.Partition
			}
		}
		other := (partition + 1) % partitions
		b.produce(
			&kgo.Record{Topic: "session", Partition: partition, Key: []byte("k"), Value: []byte("x"), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("1")}}},
			&kgo.Record{Topic: "session", Partition: other, Key: []byte("k"), Value: []byte("elsewhere")},
		)
		last := events.Log{Origin: events.FirstOrigin(eu), Stream: "session", Partition: other}
		cut[last] = b.end("session", other)
		parkedLog := events.Log{Origin: events.FirstOrigin(eu), Stream: "session", Partition: partition}
		cut[parkedLog] = b.end("session", partition)
		want[last.At(cut[last]-1)] = "elsewhere"
		for _, r := range []*region{a, b, c} {
			if _, err := r.getAtLeast("k", cut, 60); err != nil {
				t.Fatal(err)
			}
			found, logs, _ := r.history("k", nil)
			parked := 0
			for _, e := range found {
				switch {
				case e.Parked != "":
					parked++
					if e.Position != parkedLog.At(cut[parkedLog]-1) || e.Value != nil {
						t.Errorf("parked: %+v", e)
					}
				case want[e.Position] != string(e.Value):
					t.Errorf("%s: %q at %s, want %q", r.cfg.Region, e.Value, e.Position, want[e.Position])
				case e.Op != "put" || e.Clock == 0 || e.Written.IsZero():
					t.Errorf("%+v", e)
				}
			}
			if len(found) != len(want)+1 || parked != 1 {
				t.Errorf("%s: %d events, %d of them parked, want %d and 1", r.cfg.Region, len(found), parked, len(want))
			}
			if len(logs) != 6 {
				t.Errorf("%s: %d logs, want those of three origins and two partitions: %+v", r.cfg.Region, len(logs), logs)
			}
		}
		if found, _, _ := a.history("nobody", nil); len(found) != 0 {
			t.Errorf("of nobody: %+v", found)
		}
	})
}

// A long history comes in parts, without a gap or a repetition; what has expired is
// said; and one can begin at a time.
func TestHistoryOfManyEvents(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		r.start()
		const n = 25_000
		load := api.LoadParams{Stream: "session", Source: "s"}
		for i := range n {
			load.Events = append(load.Events, api.LoadEvent{ID: fmt.Sprint(i), Key: api.Bytes("k"), Value: api.Bytes(fmt.Sprint(i))})
		}
		res, err := r.Load(r.w.Context(), load)
		if err != nil {
			t.Fatal(err)
		}
		found, logs, parts := r.history("k", nil)
		if len(found) != n || parts < 3 || len(logs) != 1 || logs[0].Start != 0 || logs[0].Next != n {
			t.Fatalf("%d events in %d parts, %+v", len(found), parts, logs)
		}
		for i, e := range found {
			if e.Position.Offset != int64(i) {
				t.Fatalf("number %d is at %s", i, e.Position)
			}
		}
		time.Sleep(time.Hour)
		half := time.Now()
		time.Sleep(time.Hour)
		at := r.put("k", "late")
		r.get("k", events.Vector{at.Log: at.Offset + 1})
		if found, logs, _ := r.history("k", &half); len(found) != 1 || found[0].Position != at || logs[0].From != n {
			t.Errorf("since a time: %d events, %+v", len(found), logs)
		}
		client := r.dial()
		defer client.Close()
		offsets := kadm.Offsets{}
		offsets.AddOffset("session", at.Partition, 20_000, -1)
		if _, err := kadm.NewClient(client).DeleteRecords(r.w.Context(), offsets); err != nil {
			t.Fatal(err)
		}
		found, logs, _ = r.history("k", nil)
		if len(found) != 5_001 || logs[0].Start != 20_000 || logs[0].From != 20_000 {
			t.Errorf("after expiry: %d events, %+v", len(found), logs)
		}
		_ = res
	})
}

func TestHistoryRefused(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		log := events.Log{Origin: events.FirstOrigin(us), Stream: "session"}
		for name, c := range map[string]struct {
			p    api.HistoryParams
			kind events.Kind
		}{
			"no stream":        {api.HistoryParams{Stream: "nope", Key: []byte("k")}, events.KindNotFound},
			"no key":           {api.HistoryParams{Stream: "session"}, events.KindInvalid},
			"another stream":   {api.HistoryParams{Stream: "config", Key: []byte("k"), Logs: []api.HistoryLog{{Log: log}}}, events.KindInvalid},
			"a foreign log":    {api.HistoryParams{Stream: "session", Key: []byte("k"), Logs: []api.HistoryLog{{Log: events.Log{Origin: events.FirstOrigin("mars"), Stream: "session"}}}}, events.KindInvalid},
			"offsets mixed up": {api.HistoryParams{Stream: "session", Key: []byte("k"), Logs: []api.HistoryLog{{Log: log, From: 5, Next: 3, End: 9}}}, events.KindInvalid},
		} {
			t.Run(name, func(t *testing.T) {
				_, err := r.History(r.w.Context(), c.p)
				wantKind(t, err, c.kind)
			})
		}
		r.down()
		begun := time.Now()
		_, err := r.History(r.w.Context(), api.HistoryParams{Stream: "session", Key: []byte("k")})
		wantKind(t, err, events.KindNotReady, "session", "us-east-1")
		if took := time.Since(begun); took > 31*time.Second {
			t.Errorf("took %s", took)
		}
	})
}
