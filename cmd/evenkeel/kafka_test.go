//go:build kafka

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// acked are the writes that a node has acknowledged.
type acked struct {
	mu     sync.Mutex
	writes map[events.Position]string
}

// write reports whether the write was acknowledged.
func (a *acked) write(ctx context.Context, client *api.Client, key, value string) bool {
	res, err := client.Put(ctx, api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(value)})
	if err != nil {
		return false // it may or may not be there
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writes[res.Position] = value
	return true
}

// tally is what was counted under a few keys of the stream usage.
type tally struct {
	attempted, acked [3]atomic.Int64
	seen             [3]string // the values, as the first who was asked sees them
}

// count counts one more under the nth key.
func (c *tally) count(ctx context.Context, client *api.Client, n int) {
	n %= len(c.acked)
	c.attempted[n].Add(1)
	_, err := client.Put(ctx, api.PutParams{
		Stream: "usage", Key: fmt.Appendf(nil, "count-%d", n), Type: events.TypePatch, Value: api.Bytes(`{"increment":{"n":1}}`),
	})
	if err == nil {
		c.acked[n].Add(1)
	}
}

// check: what was acknowledged was counted, nothing twice, and all see the same.
func (c *tally) check(t *testing.T, whom string, client *api.Client) {
	t.Helper()
	for n := range c.acked {
		e, err := client.Get(t.Context(), api.GetParams{Stream: "usage", Key: fmt.Appendf(nil, "count-%d", n)})
		if err != nil {
			t.Fatalf("%s: %v", whom, err)
		}
		if c.seen[n] == "" {
			c.seen[n] = string(e.Value)
		}
		if c.seen[n] != string(e.Value) {
			t.Errorf("%s: count %d is %s, the first one sees %s", whom, n, e.Value, c.seen[n])
		}
		var fields struct{ N int64 }
		if err := json.Unmarshal(e.Value, &fields); err != nil {
			t.Fatalf("%s: %s: %v", whom, e.Value, err)
		}
		acked, attempted := c.acked[n].Load(), c.attempted[n].Load()
		t.Logf("%s: %d increments of count %d were acknowledged, %d attempted; it is %s", whom, acked, n, attempted, e.Value)
		if acked == 0 || fields.N < acked || fields.N > attempted {
			t.Errorf("%s: count %d is %s", whom, n, e.Value)
		}
	}
}

// Nodes and brokers are killed by -9 while kcat and the API write; afterwards
// nothing acknowledged is missing, nothing was counted twice, every mirror is its log, and every
// region has the same state.
func TestKafkaKills(t *testing.T) {
	d := prepareDeployment(t)
	d.usage = d.topic + "-usage"
	d.startAll()
	const kcatRecords = 3_000
	ctx, stopWriting := context.WithCancel(t.Context())
	defer stopWriting()
	var writers sync.WaitGroup
	ledger, counts := acked{writes: map[events.Position]string{}}, tally{}
	for _, r := range []events.Region{"us-west-1", "eu-central-1"} {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				ledger.write(ctx, d.clients[r], fmt.Sprintf("key-%d", n%100), fmt.Sprintf("%s-%d", r, n))
				counts.count(ctx, d.clients[r], n)
				time.Sleep(5 * time.Millisecond) // a writer's pace
			}
		})
	}
	kcatDone := make(chan error, 1)
	go func() {
		input, w := io.Pipe()
		go func() {
			for n := range kcatRecords {
				fmt.Fprintf(w, "kcat-%d\t{\"n\":%d}\n", n%200, n)
				time.Sleep(time.Millisecond) // a producer's pace: the kills are to fall into its work
			}
			w.Close()
		}()
		kcatDone <- d.kcat(t.Context(), "us-east-1", input)
	}()

	d.kill("us-west-1")
	d.start("us-west-1")
	d.broker("kill", "eu-central-1")
	d.broker("up", "eu-central-1")
	d.kill("eu-central-1")
	d.start("eu-central-1")
	d.kill("us-east-1")
	d.start("us-east-1")

	if err := <-kcatDone; err != nil {
		t.Fatal(err)
	}
	stopWriting()
	writers.Wait()
	d.settle(kcatRecords)
	records := d.checkMirrors()
	if records < kcatRecords {
		t.Errorf("the logs hold %d records, kcat alone wrote %d", records, kcatRecords)
	}
	d.checkFolded(records)
	d.checkLedger(&ledger)
	for _, r := range kafkaRegions {
		counts.check(t, r.String(), d.clients[r])
	}
}

