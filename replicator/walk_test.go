package replicator

import (
	"context"
	"fmt"
	"testing"
)

// manyParts is a mover with so many partitions under way, all led by one broker
// on either side.
func manyParts(n int) (*mover, *fetcher, *appender) {
	m := &mover{cfg: Config{WindowBytes: DefaultWindowBytes}, parts: map[partition]*part{}, fetchers: map[lane]*fetcher{}, room: make(chan struct{})}
	f, a := newFetcher(m, lane{1, 0}), newAppender(m, lane{1, 0})
	m.fetchers[f.lane] = f
	for i := range n {
		key := partition{fmt.Sprint("topic ", i/10), int32(i % 10)}
		p := &part{partition: key, log: key.topic, mirror: "us." + key.topic, placed: true, source: leader{1, 0}, dest: leader{1, 0}}
		p.sourceID[0], p.sourceID[1] = byte(i/10), byte(i/10>>8)
		p.flow = &flow{part: p, leader: p.source}
		m.parts[key] = p
	}
	return m, f, a
}

// What a fetch and a produce request cost before anything is sent, when nearly all
// partitions are idle.
func BenchmarkWalk(b *testing.B) {
	for _, n := range []int{100, 5000} {
		m, f, a := manyParts(n)
		b.Run(fmt.Sprint("wanted/", n), func(b *testing.B) {
			for b.Loop() {
				w := f.wanted()
				m.settle(w.granted)
			}
		})
		b.Run(fmt.Sprint("request/", n), func(b *testing.B) {
			w := f.wanted()
			for b.Loop() {
				f.session.request(w)
				f.session.known = f.session.sent
			}
		})
		b.Run(fmt.Sprint("take/", n), func(b *testing.B) {
			for b.Loop() {
				a.take(context.Background())
			}
		})
	}
}
