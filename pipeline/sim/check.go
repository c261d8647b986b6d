package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// ledger is what was acknowledged to writers.
type ledger struct {
	mu     sync.Mutex
	acked  map[events.Position]entry
	counts map[string]counted // by key
}

type entry struct{ key, value string }

func (l *ledger) add(p events.Position, key, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked == nil {
		l.acked = map[events.Position]entry{}
	}
	l.acked[p] = entry{key, value}
}

// Acked is the number of acknowledged writes.
func (w *World) Acked() int {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	return len(w.ledger.acked)
}

// calmFor is how long no shard may have moved until none will: a group takes notice of who is gone after ten seconds, and
// shares out anew what that one had.
const calmFor = 30 * time.Second

// Settle waits until every region has folded every log to its end, restores no shard (one that is restored
// goes back first), and moves none any more. All regions must be up and nobody may write.
func (w *World) Settle() {
	w.t.Helper()
	w.settle()
	for owners := w.owners(); ; {
		time.Sleep(calmFor)
		w.settle()
		now := w.owners()
		if maps.Equal(now, owners) {
			return
		}
		owners = now
	}
}

// owners are the epochs under which shards are open, by node and shard.
func (w *World) owners() map[string]events.Epoch {
	w.t.Helper()
	owners := map[string]events.Epoch{}
	for _, r := range w.Regions {
		for _, n := range r.Nodes {
			if !n.Up() {
				continue
			}
			s, err := n.Own()
			if err != nil {
				w.t.Fatal(err)
			}
			for _, row := range s.Shards {
				owners[fmt.Sprintf("%s shard %d", n, row.Partition)] = row.Epoch
			}
		}
	}
	return owners
}

func (w *World) settle() {
	w.t.Helper()
	logs := w.readLogs()
	for _, r := range w.Regions {
		r.await("settled", func() error {
			s, err := r.Node().Status(context.Background())
			if err != nil {
				return err
			}
			for _, shard := range s.Shards {
				if at := shard.Restoring; at != nil && at.Step != api.RestoreFailed {
					return fmt.Errorf("shard %d is being restored", shard.Partition)
				}
			}
			vector := s.Vector()
			for log, records := range logs {
				if next := vector[log]; next != int64(len(records)) {
					return fmt.Errorf("%s is folded up to %d of %d; problems: %v", log, next, len(records), s.Problems)
				}
			}
			return nil
		})
		r.await("settled on owners", func() error { return w.checkOwnersOf(r) })
	}
}

// Check runs every checker on a settled world.
func (w *World) Check() {
	w.t.Helper()
	logs := w.readLogs()
	for _, err := range []error{w.checkAcked(logs), w.checkMirrors(logs), w.checkStates(logs), w.checkViews(logs), w.checkOwners(), w.checkNoDivergence(), w.checkArchives(logs)} {
		if err != nil {
			w.t.Error(err)
		}
	}
}

// checkAcked: everything acknowledged stands where the writer was told, and something was in
// every stream.
func (w *World) checkAcked(logs map[events.Log][]*kgo.Record) error {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	if w.shape.AllRules {
		silent := w.streams()
		for p := range w.ledger.acked {
			delete(silent, p.Stream)
		}
		if len(silent) > 0 {
			return fmt.Errorf("nothing was acknowledged in streams %v: the scenario tests too little", silent)
		}
	}
	for p, e := range w.ledger.acked {
		records := logs[p.Log]
		if p.Offset >= int64(len(records)) {
			return fmt.Errorf("lost: %s (key %s) was acknowledged; its log ends at %d", p, e.key, len(records))
		}
		if r := records[p.Offset]; string(r.Key) != e.key || string(r.Value) != e.value {
			return fmt.Errorf("%s was acknowledged with key %q, value %q; there is key %q, value %q", p, e.key, e.value, r.Key, r.Value)
		}
	}
	return nil
}

// checkMirrors: every mirror is its log, record for record.
func (w *World) checkMirrors(logs map[events.Log][]*kgo.Record) error {
	for _, r := range w.Regions {
		for log, want := range logs {
			if log.Origin.Region == r.Name {
				continue
			}
			got := w.readTopic(r, log.Origin.MirrorTopic(string(log.Stream)), log.Partition)
			if len(got) != len(want) {
				return fmt.Errorf("%s: mirror of %s has %d records, the log %d", r.Name, log, len(got), len(want))
			}
			for i := range got {
				if err := sameRecord(want[i], got[i]); err != nil {
					return fmt.Errorf("%s: mirror of %s, offset %d: %w", r.Name, log, i, err)
				}
			}
		}
	}
	return nil
}

func sameRecord(want, got *kgo.Record) error {
	same := want.Offset == got.Offset && bytes.Equal(want.Key, got.Key) && bytes.Equal(want.Value, got.Value) &&
		(want.Value == nil) == (got.Value == nil) && want.Timestamp.Equal(got.Timestamp) && len(want.Headers) == len(got.Headers)
	for i := 0; same && i < len(want.Headers); i++ {
		same = want.Headers[i].Key == got.Headers[i].Key && bytes.Equal(want.Headers[i].Value, got.Headers[i].Value)
	}
	if !same {
		return errors.New("the records differ")
	}
	return nil
}

// checkStates: every record was folded exactly once, and regions at the same
// vector have the same digest.
func (w *World) checkStates(logs map[events.Log][]*kgo.Record) error {
	total := 0
	for _, records := range logs {
		total += len(records)
	}
	var first *api.Status
	for _, r := range w.Regions {
		s, err := r.Node().Status(context.Background())
		if err != nil {
			return err
		}
		if api.Known(s.Events) != int64(total) || *s.Parked != 0 {
			return fmt.Errorf("%s has folded %d events, there are %d; problems %v", r.Name, api.Known(s.Events), total, s.Problems)
		}
		if first == nil {
			first = s
		}
		if s.Vector().Compare(first.Vector()) == events.Equal && *s.Digest != *first.Digest {
			return fmt.Errorf("%s and %s stand at the same vector with digests %s and %s", first.Region, s.Region, first.Digest, s.Digest)
		}
	}
	return nil
}

