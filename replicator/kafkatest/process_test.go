//go:build kafka

package kafkatest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/follow"
)

// processEnv makes the test binary a link: "SOURCE DESTINATION REGION TOPIC".
const processEnv = "EVENKEEL_KAFKATEST_LINK"

func TestMain(m *testing.M) {
	if arguments := strings.Fields(os.Getenv(processEnv)); len(arguments) == 4 {
		runProcess(arguments)
		return
	}
	os.Exit(m.Run())
}

// runProcess runs a link until it is killed, and tells all about it again and
// again.
func runProcess(arguments []string) {
	topics, err := follow.NewPatterns(arguments[3:], nil)
	if err != nil {
		panic(err)
	}
	seeds := func(addresses string) []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(strings.Split(addresses, ",")...)} }
	l := replicator.NewLink(seeds(arguments[0]), seeds(arguments[1]), replicator.Config{
		Origin: events.FirstOrigin(sourceRegion), Destination: events.Region(arguments[2]), Topics: topics,
	}, replicator.NewMetrics(prometheus.NewRegistry()), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	go l.Run(context.Background())
	out := json.NewEncoder(os.Stdout)
	for {
		if err := out.Encode(l.Details()); err != nil {
			os.Exit(1) // whoever started it has gone
		}
		time.Sleep(tick)
	}
}

// process is a link in a process of its own.
type process struct {
	w       *world
	cmd     *exec.Cmd
	log     string
	frozen  bool
	reading sync.WaitGroup

	mu   sync.Mutex
	last replicator.Details // what it said last
	told int                // how often it has
}

// spawn starts a link's process.
func (w *world) spawn() *process {
	w.Helper()
	p := &process{w: w, cmd: exec.Command(os.Args[0])}
	log, err := os.CreateTemp(w.TempDir(), "link-*.log")
	if err != nil {
		w.Fatal(err)
	}
	defer log.Close()
	p.log = log.Name()
	p.cmd.Stderr = log
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %s", processEnv, w.source.address, w.dest.address, w.dest.region, w.topic))
	said, err := p.cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.Fatal(err)
	}
	p.reading.Go(func() {
		lines := bufio.NewScanner(said)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var d replicator.Details
			if json.Unmarshal(lines.Bytes(), &d) == nil { // a killed process ends in the middle of a line
				p.mu.Lock()
				p.last = d
				p.told++
				p.mu.Unlock()
			}
		}
	})
	w.Cleanup(func() {
		p.kill()
		if w.Failed() {
			text, _ := os.ReadFile(p.log) // for a message only
			w.Logf("%s:\n%s", filepath.Base(p.log), text[max(0, len(text)-6000):])
		}
	})
	return p
}

func (p *process) details() (replicator.Details, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.told
}

// kill ends the process by -9; a second time it does nothing.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	p.reading.Wait()
	_ = p.cmd.Wait() // says that it was killed
}

// freeze and thaw make a zombie of the process.
func (p *process) freeze() {
	p.w.Helper()
	p.signal(syscall.SIGSTOP)
	p.frozen = true
}

func (p *process) thaw() {
	p.w.Helper()
	p.signal(syscall.SIGCONT)
	p.frozen = false
}

func (p *process) signal(s syscall.Signal) {
	p.w.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.w.Fatalf("signal %s to a link: %v", s, err)
	}
}

// awaitMirroring waits until the process has said anew that all partitions are
// mirrored.
func (p *process) awaitMirroring() {
	p.w.Helper()
	_, before := p.details()
	p.w.await("the link mirrors", patience, func() error {
		d, told := p.details()
		if len(d.Stopped) > 0 {
			p.w.Fatalf("the link has stopped: %v", d.Stopped)
		}
		if told <= before+1 || !d.Running || len(d.Partitions) < partitions {
			return fmt.Errorf("running: %v %s", d.Running, d.Error)
		}
		for _, s := range d.Partitions {
			if s.State != replicator.Mirroring {
				return fmt.Errorf("partition %d is %s: %s", s.Partition, s.State, s.Reason)
			}
		}
		return nil
	})
}

// mirrored reports why not all partitions are mirrored up to offsets by what the
// destination says itself: nil if they are.
func (w *world) mirrored(ends map[int32]int64) error {
	have := w.dest.ends(w.mirror())
	for num, end := range ends {
		if have[num] < end {
			return fmt.Errorf("the mirror's partition %d ends at offset %d of %d", num, have[num], end)
		}
	}
	return nil
}
