//go:build kafka

package kafkatest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/evenkeel/evenkeel/replicator"
)

// A broker forgets a producer after a day of silence, and closes connections
// after ten minutes. Here it is seconds, in the same order: no connection outlives
// what the broker remembers.
var forgetfulOverrides = []string{
	"producer.id.expiration.ms=4500", "producer.id.expiration.check.interval.ms=200", "connections.max.idle.ms=1500",
}

// forgetfulWorld is a world whose destination is a broker that forgets soon.
func forgetfulWorld(t *testing.T, overrides ...string) *world {
	t.Helper()
	region := forgetfulRegion.String()
	kafka(t, nil, "down", region)
	kafka(t, []string{"JAVA_HOME=" + javaWith(t, overrides)}, "up", region)
	t.Cleanup(func() {
		kafka(t, nil, "down", region)
		bringUp(t, region)
	})
	w := plainWorld(t)
	w.dest = newCluster(t, forgetfulRegion)
	return w
}

// javaWith makes a home of Java whose java starts brokers with some settings
// besides those of their file.
func javaWith(t *testing.T, overrides []string) string {
	t.Helper()
	java, err := exec.LookPath("java")
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java, err = filepath.Join(home, "bin", "java"), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *' kafka.Kafka '*) set -- \"$@\" --override %s;; esac\nexec %q \"$@\"\n",
		strings.Join(overrides, " --override "), java)
	if err := os.WriteFile(filepath.Join(home, "bin", "java"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return home
}

// awaitForgotten waits until the destination remembers no producer of any
// partition of the mirror.
func (w *world) awaitForgotten() {
	w.Helper()
	w.await("the broker has forgotten the link's producers", patience, func() error {
		set := kadm.TopicsSet{}
		set.Add(w.mirror(), 0, 1, 2)
		described, err := w.dest.admin.DescribeProducers(w.dest.ctx(), set)
		if err != nil {
			return err
		}
		for num, p := range described[w.mirror()].Partitions {
			if p.Err != nil || len(p.ActiveProducers) > 0 {
				return fmt.Errorf("partition %d: %v, %+v", num, p.Err, p.ActiveProducers)
			}
		}
		return nil
	})
}

// A destination that has forgotten the link's producer takes any sequence. The
// link looks where the mirror ends before it writes: nothing is lost or doubled
// whether it idled, was away, slept while another instance was at work, or found its
// mirror emptied.
func TestForgottenProducer(t *testing.T) {
	w := forgetfulWorld(t, forgetfulOverrides...)
	w.source.writeAll(w.topic, 20)
	first := w.spawn()
	first.awaitMirroring()
	all := func() {
		t.Helper()
		ends := w.source.ends(w.topic)
		w.await("all is mirrored", patience, func() error { return w.mirrored(ends) })
	}
	all()

	t.Log("the link idles")
	w.awaitForgotten()
	w.source.writeAll(w.topic, 20)
	all()
	w.sameOffsets()

	t.Log("the link sleeps while another instance is at work")
	first.freeze()
	second := w.spawn()
	second.awaitMirroring()
	w.source.writeAll(w.topic, 20)
	all()
	w.awaitForgotten()
	first.thaw()
	w.source.writeAll(w.topic, 20)
	all()
	w.sameOffsets()

	t.Log("the link sleeps with records on their way, which another instance mirrors")
	first.freeze()
	w.source.writeAll(w.topic, 20)
	all()
	w.awaitForgotten()
	first.thaw()
	first.awaitMirroring()
	w.source.writeAll(w.topic, 20)
	all()
	w.sameOffsets()
	second.kill()

	t.Log("the mirror is emptied, and its producers are forgotten")
	want := w.source.read(w.topic)
	for num := range int32(partitions) {
		w.dest.expire(w.mirror(), num, -1)
	}
	w.awaitForgotten()
	w.source.writeAll(w.topic, 20)
	all()
	log := w.source.read(w.topic)
	for num := range log {
		log[num] = log[num][len(want[num]):]
	}
	same(t, log, w.dest.read(w.mirror()), true)

	t.Log("a new process")
	first.kill()
	w.awaitForgotten()
	w.source.writeAll(w.topic, 20)
	third := w.spawn()
	all()
	third.awaitMirroring()
	log = w.source.read(w.topic)
	for num := range log {
		log[num] = log[num][len(want[num]):]
	}
	same(t, log, w.dest.read(w.mirror()), true)
	if d, _ := third.details(); len(d.Stopped) > 0 {
		t.Errorf("the link has stopped: %v", d.Stopped)
	}
}

// Of old records a broker forgets who has written them at each of its checks (of
// which there is one in ten minutes, here five in a second), while the link's connection
// lives on. A batch that it refuses then leaves its place to none that is behind it.
func TestForgottenWithOldRecords(t *testing.T) {
	w := forgetfulWorld(t, "producer.id.expiration.check.interval.ms=200")
	w.source.configure(w.topic, "max.message.bytes", "50000")
	l := w.start(func(cfg *replicator.Config) { cfg.RateBytesPerSecond = 50_000 }) // so that batches come several at once
	w.writeOld(0, 1)
	l.awaitMirrored()
	w.dest.do(l.SetPause(w.dest.ctx(), string(replicator.TaskTopics), true))
	t.Cleanup(func() { w.dest.do(l.SetPause(w.dest.ctx(), string(replicator.TaskTopics), false)) }) // other tests' links have the same name
	w.source.configure(w.topic, "max.message.bytes", "500000")                                      // which the mirror does not follow now
	for num := range int32(partitions) {
		w.writeOld(num, 1)
		l.awaitMirrored(num)
		w.awaitForgotten()
		w.writeOld(num, 1, 1, 1, 1, 1) // the link takes a second for these
		w.writeOld(num, 10, 1, 1)
		l.awaitMirrored(num)
		w.sameOffsets()
	}
}

// writeOld produces batches of so many records of 10 KB, which are two days old.
func (w *world) writeOld(num int32, batches ...int) {
	w.Helper()
	for _, n := range batches {
		records := w.source.records(w.topic, num, n)
		for _, r := range records {
			r.Timestamp = time.Now().Add(-48 * time.Hour)
			random := make([]byte, 5_000)
			_, _ = rand.Read(random) // never fails, by its contract
			r.Value = hex.AppendEncode(nil, random)
		}
		w.source.do(w.source.client.ProduceSync(w.source.ctx(), records...).FirstErr())
	}
}

// forgetfulPatience is longer than the forgetful broker's memory.
const forgetfulPatience = 20 * time.Second

// Where the producer is forgotten and somebody else has written, nothing tells
// the two apart but the records themselves: the link stops before it writes.
func TestForgottenForeignWriter(t *testing.T) {
	w := forgetfulWorld(t, forgetfulOverrides...)
	w.source.writeAll(w.topic, 20)
	l := w.start()
	l.awaitMirrored()
	l.stop()
	w.dest.kcatWrite(w.mirror(), 0, "foreign")
	w.awaitForgotten()
	l = w.start()
	w.await("partition 0 has stopped", forgetfulPatience, func() error {
		if p := l.part(0); p == nil || !p.State.Stopped() {
			return fmt.Errorf("it is %+v", p)
		}
		return nil
	})
	p := l.part(0)
	if p.Stop.From != 20 || p.Stop.To != 20 {
		t.Errorf("stopped with offsets %d to %d, want 20: %v", p.Stop.From, p.Stop.To, p.Stop)
	}
	w.source.writeAll(w.topic, 10)
	l.awaitMirrored(1, 2)
	if end := w.dest.ends(w.mirror())[0]; end != 21 {
		t.Errorf("the mirror ends at offset %d, want 21: the link has written after a stranger", end)
	}
}
