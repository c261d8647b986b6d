//go:build kafka

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/divergence"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// rounds is how many regions are lost one after the other; LOST_ROUNDS=10 for more.
// The seed of the first is LOST_SEED, or 1.
func rounds(t *testing.T) (seeds []uint64) {
	t.Helper()
	number := func(name string, otherwise uint64) uint64 {
		if os.Getenv(name) == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(os.Getenv(name), 10, 32)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	first := number("LOST_SEED", 1)
	for i := range number("LOST_ROUNDS", 1) {
		seeds = append(seeds, first+i)
	}
	return seeds
}

// journal is what independent producers were told: each record, as kcat prints it, at its
// place, and when it was acknowledged.
type journal struct {
	mu      sync.Mutex
	written map[events.Position]entry
	number  int
}

type entry struct {
	line  string
	acked time.Time
}

// next is a record that nobody else writes: its number is in a header.
func (j *journal) next(topic string) *kgo.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.number++
	r := &kgo.Record{
		Topic: topic, Key: fmt.Appendf(nil, "key-%d", j.number*7%300), Value: fmt.Appendf(nil, `{"n":%d}`, j.number),
		Headers: []kgo.RecordHeader{{Key: "n", Value: fmt.Append(nil, j.number)}}, Timestamp: time.Now().Truncate(time.Millisecond),
	}
	if j.number%11 == 0 {
		r.Value = nil
	}
	return r
}

func (j *journal) ack(region events.Region, r *kgo.Record) {
	size := len(r.Value)
	if r.Value == nil {
		size = -1 // so says kcat
	}
	line := fmt.Sprintf("%d %d %d %d:%s %d:%s n=%s", r.Partition, r.Offset, r.Timestamp.UnixMilli(), len(r.Key), r.Key, size, r.Value, r.Headers[0].Value)
	log := events.Log{Origin: events.FirstOrigin(region), Stream: "session", Partition: r.Partition}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.written[events.Position{Log: log, Offset: r.Offset}] = entry{line, time.Now()}
}

// writer writes into a region's log until it is ended, as any client may.
type writer struct {
	stop  context.CancelFunc
	ended chan struct{}
}

func (d *deployment) write(region events.Region, j *journal) *writer {
	d.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(d.kafka[region]), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0))
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &writer{stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		defer client.Close() // what is not acknowledged by then never is
		for ctx.Err() == nil {
			client.TryProduce(ctx, j.next(d.topic), func(r *kgo.Record, err error) {
				if err == nil {
					j.ack(region, r)
				}
			})
			time.Sleep(4 * time.Millisecond) // a writer's pace
		}
	}()
	return w
}

func (w *writer) end() {
	w.stop()
	<-w.ended
}

// lostRegion is a round of TestKafkaRegionLost.
type lostRegion struct {
	*deployment
	rng     *rand.Rand
	victim  events.Region
	others  []events.Region
	journal *journal
	writers map[events.Region]*writer
	lost    time.Time
	paused  events.Region // whose link from the victim was paused before; empty: none
	safe    events.Vector // up to where other regions or the bucket have the victim's log
}

// A region's disk and its Kafka are deleted under load. What was acknowledged and came
// into the bucket, or into the mirror of any other region, is back in the log, once and at its offset; what is not back was
// acknowledged just before, and the report says from where on. Then all regions hold
// the same again, and all proofs pass.
func TestKafkaRegionLost(t *testing.T) {
	d := prepareDeployment(t)
	// Of the topics of other tests the region that is lost would not get any back, and links
	// that know them would ask for them.
	d.broker("clean")
	d.broker("up")
	d.backup = "schedule: {segment: 1s, delta: 30s, drill: 0s}"
	d.startAll()
	j := &journal{written: map[events.Position]entry{}}
	writers := d.writeEverywhere(j)
	defer func() {
		for _, w := range writers {
			w.end()
		}
	}()
	for _, r := range kafkaRegions {
		if out, code := d.evenkeel(r, "backup", "create"); code != 0 {
			t.Fatalf("backup: exit %d: %s", code, out)
		}
	}
	d.awaitMirrors()
	for _, seed := range rounds(t) {
		rng := rand.New(rand.NewPCG(seed, seed))
		l := &lostRegion{deployment: d, rng: rng, victim: kafkaRegions[rng.IntN(3)], journal: j, writers: writers}
		for _, r := range kafkaRegions {
			if r != l.victim {
				l.others = append(l.others, r)
			}
		}
		t.Logf("seed %d: %s is lost", seed, l.victim)
		l.round()
		if t.Failed() {
			t.Fatalf("again: LOST_SEED=%d LOST_ROUNDS=1 make test-kafka", seed)
		}
	}
}

