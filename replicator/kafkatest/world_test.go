//go:build kafka

package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// The regions of deploy/kafka/kafka.sh, and what they are for here.
const (
	sourceRegion    events.Region = "us-east-1"
	destRegion      events.Region = "us-west-1"
	forgetfulRegion events.Region = "eu-central-1" // restarted with a broker that soon forgets producers
)

const (
	partitions = 3
	patience   = 60 * time.Second       // for what may take a while on a busy machine
	tick       = 100 * time.Millisecond // between looks
)

// names tell topics of one run of the binary from those of others on the same
// clusters.
var (
	runName = strconv.FormatInt(time.Now().UnixNano()/1e6, 36)
	nameSeq atomic.Int32
)

// world is two clusters and a topic of the test's own. Its methods fail the test
// by themselves, so that tests read as a story.
type world struct {
	*testing.T
	source, dest *cluster
	topic        string
}

// newWorld makes a world whose topic is not created yet.
func newWorld(t *testing.T) *world {
	t.Helper()
	return worldOf(t, newCluster(t, sourceRegion), newCluster(t, destRegion))
}

func worldOf(t *testing.T, source, dest *cluster) *world {
	t.Helper()
	return &world{T: t, source: source, dest: dest, topic: fmt.Sprintf("kt-%s-%d", runName, nameSeq.Add(1))}
}

// plainWorld makes a world whose topic is there.
func plainWorld(t *testing.T, configs ...string) *world {
	t.Helper()
	w := newWorld(t)
	w.source.create(w.topic, partitions, configs...)
	return w
}

func (w *world) mirror() string { return events.FirstOrigin(w.source.region).MirrorTopic(w.topic) }

func mirrorOf(topic string) string { return events.FirstOrigin(sourceRegion).MirrorTopic(topic) }

// await polls until the condition holds.
func (w *world) await(what string, most time.Duration, condition func() error) {
	w.Helper()
	deadline := time.Now().Add(most)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s: not within %s: %v", what, most, err)
		}
		time.Sleep(tick)
	}
}

// cluster is one region's Kafka, and clients of the test's own.
type cluster struct {
	t        *testing.T
	region   events.Region
	address  string
	security *security   // of the test's clients; nil: none
	replicas int16       // of the topics that the test makes
	client   *kgo.Client // produces to the partitions that records name
	admin    *kadm.Client
	written  atomic.Int64
}

// newCluster is a region of kafka.sh.
func newCluster(t *testing.T, r events.Region) *cluster {
	t.Helper()
	return clusterAt(t, r, addressOf(t, r), 1, nil)
}

func clusterAt(t *testing.T, r events.Region, address string, replicas int16, as *security) *cluster {
	t.Helper()
	c := &cluster{t: t, region: r, address: address, security: as, replicas: replicas}
	c.client = c.dial()
	c.admin = kadm.NewClient(c.client)
	return c
}

// reach is how a client comes to the cluster.
func (c *cluster) reach() []kgo.Opt {
	opts := []kgo.Opt{kgo.SeedBrokers(strings.Split(c.address, ",")...)}
	if c.security != nil {
		opts = append(opts, c.security.opts()...)
	}
	return opts
}

// kcat runs kcat to its end.
func (c *cluster) kcat(input io.Reader, arguments ...string) ([]byte, error) {
	as := []string{"-b", c.address}
	if c.security != nil {
		as = c.security.kcat()
	}
	k := exec.Command("kcat", append(as, arguments...)...)
	k.Stdin = input
	out, err := k.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("kcat: %w: %s", err, exit.Stderr)
	}
	return out, err
}

func addressOf(t *testing.T, r events.Region) string {
	t.Helper()
	name := "EVENKEEL_KAFKA_" + strings.ToUpper(strings.ReplaceAll(r.String(), "-", "_"))
	address := os.Getenv(name)
	if address == "" {
		t.Fatalf("%s is not set; run this by: make test-kafka", name)
	}
	return address
}

// dial makes a client that the test's end closes.
func (c *cluster) dial(more ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	client, err := kgo.NewClient(append(append(c.reach(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond), kgo.ProducerLinger(0),
	), more...)...)
	if err != nil {
		c.t.Fatalf("client of %s: %v", c.region, err)
	}
	c.t.Cleanup(client.Close)
	return client
}

