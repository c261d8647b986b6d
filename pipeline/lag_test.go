package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/pipeline/api"
)

func (r *region) lag() *api.Lag {
	r.w.Helper()
	lag, err := r.Lag(r.w.Context())
	if err != nil {
		r.w.Fatalf("lag: %v", err)
	}
	return lag
}

// rowOf finds the row of a log.
func rowOf(t *testing.T, rows []api.LagRow, log string) api.LagRow {
	t.Helper()
	for _, row := range rows {
		if row.Log.String() == log {
			return row
		}
	}
	t.Fatalf("there is no row of %s", log)
	return api.LagRow{}
}

func describeRow(row api.LagRow) string { return describeLag(row.End, row.Next, row.Records) }

func describeLag(end, next, behind *int64) string {
	number := func(n *int64) string {
		if n == nil {
			return "unknown"
		}
		return fmt.Sprint(*n)
	}
	return fmt.Sprintf("end %s next %s behind %s", number(end), number(next), number(behind))
}

// linkRowOf finds the row of a log's mirror.
func linkRowOf(t *testing.T, rows []api.LinkLag, log string) api.LinkLag {
	t.Helper()
	for _, row := range rows {
		if row.Log != nil && row.Log.String() == log {
			return row
		}
	}
	t.Fatalf("there is no row of %s", log)
	return api.LinkLag{}
}

func describeLink(row api.LinkLag) string { return describeLag(row.End, row.Next, row.Records) }

// behind waits until the lag of everything is known and as long as wanted.
func (r *region) behind(want string) {
	r.w.Helper()
	r.await("behind by "+want, func() error {
		if lag := r.lag(); lag.Behind() != want {
			return fmt.Errorf("%+v", lag)
		}
		return nil
	})
}

func TestLag(t *testing.T) {
	two(t, func(a, b *region) {
		disk := &smallDisk{FS: a.disk}
		disk.free.Store(1 << 30)
		a.disk, a.cfg.Limits.MinFreeBytes = disk, 1<<20
		a.start()
		b.start()
		a.behind("0")
		lag := a.lag()
		// 2 streams, 3 partitions; logs of both regions are folded, those of the
		// peer mirrored.
		if len(lag.Folds) != 12 || len(lag.Links) != 6 || lag.Region != us || lag.Behind() != "0" {
			t.Errorf("%d folds, %d links, behind %s", len(lag.Folds), len(lag.Links), lag.Behind())
		}
		for i := range lag.Folds[1:] {
			if lag.Folds[i].Log.Compare(lag.Folds[i+1].Log) >= 0 {
				t.Errorf("%s before %s", lag.Folds[i].Log, lag.Folds[i+1].Log)
			}
		}
		for range 5 {
			b.produce(&kgo.Record{Topic: "session", Partition: 1, Key: []byte("k"), Value: []byte("v")})
		}
		a.has("k", "v")
		a.eventsFolded(5)
		if row := describeRow(rowOf(t, a.lag().Folds, "eu-central-1/session/1")); row != "end 5 next 5 behind 0" {
			t.Error(row)
		}

		disk.free.Store(0) // folding stops, the link goes on
		for range 3 {
			b.produce(&kgo.Record{Topic: "session", Partition: 1, Key: []byte("k"), Value: []byte("w")})
		}
		a.await("mirrored", func() error {
			if row := describeLink(linkRowOf(t, a.lag().Links, "eu-central-1/session/1")); row != "end 8 next 8 behind 0" {
				return fmt.Errorf("%s", row)
			}
			return nil
		})
		lag = a.lag()
		if row := describeRow(rowOf(t, lag.Folds, "eu-central-1/session/1")); row != "end 8 next 5 behind 3" || lag.Behind() != "3" {
			t.Errorf("%s, behind %s", row, lag.Behind())
		}
	})
}

// The lag behind what cannot be asked is unknown, never 0, and finding that out
// takes no longer than it may.
func TestLagUnknown(t *testing.T) {
	long(t)
	for name, c := range map[string]struct {
		take                func(a, b *region, g *gate)
		folds, links, peers string
	}{
		"the peer is down": {
			func(_, b *region, _ *gate) { b.down() },
			"end 0 next 0 behind 0", "end unknown next 0 behind unknown", "end 0 next 0 behind 0",
		},
		"its own Kafka is down": {
			func(a, _ *region, _ *gate) { a.down() },
			"end unknown next 0 behind unknown", "end unknown next 0 behind unknown", "end unknown next 0 behind unknown",
		},
		"its own Kafka is deaf": { // the mirror stands where it stood; that is all there is to know
			func(_, _ *region, g *gate) { g.freeze() },
			"end unknown next 0 behind unknown", "end 0 next 0 behind 0", "end unknown next 0 behind unknown",
		},
		"a pause": {
			func(a, _ *region, _ *gate) {
				_, _ = a.PauseLink(a.w.Context(), api.PauseLinkParams{Origin: eu.String()})
			},
			"end 0 next 0 behind 0", "end unknown next 0 behind unknown", "end 0 next 0 behind 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			two(t, func(a, b *region) {
				g := a.gated()
				b.start()
				a.start()
				a.behind("0")
				c.take(a, b, g)
				a.await("noticed", func() error {
					if got := describeLink(linkRowOf(t, a.lag().Links, "eu-central-1/config/0")); got != c.links {
						return fmt.Errorf("%s", got)
					}
					return nil
				})
				a.within(4*time.Second, "lag", func() { checkUnknown(t, a.lag(), c.folds, c.peers) })
			})
		})
	}
}