// checkNoDivergence: whatever happened, no region has found a divergence, and
// every region comes to compare every log.
func (w *World) checkNoDivergence() error {
	for _, r := range w.Regions {
		r.await("consistent", func() error {
			findings, err := r.findings()
			if err != nil {
				return err
			}
			for _, f := range findings {
				if f.Result == divergence.Diverged {
					w.t.Fatal(f.Describe(r.Name))
				}
				if f.Result != divergence.Consistent {
					return errors.New(f.Describe(r.Name))
				}
			}
			return nil
		})
		for _, n := range r.Nodes {
			if found := n.found(); found > 0 {
				return fmt.Errorf("%s has found %d divergences", n, found)
			}
		}
	}
	return nil
}

// findings is what a region says of every log.
func (r *Region) findings() ([]divergence.Finding, error) {
	c, err := r.Node().Check(context.Background(), api.CheckParams{})
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	return c.Logs, nil
}

// found is how many divergences a node has found, whether or not they are over.
func (n *Node) found() int { return int(n.Metric("evenkeel_divergences_found_total", nil)) }

// Metric is the sum of what a node shows under a name, of the series with all of some labels; 0
// of a node that does not run.
func (n *Node) Metric(name string, labels map[string]string) (total float64) {
	if !n.Up() {
		return 0
	}
	families, err := n.node.Metrics().Gather()
	if err != nil {
		n.region.world.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			has := 0
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want == l.GetValue() {
					has++
				}
			}
			if has == len(labels) {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue() // one of them is there
			}
		}
	}
	return total
}

// checkViews: every reader sees what the logs mean, whichever node of whichever region is
// asked: values, siblings, fields and counts.
func (w *World) checkViews(logs map[events.Log][]*kgo.Record) error {
	want, err := w.meaning(logs)
	if err != nil {
		return err
	}
	for _, r := range w.Regions {
		for _, n := range r.Nodes {
			if !n.Up() {
				continue
			}
			for stream := range want {
				got, err := n.view(stream)
				if err == nil {
					err = got.is(want[stream])
				}
				if err == nil && stream == usage {
					err = w.ledger.checkCounts(got)
				}
				if err != nil {
					return fmt.Errorf("%s, stream %s: %w", n, stream, err)
				}
			}
		}
	}
	return nil
}

func (n *Node) view(stream events.Stream) (view, error) {
	page, err := n.node.Scan(context.Background(), api.ScanParams{Stream: stream, Limit: api.MaxScanEntries})
	if err != nil || page.More {
		return nil, fmt.Errorf("scan: %w, more: %v", err, page != nil && page.More)
	}
	v := view{}
	for _, e := range page.Entries {
		v[string(e.Key)] = e
	}
	return v, nil
}

// checkOwners: every shard is open on one node of its region, the one whose claim is
// the newest, under that claim's epoch; and epochs have only grown.
func (w *World) checkOwners() error {
	for _, r := range w.Regions {
		if err := w.checkOwnersOf(r); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) checkOwnersOf(r *Region) error {
	owners := map[int32]events.Epoch{}
	for _, n := range r.Nodes {
		if !n.Up() {
			continue
		}
		s, err := n.Own()
		if err != nil {
			return err
		}
		for _, row := range s.Shards {
			if _, twice := owners[row.Partition]; twice || row.State != "open" {
				return fmt.Errorf("%s: shard %d is %s, twice %v", n, row.Partition, row.State, twice)
			}
			owners[row.Partition] = row.Epoch
		}
	}
	for p := range int32(partitions) {
		newest := events.Epoch(0)
		for _, record := range w.readTopic(r, "evenkeel.shards", p) {
			if string(record.Key) == strconv.Itoa(int(p)) {
				var claim struct{ Floor events.Epoch }
				if err := json.Unmarshal(record.Value, &claim); err != nil {
					return fmt.Errorf("%s: claim of shard %d: %w", r.Name, p, err)
				}
				newest = claim.Floor + events.Epoch(record.Offset) + 1
			}
		}
		if owners[p] != newest || newest == 0 {
			return fmt.Errorf("%s: shard %d is open under epoch %s, the newest claim has %s", r.Name, p, owners[p], newest)
		}
	}
	return nil
}

// readLogs reads every log at its origin.
func (w *World) readLogs() map[events.Log][]*kgo.Record {
	w.t.Helper()
	if w.written != nil {
		return w.written
	}
	logs := map[events.Log][]*kgo.Record{}
	for _, r := range w.Regions {
		for _, stream := range w.Streams() {
			for p := range int32(partitions) {
				log := events.Log{Origin: events.FirstOrigin(r.Name), Stream: stream, Partition: p}
				logs[log] = w.readTopic(r, stream.String(), p)
			}
		}
	}
	return logs
}

// readTopic reads a partition from the beginning to the end with a client that
// has nothing to do with the pipeline.
func (w *World) readTopic(r *Region, topic string, partition int32) (records []*kgo.Record) {
	w.t.Helper()
	ctx := context.Background()
	client, err := r.dial(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(0)}}))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		w.t.Fatalf("%s, topic %s: %v", r.Name, topic, err)
	}
	end, _ := ends.Lookup(topic, partition)
	for int64(len(records)) < end.Offset {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("%s, topic %s: %v", r.Name, topic, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}