// do is for what cannot fail unless the test is wrong.
func (c *cluster) do(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", c.region, err)
	}
}

// ctx bounds one question to a cluster.
func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

// create makes a topic, with pairs of a config's name and value.
func (c *cluster) create(topic string, count int32, configs ...string) {
	c.t.Helper()
	set := map[string]*string{}
	for i := 0; i < len(configs); i += 2 {
		set[configs[i]] = &configs[i+1]
	}
	_, err := c.admin.CreateTopic(c.ctx(), count, c.replicas, set, topic)
	c.do(err)
	c.awaitLed(topic)
	c.t.Cleanup(func() { _, _ = c.admin.DeleteTopics(context.Background(), topic) }) // tidies up; the clusters are thrown away
}

// awaitLed waits until the broker leads a topic that was made a moment ago.
func (c *cluster) awaitLed(topic string) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(tick) {
		listed, err := c.admin.ListEndOffsets(c.ctx(), topic)
		if err == nil {
			err = listed.Error()
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("topic %s of %s: not led within %s: %v", topic, c.region, patience, err)
		}
	}
}

// configure sets configs of a topic.
func (c *cluster) configure(topic string, configs ...string) {
	c.t.Helper()
	var set []kadm.AlterConfig
	for i := 0; i < len(configs); i += 2 {
		set = append(set, kadm.AlterConfig{Op: kadm.SetConfig, Name: configs[i], Value: &configs[i+1]})
	}
	done, err := c.admin.AlterTopicConfigs(c.ctx(), set, topic)
	c.do(err)
	c.do(done[0].Err)
}

// config is the value of a topic's config, empty if there is none.
func (c *cluster) config(topic, key string) string {
	c.t.Helper()
	found, err := c.admin.DescribeTopicConfigs(c.ctx(), topic)
	c.do(err)
	for _, k := range found[0].Configs {
		if k.Key == key {
			return k.MaybeValue()
		}
	}
	return ""
}

// expire deletes a partition's records before an offset; -1: all of them.
func (c *cluster) expire(topic string, num int32, before int64) {
	c.t.Helper()
	if before < 0 {
		before = c.ends(topic)[num]
	}
	var offsets kadm.Offsets
	offsets.AddOffset(topic, num, before, -1)
	done, err := c.admin.DeleteRecords(c.ctx(), offsets)
	c.do(err)
	c.do(done.Error())
}

// ends are where the partitions of a topic end.
func (c *cluster) ends(topic string) map[int32]int64 {
	c.t.Helper()
	listed, err := c.admin.ListEndOffsets(c.ctx(), topic)
	c.do(err)
	return offsets(listed, topic)
}

// stables are the last stable offsets of a topic's partitions.
func (c *cluster) stables(topic string) map[int32]int64 {
	c.t.Helper()
	listed, err := c.admin.ListCommittedOffsets(c.ctx(), topic)
	c.do(err)
	return offsets(listed, topic)
}

func offsets(listed kadm.ListedOffsets, topic string) map[int32]int64 {
	at := map[int32]int64{}
	for num, o := range listed[topic] {
		at[num] = -1
		if o.Err == nil {
			at[num] = o.Offset
		}
	}
	return at
}

// kafka runs kafka.sh, whose settings are in the environment.
func kafka(t *testing.T, env []string, args ...string) {
	t.Helper()
	if out, err := tryKafka(env, args...); err != nil {
		t.Fatalf("kafka.sh %v: %v\n%s", args, err, out)
	}
}

// bringUp starts brokers that were killed. Their ports may be taken for a moment
// longer than they live, and a busy machine may be slower than kafka.sh expects.
func bringUp(t *testing.T, regions ...string) {
	t.Helper()
	deadline := time.Now().Add(2 * patience)
	for {
		out, err := tryKafka(nil, append([]string{"up"}, regions...)...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("kafka.sh up %v: %v\n%s", regions, err, out)
		}
		time.Sleep(tick)
	}
}

func tryKafka(env []string, args ...string) (out []byte, err error) {
	c := exec.Command("../../deploy/kafka/kafka.sh", args...)
	c.Env = append(os.Environ(), env...)
	return c.CombinedOutput()
}