func checkUnknown(t *testing.T, lag *api.Lag, folds, peers string) {
	t.Helper()
	if lag.Behind() != "unknown" {
		t.Errorf("behind %s", lag.Behind())
	}
	for log, want := range map[string]string{"us-east-1/config/0": folds, "eu-central-1/config/0": peers} {
		row := rowOf(t, lag.Folds, log)
		if got := describeRow(row); got != want || (row.Records == nil) != (row.Error != "") {
			t.Errorf("%s: %s, want %s; error %q", row.Log, got, want, row.Error)
		}
	}
	for _, row := range lag.Links {
		if (row.Records == nil) != (row.Error != "") {
			t.Errorf("%s: %s, error %q", row.Log, describeLink(row), row.Error)
		}
	}
}

// A state that is ahead of its log is no lag of less than nothing.
func TestLagAhead(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		for range 3 {
			r.produce(&kgo.Record{Topic: "session", Partition: 1, Key: []byte("k"), Value: []byte("v")})
		}
		r.eventsFolded(3)
		if err := r.kafka.DeleteTopic("session"); err != nil {
			t.Fatal(err)
		}
		if err := r.kafka.CreateTopic("session", partitions, nil); err != nil {
			t.Fatal(err)
		}
		lag := r.lag()
		row := rowOf(t, lag.Folds, "us-east-1/session/1")
		if got := describeRow(row); got != "end 0 next 3 behind unknown" || row.Error == "" || lag.Behind() != "unknown" {
			t.Errorf("%s, error %q, behind %s", got, row.Error, lag.Behind())
		}
	})
}

// A log that ends with a transaction leaves nobody behind that has folded what it has, be that
// nothing. Records of a transaction that goes on are told apart.
func TestLagBehindTransactions(t *testing.T) {
	two(t, func(a, b *region) {
		a.start()
		b.start()
		record := func(p int32, key string) *kgo.Record {
			return &kgo.Record{Topic: "session", Partition: p, Key: []byte(key), Value: []byte("v")}
		}
		a.transact(kgo.TryCommit, record(1, "committed"))
		a.has("committed", "v")
		a.behind("0")
		a.transact(kgo.TryAbort, record(1, "aborted"), record(2, "aborted"))
		a.behind("0")
		b.behind("0")
		for log, want := range map[string]string{
			"us-east-1/session/1": "end 4 next 4 behind 0", "us-east-1/session/2": "end 2 next 2 behind 0", "us-east-1/session/0": "end 0 next 0 behind 0",
		} {
			if row := describeRow(rowOf(t, a.lag().Folds, log)); row != want {
				t.Errorf("%s: %s, want %s", log, row, want)
			}
		}
		a.await("committed in the group", func() error {
			client := a.dial()
			defer client.Close()
			offsets, err := kadm.NewClient(client).FetchOffsets(a.w.Context(), a.cfg.Group)
			if o, ok := offsets.Lookup("session", 1); err != nil || !ok || o.At != 4 {
				return fmt.Errorf("%+v, %v", o, err)
			}
			return nil
		})
		a.stop()
		a.start() // and reads again what is behind its state
		a.behind("0")

		client := a.dial(kgo.TransactionalID("open"))
		defer client.Close()
		if err := errors.Join(client.BeginTransaction(), client.ProduceSync(a.w.Context(), record(1, "open"), record(1, "open")).FirstErr()); err != nil {
			t.Fatal(err)
		}
		a.produce(record(1, "behind it"))
		time.Sleep(time.Minute / 2)
		row := rowOf(t, a.lag().Folds, "us-east-1/session/1")
		if got := describeRow(row); got != "end 7 next 4 behind 0" || row.Open == nil || *row.Open != 3 {
			t.Errorf("%s, %+v", got, row)
		}
		if err := client.EndTransaction(a.w.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		a.has("open", "v")
		a.has("behind it", "v")
		a.behind("0")
		if row := rowOf(t, a.lag().Folds, "us-east-1/session/1"); describeRow(row) != "end 8 next 8 behind 0" || *row.Open != 0 {
			t.Errorf("%+v", row)
		}
		b.behind("0")
		a.down()
		if row := rowOf(t, a.lag().Folds, "us-east-1/session/1"); row.Records != nil || row.Open != nil || row.Error == "" {
			t.Errorf("%+v", row)
		}
	})
}

// Under load nobody seems to be ahead of what he follows.
func TestLagUnderLoad(t *testing.T) {
	two(t, func(a, b *region) {
		b.start()
		a.start()
		b.put("k", "v")
		a.has("k", "v")
		a.behind("0")
		client := b.dial()
		stop, stopped := make(chan bool), make(chan bool)
		go func() {
			defer close(stopped)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				record := &kgo.Record{Topic: "session", Partition: int32(n % partitions), Key: []byte("k"), Value: []byte("v")}
				if err := client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
					t.Error(err)
				}
			}
		}()
		for range 300 {
			lag := a.lag()
			for _, row := range lag.Folds {
				if row.Error != "" {
					t.Errorf("%s: %s", row.Log, row.Error)
				}
			}
			for _, row := range lag.Links {
				if row.Error != "" {
					t.Errorf("mirror of %s: %s", row.Log, row.Error)
				}
			}
			time.Sleep(time.Millisecond)
		}
		close(stop)
		<-stopped
		client.Close()
	})
}
