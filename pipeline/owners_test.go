package pipeline

import (
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