// awaitMirrors waits until every link mirrors all topics of its origin: what it has never mirrored it does not know again
// either, and takes a topic that was made anew for the one that there always was.
func (d *deployment) awaitMirrors() {
	d.t.Helper()
	for _, r := range kafkaRegions {
		for _, origin := range kafkaRegions {
			if origin == r {
				continue
			}
			for topic, partitions := range map[string]int{d.topic: kafkaPartitions, divergence.Topic: 1} {
				d.await(topic+" of "+origin.String()+" mirrored by "+r.String(), func() error {
					link, err := d.clients[r].ShowLink(d.t.Context(), api.ShowLinkParams{Origin: origin.String(), Topic: topic})
					if err != nil {
						return err
					}
					n := 0
					for _, p := range link.Partitions {
						if p.State == replicator.Mirroring {
							n++
						}
					}
					if n < partitions {
						return fmt.Errorf("%d partitions are mirrored: %s", n, link.Error)
					}
					return nil
				})
			}
		}
	}
}

func (l *lostRegion) round() {
	l.awaitDelta()
	l.isolate()
	l.lose()
	l.lookAround()
	refilled := l.bringBack()
	l.checkLog(refilled)
	l.start(l.victim)
	l.goOn()
	l.writers[l.victim] = l.write(l.victim, l.journal)
	l.checkAll()
}

// awaitDelta waits until the newest backup of the victim is a delta.
func (l *lostRegion) awaitDelta() {
	l.t.Helper()
	l.await("a delta", func() error {
		out, code := l.evenkeel(l.victim, "backup", "list", "-o", "json")
		var list api.BackupList
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
			return fmt.Errorf("exit %d: %w", code, err)
		}
		if n := len(list.Backups); n == 0 || list.Backups[n-1].Kind != format.Delta {
			return fmt.Errorf("%d backups, and the newest is none", n)
		}
		return nil
	})
}

// isolate cuts one of the others off from the victim, some time before it is lost, or none: they have different
// ends of its log, and what it archives is one of these or none.
func (l *lostRegion) isolate() {
	l.t.Helper()
	l.paused = ""
	if l.rng.IntN(4) > 0 {
		l.paused = l.others[l.rng.IntN(len(l.others))]
		l.mustRun(l.paused, "links", "pause", l.victim.String())
	}
	time.Sleep(time.Duration(l.rng.IntN(2_500)) * time.Millisecond)
}

// lookAround finds out, of the victim, which is lost, what of its log others have.
func (l *lostRegion) lookAround() {
	l.t.Helper()
	out, code := l.evenkeel(l.victim, "backup", "list", "--config", l.configPath(l.victim), "-o", "json")
	var list api.BackupList
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		l.t.Fatalf("backup list: exit %d: %v: %s", code, err, out)
	}
	archived := events.Vector{}
	for _, a := range list.Archive {
		for _, end := range a.Ends {
			if end.Log.Origin.Region == l.victim {
				archived[end.Log] = end.Next
			}
		}
	}
	mirrored := events.Vector{}
	l.await("mirrors at rest", func() error {
		now := events.Vector{}
		for _, r := range l.others {
			now = now.Join(l.mirrorEnds(r))
		}
		if before := mirrored; now.Compare(before) != events.Equal {
			mirrored = now
			return fmt.Errorf("%s, before %s", now, before)
		}
		return nil
	})
	l.safe = archived.Join(mirrored)
	l.t.Logf("archived up to %s, mirrored up to %s", archived, mirrored)
}

// mirrorEnds are the ends of a region's mirror of the victim's log.
func (l *lostRegion) mirrorEnds(r events.Region) events.Vector {
	l.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(l.kafka[r]))
	if err != nil {
		l.t.Fatal(err)
	}
	defer client.Close()
	mirror := events.FirstOrigin(l.victim).MirrorTopic(l.topic)
	listed, err := kadm.NewClient(client).ListEndOffsets(l.t.Context(), mirror)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	ends := events.Vector{}
	for p := range int32(kafkaPartitions) {
		end, _ := listed.Lookup(mirror, p)
		ends[l.log(p)] = end.Offset
	}
	return ends
}

