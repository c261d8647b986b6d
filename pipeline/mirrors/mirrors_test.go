package mirrors_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/mirrors"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

var (
	own    = events.Log{Origin: events.FirstOrigin("eu-central-1"), Stream: "session"}
	theirs = events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session"}

	session = ledger.Partition{Topic: "session"}
)

// linked is a region whose link has mirrored offsets 0 to 4 and 10 to 14 of a log, as 0 to 9.
func linked(t *testing.T) (*mirrors.Offsets, *ledger.Ledger) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	opts := []kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}
	book, err := ledger.Open(t.Context(), opts, ledger.Config{
		Topic: replicator.LinkTopic, Link: fmt.Sprintf("%s→%s", theirs.Origin, own.Origin.Region), Instance: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(book.Close)
	if err := book.AppendRuns(t.Context(), session, 0, []mapping.Run{{Source: 0, Dest: 0}, {Source: 10, Dest: 5}}); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Region = own.Origin.Region
	offsets := mirrors.New(opts, &cfg)
	t.Cleanup(offsets.Close)
	return offsets, book
}

func records(from, to int64) (list []*kgo.Record) {
	for offset := from; offset < to; offset++ {
		list = append(list, &kgo.Record{Offset: offset})
	}
	return list
}

func offsetsOf(records []*kgo.Record) (list []int64) {
	for _, r := range records {
		list = append(list, r.Offset)
	}
	return list
}

// Offsets of a mirror and of its log are translated both ways; those of the region's own log
// are what they are.
func TestBothWays(t *testing.T) {
	offsets, _ := linked(t)
	for _, c := range []struct {
		log            events.Log
		inLog, inTopic int64
	}{{theirs, 4, 4}, {theirs, 10, 5}, {theirs, 14, 9}, {own, 10, 10}} {
		if at, err := offsets.InLog(t.Context(), c.log, c.inTopic); at != c.inLog || err != nil {
			t.Errorf("offset %d of the topic of %s is %d of the log, want %d: %v", c.inTopic, c.log, at, c.inLog, err)
		}
		for name, inTopic := range map[string]func(context.Context, events.Log, int64) (int64, error){"Begin": offsets.Begin, "InTopic": offsets.InTopic} {
			if at, err := inTopic(t.Context(), c.log, c.inLog); at != c.inTopic || err != nil {
				t.Errorf("%s: offset %d of %s is %d of its topic, want %d: %v", name, c.inLog, c.log, at, c.inTopic, err)
			}
		}
	}
	if at, err := offsets.Begin(t.Context(), theirs, 7); at != 5 || err != nil {
		t.Errorf("what follows offset 7, which is no record, begins at %d of the mirror: %v", at, err)
	}
	read := records(3, 7)
	if err := offsets.ToLog(t.Context(), theirs, read, 10); err != nil || !slices.Equal(offsetsOf(read), []int64{3, 4, 10, 11}) {
		t.Errorf("%v, %v", offsetsOf(read), err)
	}
}

func TestStartsAndEnds(t *testing.T) {
	offsets, _ := linked(t)
	unknown := errors.New("not known")
	starts := map[events.Log]mirrors.Offset{theirs: {N: 6}, own: {N: 6}}
	offsets.Starts(t.Context(), starts)
	ends := map[events.Log]mirrors.Offset{theirs: {N: 10}, own: {N: 10, Open: 2}, {Origin: theirs.Origin, Stream: "config"}: {Err: unknown}}
	offsets.Ends(t.Context(), ends)
	if starts[theirs].N != 11 || starts[own].N != 6 {
		t.Errorf("starts %v", starts)
	}
	if ends[theirs].N != 15 || ends[own] != (mirrors.Offset{N: 10, Open: 2}) || ends[events.Log{Origin: theirs.Origin, Stream: "config"}].Err != unknown {
		t.Errorf("ends %v", ends)
	}
}

// Before the link has said where in its log a record is, no offset is given to it, and to those
// before it theirs.
func TestNotSaidYet(t *testing.T) {
	offsets, book := linked(t)
	_, version := book.Runs(session)
	plan := &ledger.Plan{Dest: 8, Count: 1, CRC: 1, Last: 1, Runs: []mapping.Run{{Source: 30, Dest: 8}}}
	if _, err := book.Step(t.Context(), session, version, nil, plan); err != nil {
		t.Fatal(err)
	}
	read := records(6, 10)
	if err := offsets.ToLog(t.Context(), theirs, read, 10); !errors.Is(err, mirrors.ErrNotSaid) || events.KindOf(err) != events.KindNotReady {
		t.Errorf("%v", err)
	}
	if got := offsetsOf(read); !slices.Equal(got, []int64{6, 7, 8, 9}) {
		t.Errorf("some were given offsets: %v", got)
	}
	if known, err := offsets.KnownToLog(t.Context(), theirs, read, 10); !errors.Is(err, mirrors.ErrNotSaid) || !slices.Equal(offsetsOf(known), []int64{11, 12}) {
		t.Errorf("%v, %v", offsetsOf(known), err)
	}
	if end, err := offsets.Known(t.Context(), theirs, 10); end != 8 || err != nil {
		t.Errorf("known up to %d: %v", end, err)
	}
	if err := offsets.Covers(t.Context(), theirs, 9, 10); !errors.Is(err, mirrors.ErrNotSaid) {
		t.Errorf("%v", err)
	}
	if err := book.Drop(t.Context(), book.Plans(session)); err != nil {
		t.Fatal(err)
	}
	if err := offsets.Covers(t.Context(), theirs, 9, 10); err != nil {
		t.Error(err)
	}
}

// Who asks while Kafka does not answer waits no longer than it wants to.
func TestEndsWithItsContext(t *testing.T) {
	cfg := config.Default()
	cfg.Region = own.Origin.Region
	offsets := mirrors.New([]kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}, &cfg)
	defer offsets.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := offsets.InLog(ctx, theirs, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
