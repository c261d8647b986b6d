package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// An owner whose own clock is further ahead than others follow, as that of a machine which was set
// back, still tells them the clock of what it has folded.
func TestClockOfAnOwnerThatIsTooFarAhead(t *testing.T) {
	moving(t, func(m *movedShard) {
		m.to.clock = &nodeClock{DurableClock: events.NewDurableClock(events.HLCAt(time.Now().Add(2*time.Minute)), time.Minute, nil)}
		ahead := time.Now().Add(50 * time.Second)
		m.apply(m.to, m.log, &kgo.Record{Offset: 10, Key: []byte(movedKey), Value: []byte("v"), Timestamp: ahead})
		if _, err := m.asks.applied(m.Context(), m.log.Stream, 0); err != nil {
			m.Fatal(err)
		}
		if last := m.asks.clock.Last(); last < events.HLCAt(ahead) {
			m.Errorf("who has asked is at %s, before %s", last, events.HLCAt(ahead))
		}
	})
}

// Who writes an increment with a context that covers a reset of another region writes that reset
// first, whenever it is folded, and wherever the shard is by then.
func TestResetFirstAcrossAMove(t *testing.T) {
	for name, arrange := range map[string]func(m *movedShard, reset func(r *Region)){
		"it is folded when the owner is asked how far it is": func(m *movedShard, reset func(r *Region)) {
			m.owner = func(method string) *Region {
				if method == "applied" {
					reset(m.to)
				}
				return m.to
			}
		},
		"the shard moves to a node that has it to fold still": func(m *movedShard, reset func(r *Region)) {
			reset(m.from)
			m.moves("slices")
			time.AfterFunc(time.Second, func() { reset(m.to) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			movingBy(t, "fieldmap", func(m *movedShard) {
				own := events.Log{Origin: m.asks.origin, Stream: m.log.Stream}
				counted := m.record(`{"increment":{"n":100}}`, events.TypePatch, nil)
				m.apply(m.from, own, counted)
				m.apply(m.to, own, counted)
				taken := m.record("", events.TypeDelete, events.Context{{Origin: own.Origin, Next: 1}})
				arrange(m, func(r *Region) { m.apply(r, m.log, taken) })
				records, e, err := m.asks.putRecords(m.Context(), api.PutParams{
					Stream: own.Stream, Key: api.Bytes(movedKey), Value: api.Bytes(`{"increment":{"n":1}}`), Type: events.TypePatch,
				})
				if err != nil {
					m.Fatal(err)
				}
				if e.Deps.Next(m.log.Origin) != 1 || len(records) != 2 {
					m.Fatalf("%d records, with the context %s", len(records), e.Deps)
				}
				first, err := events.Decode(records[0])
				if err != nil || first.Op != events.OpDelete || first.Deps.Next(own.Origin) != 1 {
					m.Errorf("%+v, %v", first, err)
				}
			})
		})
	}
}

// record makes the first record of a log, with an event of the key.
func (m *movedShard) record(value, typ string, deps events.Context) *kgo.Record {
	m.Helper()
	var body []byte
	if value != "" {
		body = []byte(value)
	}
	e := m.asks.newEvent([]byte(movedKey), body, typ, "")
	e.ID, e.Source, e.Deps, e.Clock, e.Time = "1", "test", deps, events.HLCAt(time.Now()), time.Now()
	record, err := events.Encode(e)
	if err != nil {
		m.Fatal(err)
	}
	record.Timestamp = time.Now()
	return record
}

// Whether there is room for a value is known by the owner of the shard alone, and asked of it, at the
// cut that it has told of, wherever the shard is by then. Under rules without such limits nobody is asked.
func TestRoomAcrossAMove(t *testing.T) {
	put := func(m *movedShard) error {
		_, _, err := m.asks.putRecords(m.Context(), api.PutParams{
			Stream: "session", Key: api.Bytes(movedKey), Value: api.Bytes("one more"), Context: &events.Vector{},
		})
		return err
	}
	fill := func(m *movedShard, r *Region, from int) {
		own := events.Log{Origin: m.asks.origin, Stream: m.log.Stream}
		for i := from; i < 64; i++ {
			value := m.record("v", "", events.Context{{Origin: own.Origin, Next: 1}})
			value.Offset = int64(i + 1)
			if i == 0 {
				first := m.record("", events.TypeDelete, nil)
				m.apply(r, own, first)
			}
			m.apply(r, own, value)
		}
	}
	movingBy(t, "multivalue", func(m *movedShard) {
		if err := put(m); err != nil {
			m.Errorf("a key that is not there: %v", err)
		}
		fill(m, m.from, 0)
		m.moves("slices")
		err := put(m)
		if kind := events.KindOf(err); kind != events.KindNotReady {
			m.Errorf("written after a move to a node that has nothing: %v (%s)", err, kind)
		}
		m.moves("slices")
		time.AfterFunc(time.Second, func() { fill(m, m.to, 0) })
		if err := put(m); events.KindOf(err) != events.KindRefused {
			m.Errorf("written after a move to a node that catches up: %v", err)
		}
	})
	for _, rule := range []string{"lww", "append"} {
		movingBy(t, rule, func(m *movedShard) {
			if err := put(m); err != nil || !slices.Equal(m.asked, []string{"applied"}) {
				m.Errorf("%s: asked %v, %v", rule, m.asked, err)
			}
		})
	}
}

// That there is no room is told only at a cut that has the end of the region's own log: what makes room may be
// acknowledged and not folded yet.
func TestRoomIsKnownAtTheEnd(t *testing.T) {
	movingBy(t, "multivalue", func(m *movedShard) {
		own := events.Log{Origin: m.asks.origin, Stream: m.log.Stream}
		client, err := kgo.NewClient(append(m.opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			m.Fatal(err)
		}
		defer client.Close()
		write := func(r *kgo.Record) *kgo.Record {
			r.Topic = "session"
			if err := client.ProduceSync(m.Context(), r).FirstErr(); err != nil {
				m.Fatal(err)
			}
			return r
		}
		m.apply(m.to, own, write(m.record("", events.TypeDelete, nil)))
		for range 64 {
			m.apply(m.to, own, write(m.record("v", "", events.Context{{Origin: own.Origin, Next: 1}})))
		}
		put := func(ctx context.Context, p api.PutParams) error {
			p.Stream, p.Key = own.Stream, api.Bytes(movedKey)
			_, _, err := m.asks.putRecords(ctx, p)
			return err
		}
		value := api.PutParams{Value: api.Bytes("one more"), Context: &events.Vector{}}
		m.asked = nil
		if err := put(m.Context(), value); events.KindOf(err) != events.KindRefused || !slices.Equal(m.asked, []string{"applied", "slices"}) {
			m.Errorf("all is folded: asked %v, %v", m.asked, err)
		}

		resolve := write(m.record("settled", events.TypeResolve, events.Context{{Origin: own.Origin, Next: 65}}))
		begun := time.Now()
		if err := put(m.Context(), value); events.KindOf(err) != events.KindNotReady || !strings.Contains(err.Error(), "nothing was written") || time.Since(begun) > roomPatience {
			m.Errorf("the end is not folded: %v, after %s", err, time.Since(begun))
		}
		short, cancel := context.WithTimeout(m.Context(), time.Second)
		defer cancel()
		if err := put(short, value); !errors.Is(err, context.DeadlineExceeded) {
			m.Errorf("the end is not folded, and the caller leaves: %v", err)
		}
		time.AfterFunc(time.Second, func() { m.apply(m.to, own, resolve) })
		if err := put(m.Context(), value); err != nil {
			m.Errorf("the end makes room: %v", err)
		}

		// Who covers all that stands there needs no room in it, and does not ask.
		m.asked = nil
		seen := &events.Vector{own: 66}
		for _, p := range []api.PutParams{{Value: api.Bytes("v")}, {}, {Context: &events.Vector{}}, {Value: api.Bytes("v"), Context: seen}, {Value: api.Bytes("v"), Type: events.TypeResolve, Context: seen}} {
			if err := put(m.Context(), p); err != nil {
				m.Error(err)
			}
		}
		if slices.Contains(m.asked, "slices") {
			m.Errorf("asked %v", m.asked)
		}
	})
}

// An event that is parked is not told to have been folded by a node that has not come to it.
func TestOutcomeAcrossAMove(t *testing.T) {
	movingBy(t, "multivalue", func(m *movedShard) {
		own := events.Log{Origin: m.asks.origin, Stream: m.log.Stream}
		noKey := &kgo.Record{Value: []byte("v"), Timestamp: time.Now()}
		m.apply(m.from, own, noKey)
		ask := func() (*api.Outcome, error) {
			m.moves("parked")
			return m.asks.Outcome(m.Context(), api.OutcomeParams{Position: own.At(0), TimeoutSeconds: 1})
		}
		if o, err := ask(); events.KindOf(err) != events.KindNotReady {
			m.Errorf("%+v, %v", o, err)
		}
		time.AfterFunc(time.Second, func() { m.apply(m.to, own, noKey) })
		if o, err := ask(); err != nil || o.Parked == "" {
			m.Errorf("%+v, %v", o, err)
		}
	})
}