// lose kills the victim's node and its Kafka, and deletes all that they had.
func (l *lostRegion) lose() {
	l.t.Helper()
	l.lost = time.Now()
	kills := []func(){func() { l.kill(l.victim) }, func() { l.broker("kill", l.victim.String()) }}
	l.rng.Shuffle(len(kills), func(i, k int) { kills[i], kills[k] = kills[k], kills[i] })
	for _, kill := range kills {
		kill()
	}
	l.writers[l.victim].end() // before there is a Kafka again that it could write to
	l.broker("clean", l.victim.String())
	if err := os.RemoveAll(l.dataDir(l.victim)); err != nil {
		l.t.Fatal(err)
	}
}

// bringBack restores what is in the bucket: the log, which is killed once meanwhile, and the state.
func (l *lostRegion) bringBack() *api.Refilled {
	l.t.Helper()
	l.broker("up", l.victim.String())
	kafka := []string{"restore", "kafka", "--config", l.configPath(l.victim), "-o", "json"}
	out, code := l.killed(time.Duration(300+l.rng.IntN(1_200))*time.Millisecond, kafka...)
	if code != 0 {
		out, code = l.evenkeel(l.victim, kafka...)
	}
	var refilled api.Refilled
	if err := json.Unmarshal([]byte(out), &refilled); code != 0 || err != nil {
		l.t.Fatalf("restore kafka: exit %d, %v: %s", code, err, out)
	}
	out, code = l.evenkeel(l.victim, "restore", "run", "--config", l.configPath(l.victim), "-o", "json")
	var restored api.Restored
	if err := json.Unmarshal([]byte(out), &restored); code != 0 || err != nil {
		l.t.Fatalf("restore run: exit %d, %v: %s", code, err, out)
	}
	for log, next := range restored.Vector {
		if log.Origin.Region == l.victim && next > refilled.Vector[log] {
			l.t.Errorf("the state is at %d of %s, which has come back up to %d", next, log, refilled.Vector[log])
		}
	}
	l.mustRun(l.victim, "restore", "proof", restored.Dir)
	l.t.Logf("restored from %s, %d records folded from segments (writing back was resumed: %t); %q", restored.Backup, restored.Replayed.Records, refilled.Resumed, restored.Lacks)
	return &refilled
}

// killed runs a command and kills it after a while, unless it has ended before.
func (d *deployment) killed(after time.Duration, args ...string) (stdout string, code int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), after)
	defer cancel()
	c := exec.CommandContext(ctx, d.binary, args...) // ends it by SIGKILL
	c.Env = d.environ()
	out, err := c.Output()
	if err != nil {
		return "", -1
	}
	return string(out), 0
}

// quietly runs a command whose complaints are no news.
func (d *deployment) quietly(r events.Region, args ...string) (output string, code int) {
	c := exec.Command(d.binary, append([]string{"--server", d.url(r)}, args...)...)
	c.Env = d.environ()
	out, _ := c.CombinedOutput() // the exit code says it
	return string(out), c.ProcessState.ExitCode()
}

// mustRun runs a command that has to succeed.
func (d *deployment) mustRun(r events.Region, args ...string) string {
	d.t.Helper()
	out, code := d.evenkeel(r, args...)
	if code != 0 {
		d.t.Fatalf("evenkeel %v: exit %d: %s", args, code, out)
	}
	return out
}

// rpoMost is how long before the loss something may have been acknowledged that is not back: the
// archive itself tells of anything that waits longer.
const rpoMost = 31 * time.Second

// checkLog compares the victim's log with what its writer was told.
func (l *lostRegion) checkLog(refilled *api.Refilled) {
	l.t.Helper()
	log := map[events.Position]string{}
	numbers := map[string]bool{}
	for _, line := range l.consume(l.victim, l.topic) {
		parts := strings.SplitN(line, " ", 3)
		p, _ := strconv.Atoi(parts[0])
		offset, _ := strconv.ParseInt(parts[1], 10, 64)
		log[events.Position{Log: l.log(int32(p)), Offset: offset}] = line
		if n := line[strings.LastIndex(line, " ")+1:]; strings.HasPrefix(n, "n=") {
			if numbers[n] {
				l.t.Errorf("record %s is in the log twice", n)
			}
			numbers[n] = true
		}
	}
	total := int64(0)
	for _, r := range refilled.Logs {
		total += r.Records
		if !r.Same || r.Next != r.Records {
			l.t.Errorf("%s: not at the same offsets: %+v", r.Log, r)
		}
	}
	if int64(len(log)) != total {
		l.t.Errorf("the log has %d records, %d were written back", len(log), total)
	}
	if refilled.Vector.Compare(l.safe) != events.Equal {
		l.t.Errorf("the log is back up to %s; the bucket and other regions have it up to %s", refilled.Vector, l.safe)
	}
	l.compare(log, refilled.Vector)
}

