package replicator_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
)

// produceFails makes produce requests of partition 0 fail, the same number of
// times with each error, one after the other.
func produceFails(times int, errs ...*kerr.Error) []kfake.Fault {
	var faults []kfake.Fault
	for _, err := range errs {
		faults = append(faults, kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Topic: mirror(us, topic), Partitions: []int32{0}, Err: err, Count: times,
		})
	}
	return faults
}

// requestFails makes requests of some kind fail.
func requestFails(key kmsg.Key, times int, err *kerr.Error) []kfake.Fault {
	return []kfake.Fault{{Keys: []kmsg.Key{key}, Err: err, Count: times}}
}

// Faults that pass. Those that say "done" are answered with an error although
// the records were written.
var faults = []struct {
	name         string
	source, dest []kfake.Fault
	atStart      bool // a link that runs already does not meet them
}{
	{"the mirror has another leader", nil, produceFails(5, kerr.NotLeaderForPartition), false},
	{"the mirror has no leader", nil, produceFails(5, kerr.LeaderNotAvailable), false},
	{"too few replicas", nil, produceFails(5, kerr.NotEnoughReplicas), false},
	{"done, too few replicas", nil, produceFails(3, kerr.NotEnoughReplicasAfterAppend), false},
	{"done, timed out", nil, produceFails(3, kerr.RequestTimedOut), false},
	{"disk fails", nil, produceFails(2, kerr.KafkaStorageError), false},
	{"unknown error", nil, produceFails(2, kerr.UnknownServerError), false},
	{"corrupt on the way", nil, produceFails(2, kerr.CorruptMessage), false},
	{"not allowed for a while", nil, produceFails(3, kerr.TopicAuthorizationFailed), false},
	{"the mirror is unknown for a while", nil, produceFails(8, kerr.UnknownTopicOrPartition), false},
	{"out of order", nil, produceFails(1, kerr.OutOfOrderSequenceNumber), false},
	{"producer forgotten", nil, produceFails(1, kerr.UnknownProducerID), false},
	{"producer fenced", nil, produceFails(1, kerr.InvalidProducerEpoch), false},
	{"done, timed out, then producer forgotten", nil, produceFails(1, kerr.RequestTimedOut, kerr.UnknownProducerID), false},
	{"done, timed out, then out of order", nil, produceFails(1, kerr.RequestTimedOut, kerr.OutOfOrderSequenceNumber), false},
	{"done, too few replicas, then not allowed", nil, produceFails(1, kerr.NotEnoughReplicasAfterAppend, kerr.TopicAuthorizationFailed), false},
	{"done, timed out, then unknown error", nil, produceFails(1, kerr.RequestTimedOut, kerr.UnknownServerError), false},
	{"no producer id", nil, requestFails(kmsg.InitProducerID, 3, kerr.CoordinatorLoadInProgress), true},
	{"no producer id allowed", nil, requestFails(kmsg.InitProducerID, 3, kerr.ClusterAuthorizationFailed), true},
	{"mirror's offsets are refused", nil, requestFails(kmsg.ListOffsets, 3, kerr.UnknownServerError), false},
	{"log's offsets are refused", requestFails(kmsg.ListOffsets, 3, kerr.TopicAuthorizationFailed), nil, true},
	{"log's offsets are not available", requestFails(kmsg.ListOffsets, 3, kerr.OffsetNotAvailable), nil, true},
	{"fetch: another leader", requestFails(kmsg.Fetch, 5, kerr.NotLeaderForPartition), nil, false},
	{"fetch: fenced epoch", requestFails(kmsg.Fetch, 3, kerr.FencedLeaderEpoch), nil, false},
	{"fetch: not allowed", requestFails(kmsg.Fetch, 3, kerr.TopicAuthorizationFailed), nil, false},
	{"fetch: unknown error", requestFails(kmsg.Fetch, 3, kerr.UnknownServerError), nil, false},
	{"fetch: unknown topic", requestFails(kmsg.Fetch, 8, kerr.UnknownTopicOrPartition), nil, false},
	{"fetch: session lost", []kfake.Fault{{Keys: []kmsg.Key{kmsg.Fetch}, TopLevel: true, Err: kerr.FetchSessionIDNotFound, Count: 3}}, nil, false},
	{"metadata: not allowed", requestFails(kmsg.Metadata, 3, kerr.TopicAuthorizationFailed), requestFails(kmsg.Metadata, 3, kerr.TopicAuthorizationFailed), false},
}

