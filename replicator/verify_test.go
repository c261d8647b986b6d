package replicator_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// appendRuns writes to the link topic as a link does.
func (c *cluster) appendRuns(source *cluster, topic string, p int32, runs ...mapping.Run) {
	c.w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	book, err := ledger.Open(ctx, []kgo.Opt{kgo.SeedBrokers(c.addresses()...), kgo.Dialer(c.w.dial)}, ledger.Config{
		Topic: replicator.LinkTopic, Link: fmt.Sprintf("%s→%s", events.FirstOrigin(source.region), c.region), Instance: "test",
	})
	c.do(err)
	defer book.Close()
	key := ledger.Partition{Topic: topic, Partition: p}
	c.do(book.AppendRuns(ctx, key, book.Map(key).Len(), runs))
}

// A record that the mirror passes over is found, wherever the comparison begins: the
// map is not taken at its word.
func TestVerifyFindsWhatIsMissing(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.writeTo(0, 10)
		source.transaction(abort, records(10, 2)...) // a hole that is right
		source.writeTo(0, 5)                         // offsets 13 to 17, in the mirror 10 to 14
		l := w.link(us, eu)
		l.awaitView(topic)
		l.stop()
		dest.appendRuns(source, topic, 0, mapping.Run{Source: 20, Dest: 15}) // two records are lost
		source.writeTo(0, 20)
		l.start()
		w.await("the mirror goes on", func() error {
			if end := dest.end(mirror(us, topic), 0); end != 33 {
				return fmt.Errorf("it ends at %d", end)
			}
			return nil
		})
		l.awaitRunning()
		for _, from := range []int64{0, 9, 10, 14, 15} {
			v, err := l.Verify(context.Background(), topic, 0, from)
			if err != nil {
				t.Fatal(err)
			}
			if d := v.Difference; d == nil || d.Source != 18 || d.Mirror != 15 || !strings.Contains(d.What, "the mirror does not have it") || v.Next != 15 || v.Records != 15-from {
				t.Errorf("from %d: %+v, %+v", from, v, d)
			}
		}
		if v, err := l.Verify(context.Background(), topic, 0, 16); err != nil || v.Difference != nil || v.Next != 33 {
			t.Errorf("%+v, %v", v, err)
		}
	})
}