// checkLedger looks up every acknowledged write in its log.
func (d *deployment) checkLedger(a *acked) {
	d.t.Helper()
	found := map[string]string{} // "region partition offset" → value
	for _, r := range kafkaRegions {
		out, err := exec.Command("kcat", "-C", "-e", "-q", "-b", d.kafka[r], "-t", d.topic, "-o", "beginning", "-f", "%p %o %s\n").Output()
		if err != nil {
			d.t.Fatal(err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			part := strings.SplitN(lines.Text(), " ", 3)
			found[r.String()+" "+part[0]+" "+part[1]] = part[2]
		}
	}
	for p, value := range a.writes {
		where := fmt.Sprintf("%s %d %d", p.Origin, p.Partition, p.Offset)
		if found[where] != value {
			d.t.Errorf("acknowledged at %s: %q; there is %q", p, value, found[where])
		}
	}
	d.t.Logf("%d acknowledged writes checked", len(a.writes))
	if len(a.writes) == 0 {
		d.t.Error("nothing was acknowledged")
	}
}

// A region loses its disk; the command line restores it from its bucket and the
// rest is replayed. Values that stood side by side do so again, and are resolved there for all.
func TestKafkaRestore(t *testing.T) {
	d := prepareDeployment(t)
	d.notes = d.topic + "-notes"
	d.startAll()
	const victim = events.Region("us-west-1")
	for _, r := range kafkaRegions {
		if err := d.note(r, "conflict", r.String()); err != nil {
			t.Fatalf("%s: %v", r, err)
		}
	}
	for n := range 64 {
		if err := d.note(victim, "full", fmt.Sprint(n)); err != nil {
			t.Fatalf("value %d: %v", n, err)
		}
	}
	if err := d.note(victim, "full", "one more"); events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "64 values") {
		t.Errorf("one more than there is room for: %v", err)
	}
	const notes = 3 + 64
	for n := range 50 {
		if _, code := d.evenkeel(kafkaRegions[n%3], "put", "session", fmt.Sprintf("s-%d", n), fmt.Sprintf(`{"n":%d}`, n)); code != 0 {
			t.Fatalf("put: exit %d", code)
		}
	}
	d.settle(notes + 50)
	if out, code := d.evenkeel(victim, "backup", "create"); code != 0 {
		t.Fatalf("backup: exit %d: %s", code, out)
	}
	if _, code := d.evenkeel("us-east-1", "delete", "session", "s-7"); code != 0 {
		t.Fatalf("delete: exit %d", code)
	}
	d.settle(notes + 51)
	want, err := d.clients[victim].Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	d.stop(victim)
	if _, code := d.evenkeel(victim, "restore", "run", "--config", d.configPath(victim)); code != int(events.KindRefused) {
		t.Errorf("restore over live state: exit %d, want %d", code, events.KindRefused)
	}
	if err := os.RemoveAll(d.dataDir(victim)); err != nil {
		t.Fatal(err)
	}
	out, code := d.evenkeel(victim, "restore", "run", "--config", d.configPath(victim), "-o", "json")
	var restored api.Restored
	if err := json.Unmarshal([]byte(out), &restored); code != 0 || err != nil || len(restored.States) == 0 {
		t.Fatalf("restore: exit %d, %v: %s", code, err, out)
	}
	d.start(victim)
	d.settle(notes + 51)
	got, err := d.clients[victim].Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if *got.Digest != *want.Digest || got.Shards[0].Lineage == want.Shards[0].Lineage {
		t.Errorf("digest %s, lineage %s; before %s, %s: want the same digest, another lineage",
			got.Digest, got.Shards[0].Lineage, want.Digest, want.Shards[0].Lineage)
	}
	if out, code := d.evenkeel(victim, "get", "session", "s-8"); code != 0 || out != "{\"n\":8}\n" {
		t.Errorf("get: exit %d: %q", code, out)
	}
	if _, code := d.evenkeel(victim, "get", "session", "s-7"); code != int(events.KindNotFound) {
		t.Errorf("get of a deleted key: exit %d, want %d", code, events.KindNotFound)
	}
	records := d.checkMirrors()
	d.checkFolded(records)
	values, context := d.noted(victim, "conflict")
	if want := []string{"eu-central-1", "us-east-1", "us-west-1"}; !slices.Equal(values, want) {
		t.Errorf("after the restore %v stand side by side, want %v", values, want)
	}
	if out, code := d.evenkeel(victim, "resolve", "notes", "conflict", "settled", "--context", context.String()); code != 0 {
		t.Fatalf("resolve: exit %d: %s", code, out)
	}
	d.settle(notes + 52)
	for _, r := range kafkaRegions {
		if values, _ := d.noted(r, "conflict"); !slices.Equal(values, []string{"settled"}) {
			t.Errorf("%s: resolved, and %v stand side by side", r, values)
		}
		if values, _ := d.noted(r, "full"); len(values) != 64 {
			t.Errorf("%s: %d values stand side by side, want 64", r, len(values))
		}
		if s, err := d.clients[r].Status(t.Context()); err != nil || api.Known(s.Parked) != 0 {
			t.Errorf("%s: parked %d, %v", r, api.Known(s.Parked), err)
		}
	}
}

