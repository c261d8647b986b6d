//go:build kafka

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
)

// kafkaRegions are the regions of deploy/kafka/kafka.sh.
var kafkaRegions = []events.Region{"us-east-1", "us-west-1", "eu-central-1"}

const kafkaPartitions = 3

// deployment is three nodes as real processes on real clusters, with streams of
// their own in them.
type deployment struct {
	t      *testing.T
	dir    string
	binary string
	topic  string
	usage  string // topic of a stream under the rule fieldmap; empty: there is none
	notes  string // the same under the rule multivalue
	backup string // more of the nodes' configuration of backups
	s3     *s3server.Server

	protocol   string   // of the nodes' groups; empty: the default
	recipients []string // of the keys operating.key and recovery.key in dir
	kafka      map[events.Region]string
	apis       map[events.Region]int
	nodes      map[events.Region]*exec.Cmd
	clients    map[events.Region]*api.Client
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	d := prepareDeployment(t)
	d.startAll()
	return d
}

func (d *deployment) startAll() {
	d.t.Helper()
	for _, r := range kafkaRegions {
		d.writeConfig(r)
		d.start(r)
	}
}

// prepareDeployment is a deployment without nodes.
func prepareDeployment(t *testing.T) *deployment {
	t.Helper()
	d := &deployment{
		t: t, dir: t.TempDir(), topic: "session-" + strconv.FormatInt(time.Now().UnixNano(), 36),
		kafka: map[events.Region]string{}, apis: map[events.Region]int{},
		nodes: map[events.Region]*exec.Cmd{}, clients: map[events.Region]*api.Client{},
	}
	for _, name := range []string{"operating.key", "recovery.key"} {
		recipient, err := config.GenerateIdentity(filepath.Join(d.dir, name), false)
		if err != nil {
			t.Fatal(err)
		}
		d.recipients = append(d.recipients, recipient)
	}
	d.binary = filepath.Join(d.dir, "evenkeel")
	if out, err := exec.Command("go", "build", "-o", d.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var buckets []string
	for _, r := range kafkaRegions {
		name := "EVENKEEL_KAFKA_" + strings.ToUpper(strings.ReplaceAll(r.String(), "-", "_"))
		if d.kafka[r] = os.Getenv(name); d.kafka[r] == "" {
			t.Fatalf("%s is not set; run this by: make test-kafka", name)
		}
		d.apis[r] = freePort(t)
		buckets = append(buckets, "evenkeel-"+r.String())
		client, err := api.NewClient(d.url(r))
		if err != nil {
			t.Fatal(err)
		}
		d.clients[r] = client
	}
	buckets = append(buckets, copyBucket)
	var err error
	if d.s3, err = s3server.Start(s3server.Config{Dir: filepath.Join(d.dir, "s3"), Buckets: buckets}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for r := range d.nodes {
			d.kill(r)
		}
		if err := d.s3.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// freePort is a port for a node that may be started more than once: below those that the
// system gives to whoever asks for any (from 32768 on Linux), so that nobody gets it between.
func freePort(t *testing.T) int {
	t.Helper()
	const first, ports = 24_000, 8_000
	for range ports {
		port := first + (16*os.Getpid()+int(portSeq.Add(1)))%ports
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatalf("no port from %d to %d is free", first, first+ports-1)
	return 0
}

var portSeq atomic.Int32

func (d *deployment) url(r events.Region) string {
	return fmt.Sprintf("http://127.0.0.1:%d", d.apis[r])
}

func (d *deployment) configPath(r events.Region) string {
	return filepath.Join(d.dir, r.String()+".yaml")
}

func (d *deployment) dataDir(r events.Region) string { return filepath.Join(d.dir, r.String()) }

func (d *deployment) writeConfig(r events.Region) {
	d.t.Helper()
	d.writeNodeConfig(d.configPath(r), r, d.dataDir(r), d.apis[r])
}

func (d *deployment) writeNodeConfig(path string, r events.Region, dataDir string, port int) {
	d.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "region: %s\ndata_dir: %s\npartitions: %d\ngroup: %s\n", r, dataDir, kafkaPartitions, d.topic)
	if d.protocol != "" {
		fmt.Fprintf(&b, "group_protocol: %s\n", d.protocol)
	}
	fmt.Fprintf(&b, "api: {listen: \"127.0.0.1:%d\"}\n", port)
	streams := fmt.Sprintf("session: {topic: %s}", d.topic)
	if d.usage != "" {
		streams += fmt.Sprintf(", usage: {topic: %s, merge: fieldmap}", d.usage)
	}
	if d.notes != "" {
		streams += fmt.Sprintf(", notes: {topic: %s, merge: multivalue}", d.notes)
	}
	fmt.Fprintf(&b, "streams: {%s}\nregions:\n", streams)
	for _, o := range kafkaRegions {
		fmt.Fprintf(&b, "  %s: {api: %q, kafka: {seeds: [%q]}}\n", o, d.url(o), d.kafka[o])
	}
	fmt.Fprintf(&b, "backup: {bucket: evenkeel-%s, endpoint: %q, path_style: true, region: %s, recipients: [%s], identity_file: %s, %s}\n",
		r, d.s3.URL(), s3server.Region, strings.Join(d.recipients, ", "), filepath.Join(d.dir, "recovery.key"), d.backup)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// environ is that of the commands: with the keys of the S3 server.
func (d *deployment) environ() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "EVENKEEL_") {
			env = append(env, e)
		}
	}
	accessKey, secretKey := d.s3.Credentials()
	return append(env, "AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey)
}

// start runs a node's process and waits until it serves.
func (d *deployment) start(r events.Region) {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, r.String()+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	node := exec.Command(d.binary, "run", "--config", d.configPath(r))
	node.Env, node.Stderr = d.environ(), log
	if err := node.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.nodes[r] = node
	d.await(r.String()+" serves", func() error {
		s, err := d.clients[r].Status(d.t.Context())
		if err == nil && !s.Ready {
			err = fmt.Errorf("problems: %v", s.Problems)
		}
		return err
	})
}

func (d *deployment) kill(r events.Region) {
	if node := d.nodes[r]; node != nil {
		_ = node.Process.Kill()
		_ = node.Wait() // says that it was killed
		delete(d.nodes, r)
	}
}

// stop ends a node by SIGTERM; it has ten seconds.
func (d *deployment) stop(r events.Region) {
	d.t.Helper()
	node := d.nodes[r]
	delete(d.nodes, r)
	begun := time.Now()
	if err := node.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	if err := node.Wait(); err != nil {
		d.t.Errorf("%s: graceful stop: %v\n%s", r, err, d.logOf(r))
	}
	d.t.Logf("%s stopped gracefully in %s", r, time.Since(begun).Round(time.Millisecond))
}

func (d *deployment) logOf(r events.Region) []byte {
	text, _ := os.ReadFile(filepath.Join(d.dir, r.String()+".log")) // for a message only
	return text[max(0, len(text)-4000):]
}

// await polls a condition on other processes.
func (d *deployment) await(what string, condition func() error) {
	d.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%s: not within 90 s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// evenkeel runs a command to its end.
func (d *deployment) evenkeel(r events.Region, args ...string) (stdout string, code int) {
	d.t.Helper()
	c := exec.Command(d.binary, append([]string{"--server", d.url(r)}, args...)...)
	c.Env = d.environ()
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	if errOut.Len() > 0 {
		d.t.Logf("evenkeel %v: %s", args, errOut.String())
	}
	return out.String(), c.ProcessState.ExitCode()
}

// broker runs kafka.sh. A broker that was killed a moment ago may still have its port,
// and one that has just started may need longer than kafka.sh waits.
func (d *deployment) broker(args ...string) {
	d.t.Helper()
	const patience = 90 * time.Second
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		out, err := exec.Command("../../deploy/kafka/kafka.sh", args...).CombinedOutput()
		if err == nil {
			return
		}
		passes := strings.Contains(string(out), "is in use by another process") || strings.Contains(string(out), "is left running")
		if !passes || time.Since(begun) > patience {
			d.t.Fatalf("kafka.sh %v: %v\n%s", args, err, out)
		}
	}
}

// consume reads a topic with kcat: everything that must be the same in a mirror.
func (d *deployment) consume(r events.Region, topic string) []string {
	d.t.Helper()
	out, err := exec.Command("kcat", "-C", "-e", "-q", "-b", d.kafka[r], "-t", topic, "-o", "beginning",
		"-f", "%p %o %T %K:%k %S:%s %h\n").Output()
	if err != nil {
		d.t.Fatalf("kcat: topic %s of %s: %v", topic, r, err)
	}
	text := strings.TrimSpace(string(out))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	perPartition := make([][]string, kafkaPartitions)
	for _, line := range lines {
		p, err := strconv.Atoi(strings.SplitN(line, " ", 2)[0])
		if err != nil {
			d.t.Fatalf("kcat printed %q", line)
		}
		perPartition[p] = append(perPartition[p], line)
	}
	var all []string
	for _, part := range perPartition {
		all = append(all, part...)
	}
	return all
}

// settle waits until all regions stand at the ends of all logs with one digest.
func (d *deployment) settle(want int) {
	d.t.Helper()
	d.await("all regions at the same vector", func() error {
		var first *api.Status
		for _, r := range kafkaRegions {
			s, err := d.clients[r].Status(d.t.Context())
			if err != nil {
				return err
			}
			lag, err := d.clients[r].Lag(d.t.Context())
			if err != nil {
				return err
			}
			if lag.Behind() != "0" || api.Known(s.Events)+api.Known(s.Parked) < int64(want) {
				return fmt.Errorf("%s has %d events and %d parked of %d, lag %s, problems %v", r, api.Known(s.Events), api.Known(s.Parked), want, lag.Behind(), s.Problems)
			}
			if first == nil {
				first = s
			}
			if s.Vector().Compare(first.Vector()) != events.Equal {
				return fmt.Errorf("%s and %s are at different vectors", first.Region, r)
			}
			if *s.Digest != *first.Digest {
				d.t.Fatalf("%s and %s stand at the same vector with digests %s and %s", first.Region, r, first.Digest, s.Digest)
			}
		}
		return nil
	})
}

// topics are those of the streams.
func (d *deployment) topics() []string {
	return slices.DeleteFunc([]string{d.topic, d.usage, d.notes}, func(topic string) bool { return topic == "" })
}

// checkMirrors compares, with kcat, every mirror with its log, and counts what is in the logs.
func (d *deployment) checkMirrors() (records int) {
	d.t.Helper()
	for _, topic := range d.topics() {
		for _, origin := range kafkaRegions {
			records += d.checkMirrorsOf(origin, topic)
		}
	}
	return records
}

func (d *deployment) checkMirrorsOf(origin events.Region, topic string) (records int) {
	d.t.Helper()
	log := d.consume(origin, topic)
	for _, r := range kafkaRegions {
		if r == origin {
			continue
		}
		mirror := d.consume(r, events.FirstOrigin(origin).MirrorTopic(topic))
		if len(mirror) != len(log) {
			d.t.Errorf("mirror of %s of %s in %s has %d records, the log %d", topic, origin, r, len(mirror), len(log))
			continue
		}
		for i := range log {
			if log[i] != mirror[i] {
				d.t.Errorf("mirror of %s of %s in %s differs:\nlog    %s\nmirror %s", topic, origin, r, log[i], mirror[i])
				break
			}
		}
	}
	return len(log)
}

// checkFolded: every region has folded each record that kcat has counted in the logs, once.
func (d *deployment) checkFolded(records int) {
	d.t.Helper()
	for _, r := range kafkaRegions {
		s, err := d.clients[r].Status(d.t.Context())
		if err != nil {
			d.t.Fatal(err)
		}
		if s.Events == nil || s.Parked == nil || *s.Events+*s.Parked != int64(records) {
			d.t.Errorf("%s has folded %d events and parked %d; the logs hold %d records", r, api.Known(s.Events), api.Known(s.Parked), records)
		}
	}
}

// kcat produces keyed records until its input ends, as a foreign producer.
func (d *deployment) kcat(ctx context.Context, r events.Region, input io.Reader) error {
	c := exec.CommandContext(ctx, "kcat", "-P", "-b", d.kafka[r], "-t", d.topic, "-K", "\t", "-X", "acks=all",
		"-X", "enable.idempotence=true", "-X", "message.timeout.ms=60000", "-H", "who=kcat")
	c.Stdin = input
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("kcat: %w: %s", err, out)
	}
	return nil
}

// note writes a value that nobody else's is known to, in one region, and waits until it is folded there.
func (d *deployment) note(r events.Region, key, value string) error {
	d.t.Helper()
	written, err := d.clients[r].Put(d.t.Context(), api.PutParams{Stream: "notes", Key: []byte(key), Value: []byte(value), Context: &events.Vector{}})
	if err != nil {
		return err
	}
	outcome, err := d.clients[r].Outcome(d.t.Context(), api.OutcomeParams{Position: written.Position})
	if err == nil && outcome.Parked != "" {
		err = errors.New(outcome.Parked)
	}
	return err
}

// noted reads the values of a key that stand side by side, in order, and their context.
func (d *deployment) noted(r events.Region, key string) (values []string, context events.Vector) {
	d.t.Helper()
	e, err := d.clients[r].Get(d.t.Context(), api.GetParams{Stream: "notes", Key: []byte(key)})
	if err != nil {
		d.t.Fatalf("%s: %v", r, err)
	}
	for _, s := range e.Siblings {
		values = append(values, string(s.Value))
	}
	if len(values) == 0 {
		values = []string{string(e.Value)}
	}
	slices.Sort(values)
	return values, e.Context
}
