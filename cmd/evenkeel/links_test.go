package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/replicator"
)

const (
	here  = "us-east-1" // whose node is asked
	there = "us-west-1"
)

// kafkas writes to a lab's clusters without its nodes.
type kafkas struct {
	*testing.T
	lab *lab.Lab
}

func (k kafkas) dial(region string) *kgo.Client {
	k.Helper()
	for _, a := range k.lab.Addresses() {
		if a.Region.String() != region {
			continue
		}
		client, err := kgo.NewClient(kgo.SeedBrokers(a.Kafka), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			k.Fatal(err)
		}
		return client
	}
	k.Fatalf("the lab has no region %s", region)
	return nil
}

// produce writes records to partition 0 of a topic.
func (k kafkas) produce(region, topic string, values ...string) {
	k.Helper()
	client := k.dial(region)
	defer client.Close()
	for _, v := range values {
		r := &kgo.Record{Topic: topic, Partition: 0, Key: []byte("k"), Value: []byte(v)}
		if err := client.ProduceSync(k.Context(), r).FirstErr(); err != nil {
			k.Fatal(err)
		}
	}
}

// expire deletes the records of partition 0 before an offset.
func (k kafkas) expire(region, topic string, before int64) {
	k.Helper()
	client := k.dial(region)
	defer client.Close()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, before, -1)
	got, err := kadm.NewClient(client).DeleteRecords(k.Context(), offsets)
	if err == nil {
		err = got.Error()
	}
	if err != nil {
		k.Fatal(err)
	}
}

// await waits for partition 0 of a topic.
func (k kafkas) await(topic string, state replicator.State, end int64) {
	k.Helper()
	k.awaitPartition(topic, 0, state, end)
}

// awaitPartition waits until a partition is in a state, and its mirror ends
// somewhere.
func (k kafkas) awaitPartition(topic string, num int32, state replicator.State, end int64) {
	k.Helper()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		r := command("", "links", "show", there, topic, fmt.Sprint(num), "-o", "json")
		var d api.LinkDetails
		if err := json.Unmarshal([]byte(r.stdout), &d); err == nil && r.code == 0 {
			if p := d.Partitions[0]; p.State == state && p.MirrorEnd != nil && *p.MirrorEnd == end {
				return
			}
		}
		if time.Since(begun) > time.Minute {
			k.Fatalf("partition %d of %s is not %s with its mirror up to %d: exit %d\n%s%s", num, topic, state, end, r.code, r.stdout, r.stderr)
		}
	}
}