// A record that is no event is parked with position and reason, and the others
// go on; a topic with another number of partitions is refused.
func TestKafkaBadInput(t *testing.T) {
	d := newDeployment(t)
	bad := exec.Command("kcat", "-P", "-b", d.kafka["us-east-1"], "-t", d.topic, "-p", "0", "-k", "k", "-H", "ce_id=1")
	bad.Stdin = strings.NewReader("no event\n")
	if out, err := bad.CombinedOutput(); err != nil {
		t.Fatalf("kcat: %v: %s", err, out)
	}
	if err := d.kcat(t.Context(), "us-east-1", strings.NewReader("good\tvalue\n")); err != nil {
		t.Fatal(err)
	}
	d.settle(2)
	for _, r := range kafkaRegions {
		s, err := d.clients[r].Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if api.Known(s.Parked) != 1 || len(s.Examples) != 1 || !strings.Contains(s.Examples[0].Reason, "ce_specversion") || s.Examples[0].Position.String() != "us-east-1/session/0@0" {
			t.Errorf("%s: parked %d: %v", r, api.Known(s.Parked), s.Examples)
		}
		if out, code := d.evenkeel(r, "get", "session", "good"); code != 0 || out != "value\n" {
			t.Errorf("%s: get: exit %d: %q", r, code, out)
		}
	}

	d.stop("us-east-1")
	text, err := os.ReadFile(d.configPath("us-east-1"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(d.dir, "wrong.yaml")
	if err := os.WriteFile(wrong, bytes.Replace(text, []byte("partitions: 3"), []byte("partitions: 5"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(d.binary, "run", "--config", wrong)
	c.Env = d.environ()
	out, _ := c.CombinedOutput() // the exit code is looked at below
	if c.ProcessState.ExitCode() != int(events.KindRefused) || !strings.Contains(string(out), d.topic+" of us-east-1 has 3 partitions, the configuration says 5") {
		t.Errorf("exit %d: %s", c.ProcessState.ExitCode(), out)
	}
}

// Retention takes all of a log that ends with a transaction, while the node is down: it lacks nothing, and what follows is
// folded everywhere.
func TestKafkaEmptied(t *testing.T) {
	d := newDeployment(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(d.kafka["us-east-1"]), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(d.topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	write := func(key string) {
		t.Helper()
		record := &kgo.Record{Topic: d.topic, Key: []byte(key), Value: []byte("v")}
		if err := errors.Join(client.BeginTransaction(), client.ProduceSync(t.Context(), record).FirstErr(), client.EndTransaction(t.Context(), kgo.TryCommit)); err != nil {
			t.Fatal(err)
		}
	}
	write("before")
	d.settle(1)
	const end = 2 // behind the marker
	d.await("the end of the log read", func() error {
		lag, err := d.clients["us-east-1"].Lag(t.Context())
		if err != nil {
			return err
		}
		for _, row := range lag.Folds {
			if row.Log.Origin.Region == "us-east-1" && row.Log.Partition == 0 && api.Known(row.Next) == end {
				return nil
			}
		}
		return fmt.Errorf("%+v", lag.Folds)
	})
	d.stop("us-east-1")
	all := kadm.Offsets{}
	all.AddOffset(d.topic, 0, end, -1)
	if _, err := kadm.NewClient(client).DeleteRecords(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	d.start("us-east-1")
	write("behind")
	d.settle(2)
	for _, r := range kafkaRegions {
		for _, key := range []string{"before", "behind"} {
			if out, code := d.evenkeel(r, "get", "session", key); code != 0 || out != "v\n" {
				t.Errorf("%s: get %s: exit %d: %q", r, key, code, out)
			}
		}
	}
}
