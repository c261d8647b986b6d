package pipeline

import (
	"testing"

	"github.com/evenkeel/evenkeel/pipeline/mirrors"
)

// A mirror is waited for exactly as long as its reading is paused, and neither outlives the
// shard, whatever looks were under way when that was closed.
func TestBehindOfAShardThatIsClosed(t *testing.T) {
	moving(t, func(m *movedShard) {
		w, err := newWorker(nil, m.to.cfg, m.to.shards, nil, nil, m.to.log)
		if err != nil {
			m.Fatal(err)
		}
		defer w.client.Close()
		w.orders.End() // whoever gives an order obeys it
		waits := func(want bool) {
			m.Helper()
			paused := len(w.client.PauseFetchPartitions(nil)[m.to.cfg.TopicOf(m.log)]) > 0
			if is := w.isWaitedFor(m.log); is != want || paused != want {
				m.Errorf("waited for: %t, paused: %t, want both %t", is, paused, want)
			}
		}
		w.setBehind(m.log, mirrors.ErrNotSaid)
		waits(true)
		w.remove(0)
		waits(false)
		w.stillBehind(m.log, mirrors.ErrNotSaid)
		waits(false)
		w.setBehind(m.log, mirrors.ErrNotSaid)
		waits(true)
		w.setApart(0, true) // and what is asked for cannot be read
		if err := w.lookBehind(m.Context(), m.log); err != nil {
			m.Error(err)
		}
		waits(true)
		w.setApart(0, false)
		shard := m.to.shards.get(0)
		shard.fence(errStopped)
		w.endBehind(m.log, shard, func() { m.Error("a shard that is closed is read on") })
		waits(true)
		w.remove(0)
		w.setBehind(m.log, mirrors.ErrNotSaid)
		waits(false)
	})
}