// awaitInterrupted waits until the link has noticed that its origin has gone.
func (k kafkas) awaitInterrupted() {
	k.Helper()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		r := command("", "links", "list", "-o", "json")
		var list api.LinkList
		if err := json.Unmarshal([]byte(r.stdout), &list); err == nil && r.code == 0 && !list.Links[0].Running {
			return
		}
		if time.Since(begun) > time.Minute {
			k.Fatalf("the link runs: exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	}
}

// The life of a link in an operator's hands: paused, behind what expires, resumed,
// meddled with, verified.
func TestLinks(t *testing.T) {
	l, err := lab.Up(t.Context(), lab.Config{Dir: t.TempDir(), Regions: []events.Region{here, there}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("EVENKEEL_SERVER", l.Addresses()[0].API)
	k := kafkas{t, l}
	k.produce(there, "session", "0", "1")
	k.await("session", replicator.Mirroring, 2)

	for _, s := range []step{
		{args: []string{"links", "list"}, stdout: []string{"us-west-1 → us-east-1", "BEHIND", "21 mirroring"}},
		{args: []string{"links", "list", "-o", "json"}, stdout: []string{`"mirroring": 21`, `"destination": "us-east-1"`, `"failing": []`}},
		{args: []string{"links", "show", there}, stdout: []string{"TASK", "groups", "off", "PARTITION", "the source's", "session", "metrics"}},
		{args: []string{"links", "show", there, "session", "0", "-o", "json"}, stdout: []string{`"mirror_end": 2`, `"identity": true`}},
		{args: []string{"links", "show", "nowhere"}, code: 5, stderr: []string{`"nowhere"`, "from us-west-1"}},
		{args: []string{"links", "show", there, "orders"}, code: 5, stderr: []string{`"orders"`, "session"}},
		{args: []string{"links", "show", there, "session", "x"}, code: 2, stderr: []string{`"x"`}},
		{args: []string{"links", "show"}, code: 2, stderr: []string{"usage: evenkeel links show ORIGIN"}},
		{args: []string{"links", "verify"}, stdout: []string{"us-west-1/session/0", "2 records compared", "same"}},
		{args: []string{"links", "verify", there, "session", "0", "-o", "json"}, stdout: []string{`"records": 2`, `"next": 2`, `"expired": 0`}},
		{args: []string{"links", "verify", there, "orders"}, code: 5},

		{args: []string{"links", "pause", there, "--task", "sleep"}, code: 2, stderr: []string{`"sleep"`}},
		{args: []string{"links", "pause", there, "--task", "data", "--topic", "session"}, code: 2, stderr: []string{"not both"}},
		{args: []string{"links", "pause", there, "--partition", "0"}, code: 2, stderr: []string{"--topic"}},
		{args: []string{"links", "pause", there, "--topic", "session", "--partition", "-1"}, code: 2},
		{args: []string{"links", "pause", there, "--topic", "session", "--partition", "0"}, stdout: []string{"topic session, partition 0 is paused"}},
		{args: []string{"links", "pause", there, "-o", "json"}, stdout: []string{`"link"`, `"paused": true`}},
		{args: []string{"links", "resume", there}, stdout: []string{"not paused any more", "1 of its partitions are still paused"}},
	} {
		s.run(t)
	}
	for p := range int32(3) {
		k.awaitPartition("session", p+1, replicator.Mirroring, 0)
	}
	for _, topic := range []string{"config", "metrics", "registry", "secrets"} {
		for p := range int32(4) {
			k.awaitPartition(topic, p, replicator.Mirroring, 0)
		}
	}
	for _, s := range []step{
		{args: []string{"links", "list"}, stdout: []string{"20 mirroring, 1 paused", "?"}},
		{args: []string{"lag"}, stdout: []string{"us-west-1/session/0", "paused by an operator", "BEHIND IN ALL: ?"}},
	} {
		s.run(t)
	}

	k.produce(there, "session", "2", "3", "4")
	k.expire(there, "session", 4)
	step{args: []string{"links", "resume", there, "--topic", "session", "--partition", "0"}}.run(t)
	k.await("session", replicator.LostRecords, 2)
	for _, s := range []step{
		{args: []string{"links", "list"}, stdout: []string{"1 lost-records", "! mirror of us-west-1, topic session, partition 0", "2 to 3"}},
		{args: []string{"links", "show", there, "session"}, stdout: []string{"lost-records", "! topic session, partition 0: offsets 2 to 3"}},
		{args: []string{"links", "pause", there, "--topic", "session"}, stdout: []string{"needs a choice", "--from"}},
		{args: []string{"links", "resume", there, "--topic", "session"}, stdout: []string{"needs a choice"}},
		{args: []string{"links", "resume", there, "--from", "retry"}, code: 2, stderr: []string{"--topic"}},
		{args: []string{"links", "resume", there, "--topic", "session", "--dry-run"}, code: 2, stderr: []string{"--from"}},
		{args: []string{"links", "resume", there, "--topic", "session", "--from", "now"}, code: 2, stderr: []string{`"now"`, "earliest"}},
		{args: []string{"links", "resume", there, "--topic", "session", "--from", "earliest", "--dry-run"},
			stdout: []string{"Nothing was changed", "2 to 3", "4 to 5", "2 offsets are skipped"}},
		{args: []string{"links", "resume", there, "--topic", "session", "--from", "3", "--dry-run"}, stdout: []string{"this choice is refused"}},
		{args: []string{"links", "resume", there, "--topic", "session", "--from", "3"}, code: 4, stderr: []string{"4 to 5"}},
		{args: []string{"links", "show", there, "session", "0"}, stdout: []string{"lost-records"}}, // nothing of all this has changed it
		{args: []string{"links", "resume", there, "--topic", "session", "--from", "earliest"}, stdout: []string{"lost-records", "evenkeel links show us-west-1 session"}},
	} {
		s.run(t)
	}
	k.await("session", replicator.Mirroring, 3)
	for _, s := range []step{
		{args: []string{"links", "resume", there, "--topic", "session", "--from", "retry"}, code: 4, stderr: []string{"nothing"}},
		{args: []string{"links", "verify", there, "session", "0"}, code: 3, stdout: []string{"1 records compared", "but for what expired"}, stderr: []string{"2 records could not be compared"}},
		{args: []string{"links", "show", there, "session", "0"}, stdout: []string{"mapped", "FROM SOURCE", "DIFFERENCE"}},
		{args: []string{"links", "show", there, "session", "0", "-o", "json"}, stdout: []string{`"identity": false`, `"runs": [`}},
	} {
		s.run(t)
	}

	k.produce(there, "config", "0")
	k.await("config", replicator.Mirroring, 1)
	k.produce(here, there+".config", "foreign")
	k.produce(there, "config", "1")
	k.await("config", replicator.ForeignWriter, 1)
	for _, s := range []step{
		{args: []string{"links", "verify", there, "config"}, code: 6, stdout: []string{"differs", "! us-west-1, topic config, partition 0: offset 1 of the mirror"},
			stderr: []string{"1 of 4 mirrors differ"}},
		{args: []string{"links", "verify", "-o", "json"}, code: 6, stdout: []string{`"mirror": 1`, `"what": "`}},
		{args: []string{"links", "resume", there, "--topic", "config", "--from", "next"}, stdout: []string{"foreign-writer"}},
	} {
		s.run(t)
	}

	if err := l.StopRegion(there); err != nil {
		t.Fatal(err)
	}
	k.awaitInterrupted()
	for _, s := range []step{
		{args: []string{"links", "list"}, stdout: []string{"interrupted", "! link from us-west-1: "}},
		{args: []string{"links", "verify"}, code: 3, stdout: []string{"0 records compared", "not tried"}, stderr: []string{"21 of 21 mirrors could not be compared"}},
	} {
		s.run(t)
	}
}

// Tables say what is not known, and keep what is long below.
func TestLinkTables(t *testing.T) {
	long := strings.Repeat("a long reason ", 40)
	origin := events.Origin{Region: there, Incarnation: 2}
	status := replicator.Status{Origin: origin, Destination: here, Error: long, Since: time.Now()}
	n := int64(1234)
	for name, c := range map[string]struct {
		write func(*bytes.Buffer) error
		has   []string
	}{
		"a link that knows nothing": {func(b *bytes.Buffer) error {
			return linksTable(b, &api.LinkList{Links: []api.LinkRow{{Status: status}}})
		}, []string{"us-west-1_2 → us-east-1", "interrupted", "0s ? ? ? ? 0 B"}},
		"a task that fails": {func(b *bytes.Buffer) error {
			return linksTable(b, &api.LinkList{Links: []api.LinkRow{{Status: status, Failing: []replicator.TaskStatus{{Task: "acls", Problems: []string{"no right"}}}}}})
		}, []string{"! acls of us-west-1_2: no right"}},
		"partitions": {func(b *bytes.Buffer) error {
			return linkTable(b, &api.LinkDetails{Details: replicator.Details{Status: status, Partitions: []replicator.PartitionStatus{
				{Topic: "t", Partition: 7, State: replicator.Waiting, Since: time.Now(), Reason: long},
				{Topic: "t", Partition: 8, State: replicator.Mirroring, Since: time.Now(), SourceNext: &n, MirrorEnd: &n},
			}}}, api.ShowLinkParams{})
		}, []string{"! link and 1 more: a long", "mapped"}},
		"a plan": {func(b *bytes.Buffer) error {
			return resumedTable(b, &api.LinkResumed{From: "latest", DryRun: true, Partitions: []api.ResumedPartition{{Topic: "t", Refused: long}}})
		}, []string{"refused: a long", "t 0 ? none ? ? ?"}},
		"a comparison": {func(b *bytes.Buffer) error {
			return verifyTable(b, []comparison{{Origin: origin, Topic: "t", Error: long}})
		}, []string{"us-west-1_2/t/0 ? ? ? ? ? ?", "0 records compared"}},
		"lag": {func(b *bytes.Buffer) error {
			return lagTables(b, &api.Lag{Links: []api.LinkLag{{Origin: origin, Topic: "t", Error: long}}}, false)
		}, []string{"us-west-1_2/t/0 ? ? ? ? ? ? ? ?", "BEHIND IN ALL: ?"}},
	} {
		var b bytes.Buffer
		if err := c.write(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range c.has {
			if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), want) {
				t.Errorf("%s: no %q in\n%s", name, want, b.String())
			}
		}
		for line := range strings.Lines(b.String()) {
			if len(line) > 200 && !strings.HasPrefix(line, "! ") {
				t.Errorf("%s: the table has a line of %d bytes: %s", name, len(line), line)
			}
		}
	}
}

// What is the same of many is said once.
func TestNotes(t *testing.T) {
	var n notes
	var b bytes.Buffer
	if err := n.write(&b); err != nil || b.Len() > 0 {
		t.Errorf("no notes are %q, %v", b.String(), err)
	}
	for _, where := range []string{"one", "two", "three"} {
		n.add(where, "away")
		n.add(where, "")
	}
	n.add("four", "late")
	n.add("", "by itself")
	if err := n.write(&b); err != nil || b.String() != "\n! one and 2 more: away\n! four: late\n! by itself\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// A difference outweighs what is not known, and that outweighs nothing.
func TestVerdict(t *testing.T) {
	n := int64(3)
	same := comparison{Next: &n, End: &n, Records: 3}
	differs := comparison{Next: &n, Difference: &replicator.Difference{}}
	unknown, expired := comparison{Error: "away"}, comparison{Next: &n, Expired: 2}
	for name, c := range map[string]struct {
		done []comparison
		kind events.Kind
	}{
		"same":                   {[]comparison{same, same}, 0},
		"one differs":            {[]comparison{same, unknown, differs, expired}, events.KindInconsistent},
		"one cannot be compared": {[]comparison{same, unknown, expired}, events.KindPartial},
		"some have expired":      {[]comparison{same, expired}, events.KindPartial},
	} {
		if err := verdict(c.done); events.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
}