// compare looks up what was acknowledged in the log as it came back.
func (l *lostRegion) compare(log map[events.Position]string, back events.Vector) {
	l.t.Helper()
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	here, gone, longest := 0, []string{}, time.Duration(0)
	for p, e := range l.journal.written {
		switch got, there := log[p]; {
		case p.Origin.Region != l.victim:
			continue
		case there && got != e.line:
			l.t.Errorf("%s: %q was acknowledged, there is %q", p, e.line, got)
		case there:
			here++
		case p.Offset < back[p.Log]:
			l.t.Errorf("%s is lost, and is said to be back", p)
		case p.Offset < l.safe[p.Log]:
			l.t.Errorf("%s is lost, and was archived or mirrored", p)
		default:
			gone = append(gone, p.String())
			longest = max(longest, l.lost.Sub(e.acked))
			delete(l.journal.written, p) // its offset will be another's
		}
	}
	l.t.Logf("%d acknowledged records are back; %d are lost, acknowledged at most %s before the region was lost: %.300q", here, len(gone), longest.Round(time.Millisecond), gone)
	if here == 0 {
		l.t.Error("nothing that was acknowledged is back")
	}
	if longest > rpoMost {
		l.t.Errorf("something is lost that was acknowledged %s before the region was", longest)
	}
}

func (l *lostRegion) log(partition int32) events.Log {
	return events.Log{Origin: events.FirstOrigin(l.victim), Stream: "session", Partition: partition}
}

// goOn lets the others' links go on with topics that were made anew: the log, which is the
// same again, and the attestations, which are others.
func (l *lostRegion) goOn() {
	l.t.Helper()
	for _, r := range l.others {
		if r == l.paused {
			l.mustRun(r, "links", "resume", l.victim.String())
		}
		for topic, from := range map[string]string{l.topic: "same", divergence.Topic: "earliest"} {
			l.await(topic+" stands still in "+r.String(), func() error {
				d, err := l.clients[r].ShowLink(l.t.Context(), api.ShowLinkParams{Origin: l.victim.String(), Topic: topic})
				if err != nil {
					return err
				}
				for _, p := range d.Partitions {
					if p.State != replicator.SourceRecreated {
						return fmt.Errorf("partition %d is %s for %s: %s (link is running: %t, for %s: %s)",
							p.Partition, p.State, time.Since(p.Since), p.Reason, d.Running, time.Since(d.Since), d.Error)
					}
				}
				return nil
			})
			l.mustRun(r, "links", "resume", l.victim.String(), "--topic", topic, "--from", from)
		}
	}
}

// checkAll checks, with nobody writing, that all regions hold the same.
func (l *lostRegion) checkAll() {
	l.t.Helper()
	time.Sleep(time.Second) // of writes into all regions
	for _, r := range kafkaRegions {
		l.writers[r].end()
	}
	l.settle(0)
	l.checkMirrors()
	for _, r := range kafkaRegions {
		for _, origin := range kafkaRegions {
			if origin != r {
				l.mustRun(r, "links", "verify", origin.String(), l.topic)
			}
		}
	}
	l.await("all regions consistent", func() error {
		if out, code := l.quietly(l.victim, "check"); code != 0 {
			return fmt.Errorf("exit %d: %s", code, out)
		}
		return nil
	})
	l.checkJournal()
	for _, r := range kafkaRegions {
		l.writers[r] = l.write(r, l.journal)
	}
}

// checkJournal looks up every acknowledged record of all regions.
func (l *lostRegion) checkJournal() {
	l.t.Helper()
	found := map[events.Position]string{}
	for _, r := range kafkaRegions {
		for _, line := range l.consume(r, l.topic) {
			var p int32
			var offset int64
			if _, err := fmt.Sscanf(line, "%d %d", &p, &offset); err != nil {
				l.t.Fatalf("kcat printed %q", line)
			}
			found[events.Position{Log: events.Log{Origin: events.FirstOrigin(r), Stream: "session", Partition: p}, Offset: offset}] = line
		}
	}
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	for p, e := range l.journal.written {
		if found[p] != e.line {
			l.t.Errorf("%s: %q was acknowledged, there is %q", p, e.line, found[p])
		}
	}
	l.t.Logf("%d records in all logs, %d acknowledged to their writers", len(found), len(l.journal.written))
}
