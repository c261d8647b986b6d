//go:build kafka

package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// broker is a node of a cluster that a test has set up itself, because those of
// kafka.sh are one broker each and know no security. It is broker and controller, has the
// same jars and bounds as theirs, and does not outlive the test, however that ends.
type broker struct {
	t      *testing.T
	id     int
	dir    string
	ports  ports
	cmd    *exec.Cmd
	exited chan struct{}
	frozen bool
}

// ports are where a broker listens. They are outside of the range from which
// systems take those of outgoing connections: nobody takes one while its broker is down.
type ports struct{ client, controller, other int }

const (
	defaultBasePort = 19092
	ownPortsFirst   = 300 // from KAFKA_BASE_PORT on; what is before is kafka.sh's
	ownPortsMost    = 600

	startPatience = 5 * time.Minute // for brokers on a busy machine
)

var portSeq atomic.Int32

func newPorts(t *testing.T) ports {
	t.Helper()
	base := envInt("KAFKA_BASE_PORT", defaultBasePort) + ownPortsFirst
	next := func() int {
		for range ownPortsMost {
			port := base + int(portSeq.Add(1)-1)%ownPortsMost
			if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
				l.Close()
				return port
			}
		}
		t.Fatalf("no port is free from %d on", base)
		return 0
	}
	return ports{next(), next(), next()}
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// ownBrokers prepares a cluster's nodes, which are formatted but not started. The
// settings of each may name the others' ports; users are what the storage tool makes
// (--add-scram).
func ownBrokers(t *testing.T, n int, settings func(b *broker) []string, users ...string) []*broker {
	t.Helper()
	var nodes []*broker
	var voters []string
	for id := range n {
		b := &broker{t: t, id: id + 1, dir: t.TempDir(), ports: newPorts(t)}
		nodes = append(nodes, b)
		voters = append(voters, fmt.Sprintf("%d@%s", b.id, address(b.ports.controller)))
	}
	cluster := make([]byte, 16)
	_, _ = rand.Read(cluster) // never fails, by its contract
	cluster[0] &= 0x7f        // no leading dash
	for _, b := range nodes {
		b.configure(append(settings(b),
			"process.roles=broker,controller",
			"node.id="+strconv.Itoa(b.id),
			"controller.quorum.voters="+strings.Join(voters, ","),
			"controller.listener.names=CONTROLLER",
			"log.dirs="+filepath.Join(b.dir, "log"),
			"auto.create.topics.enable=false",
			"group.initial.rebalance.delay.ms=0",
			"broker.session.timeout.ms=3000",
			"broker.heartbeat.interval.ms=500",
			"offsets.topic.num.partitions=2",
			"transaction.state.log.num.partitions=2",
		))
		arguments := []string{"kafka.tools.StorageTool", "format", "-t", base64.RawURLEncoding.EncodeToString(cluster), "-c", b.file("server.properties")}
		for _, u := range users {
			arguments = append(arguments, "--add-scram", u)
		}
		if out, err := b.java(arguments...).CombinedOutput(); err != nil {
			t.Fatalf("format broker %d: %v\n%s", b.id, err, out)
		}
	}
	t.Cleanup(func() {
		for _, b := range nodes {
			b.kill()
		}
	})
	return nodes
}

func (b *broker) file(name string) string { return filepath.Join(b.dir, name) }

func (b *broker) configure(lines []string) {
	b.t.Helper()
	if err := os.WriteFile(b.file("server.properties"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// java is a program of Kafka's jars, which kafka.sh has fetched. It lives shortly: what
// takes long to pay is left out.
func (b *broker) java(arguments ...string) *exec.Cmd {
	b.t.Helper()
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	libs, err := filepath.Abs(filepath.Join(kafkaDir(), "libs", kafkaVersion()))
	if err != nil {
		b.t.Fatal(err)
	}
	c := exec.Command(java, append([]string{
		"-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", filepath.Join(libs, "*"),
	}, arguments...)...)
	c.Dir = b.dir
	return c
}

func kafkaVersion() string {
	if version := os.Getenv("KAFKA_VERSION"); version != "" {
		return version
	}
	return "4.2.0"
}

func kafkaDir() string {
	if dir := os.Getenv("KAFKA_DIR"); dir != "" {
		return dir
	}
	return "../../.kafka"
}

// start runs the broker, without waiting for it to answer.
func (b *broker) start() {
	b.t.Helper()
	log, err := os.OpenFile(b.file("broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	b.cmd = b.java("kafka.Kafka", b.file("server.properties"))
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also where the tests are killed
	if err := b.cmd.Start(); err != nil {
		b.t.Fatalf("broker %d: %v", b.id, err)
	}
	cmd, exited := b.cmd, make(chan struct{})
	b.exited = exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // most often it is killed
	}()
}

// kill ends the broker by -9; a second time it does nothing.
func (b *broker) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	<-b.exited
	b.cmd, b.frozen = nil, false
}

// freeze makes a broker that its cluster does not hear of any more, and thaw lets it
// go on.
func (b *broker) freeze() {
	b.t.Helper()
	b.signal(syscall.SIGSTOP)
	b.frozen = true
}

func (b *broker) thaw() {
	b.t.Helper()
	b.signal(syscall.SIGCONT)
	b.frozen = false
}

func (b *broker) signal(s syscall.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(s); err != nil {
		b.t.Fatalf("signal %s to broker %d: %v", s, b.id, err)
	}
}

// awaitServing waits until all brokers are in service, as a client sees it.
func awaitServing(t *testing.T, nodes []*broker, opts []kgo.Opt) {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.MetadataMinAge(tick))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	deadline := time.Now().Add(startPatience)
	for {
		in, err := inService(t, client)
		if len(in) == len(nodes) {
			return
		}
		for _, b := range nodes {
			select {
			case <-b.exited:
				t.Fatalf("broker %d ended before it answered\n%s", b.id, b.log())
			default:
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d brokers are in service: %v\n%s", len(in), len(nodes), err, nodes[0].log())
		}
		time.Sleep(5 * tick)
	}
}

// inService are the brokers that the controller has unfenced.
func inService(t *testing.T, client *kgo.Client) (ids map[int32]bool, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience/10)
	defer cancel()
	ids = map[int32]bool{}
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none, rather than all
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return ids, err
	}
	for _, b := range resp.Brokers {
		ids[b.NodeID] = true
	}
	return ids, nil
}

// log is the end of what the broker has said.
func (b *broker) log() string {
	text, _ := os.ReadFile(b.file("broker.log")) // for a message only
	return string(text[max(0, len(text)-4000):])
}