// Whatever a broker answers for a while, a backlog and what comes after it are
// mirrored without loss, doubling or reordering, and nothing is stopped.
func TestFaultsPass(t *testing.T) {
	for _, test := range faults {
		t.Run(test.name, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.backlog()
				struck := install(source, test.source, dest, test.dest)
				l := w.link(us, eu)
				trickle(source, dest)
				struck(t)
				awaitMirrored(source, dest)

				if !test.atStart {
					struck = install(source, test.source, dest, test.dest)
					trickle(source, dest)
					struck(t)
				}
				source.write(10)
				awaitMirrored(source, dest)
				if s := l.Status(); len(s.Stopped) > 0 {
					t.Errorf("stopped: %q", s.Stopped)
				}
			})
		})
	}
}

// trickle writes a little for a while, and waits until it is mirrored.
func trickle(source, dest *cluster) {
	source.w.Helper()
	for range 10 {
		source.write(3)
		time.Sleep(1500 * time.Millisecond)
	}
	for p := range int32(partitions) {
		awaitEnd(source, dest, topic, p)
	}
}

// install puts faults into both clusters. The function that it returns checks
// that they struck, and removes what is left of them.
func install(source *cluster, sourceFaults []kfake.Fault, dest *cluster, destFaults []kfake.Fault) (struck func(t *testing.T)) {
	atSource, atDest := source.Fault(sourceFaults...), dest.Fault(destFaults...)
	return func(t *testing.T) {
		t.Helper()
		if atSource.Hits()+atDest.Hits() == 0 {
			t.Error("the faults did not strike: the test tests nothing")
		}
		atSource.Remove()
		atDest.Remove()
	}
}

// backlog appends so much to partition 0, where faults strike, that a link needs
// several batches for it, and a little to the others.
func (c *cluster) backlog() {
	c.w.Helper()
	var records []*kgo.Record
	for i := range 300 {
		r := record(0, int(c.end(topic, 0))+i)
		r.Value = append(r.Value, make([]byte, 40*i)...)
		records = append(records, r)
	}
	c.produce(records...)
	c.write(10)
}

// A write is refused while a large round of the link is under way: nothing that
// follows may take the refused records' place.
func TestRefusedInTheMiddleOfARound(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		var records []*kgo.Record
		for i := range 30_000 {
			records = append(records, record(0, i))
		}
		source.produce(records...)
		refusals := dest.Fault(produceFails(4, kerr.TopicAuthorizationFailed)...)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		if s := l.Status(); len(s.Stopped) > 0 || refusals.Hits() != 4 {
			t.Errorf("%d refusals, stopped: %q", refusals.Hits(), s.Stopped)
		}
	})
}

// What fails for ever is not tried for ever as fast as possible.
func TestPauses(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		refused := produceFails(-1, kerr.TopicAuthorizationFailed)
		writes := dest.Fault(refused...)
		l := w.link(us, eu)
		source.write(1)
		l.awaitInterrupted("partition 0", "TOPIC_AUTHORIZATION_FAILED")
		time.Sleep(10 * time.Minute)
		if n := writes.Hits(); n < 50 || n > 300 {
			t.Errorf("tried %d times in ten minutes", n)
		}
		writes.Remove()
		awaitMirrored(source, dest)
		l.awaitRunning()
	})
}

// Leaders move at both ends while records pass.
func TestLeadersMove(t *testing.T) {
	const brokers = 3
	simulate(t, brokers, []events.Region{us, eu}, func(w *world) {
		source, dest := w.clusters[us], w.clusters[eu]
		w.link(us, eu)
		source.write(1)
		awaitMirrored(source, dest)
		for i := range 10 {
			source.write(7)
			for p := range int32(partitions) {
				source.do(source.MoveTopicPartition(topic, p, int32(i)%brokers))
				source.do(dest.MoveTopicPartition(mirror(us, topic), p, int32(i+1)%brokers))
			}
			source.write(7)
			time.Sleep(time.Second)
		}
		awaitMirrored(source, dest)
	})
}

// A broker that has left its cluster is not missed once nothing is led by it any
// more.
func TestBrokersLeave(t *testing.T) {
	const brokers = 3
	simulate(t, brokers, []events.Region{us, eu}, func(w *world) {
		source, dest := w.clusters[us], w.clusters[eu]
		l := w.link(us, eu)
		source.write(10)
		awaitMirrored(source, dest)
		for _, c := range []*cluster{source, dest} {
			c.do(c.RemoveNode(brokers - 1))
			c.gate.Cut()
			c.gate.Open()
			c.redial()
		}
		source.write(10)
		awaitMirrored(source, dest)
		l.awaitRunning()
		time.Sleep(10 * time.Minute)
		l.awaitRunning()
	})
}
