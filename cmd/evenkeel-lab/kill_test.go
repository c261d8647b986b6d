package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/lab/history"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

// labProcess is a lab in a process of its own, which can be killed.
type labProcess struct {
	t       *testing.T
	dir     string
	process *exec.Cmd
	regions []lab.Address
}

// asLab, set in the environment, makes the test's own program be the lab.
const asLab = "EVENKEEL_TEST_AS_LAB"

func TestMain(m *testing.M) {
	if os.Getenv(asLab) != "" {
		main()
	}
	os.Exit(m.Run())
}

func labCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, args...)
	c.Env = append(os.Environ(), asLab+"=1")
	return c
}

// start runs the lab until it prints its addresses.
func (l *labProcess) start() {
	l.t.Helper()
	l.process = labCommand(l.t, "up", "--dir", l.dir, "--base-port", "0", "-o", "json")
	stdout, err := l.process.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	var stderr bytes.Buffer
	l.process.Stderr = &stderr
	if err := l.process.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(l.kill)
	var listing struct {
		Regions []lab.Address `json:"regions"`
	}
	if err := json.NewDecoder(stdout).Decode(&listing); err != nil {
		l.t.Fatalf("lab did not come up: %v\n%s", err, stderr.String())
	}
	l.regions = listing.Regions
}

func (l *labProcess) kill() {
	_ = l.process.Process.Kill()
	_ = l.process.Wait() // says that it was killed, or that it has been waited for
}

// settled waits until all regions have folded all events at one vector, and
// returns their one digest.
func (l *labProcess) settled() events.Digest {
	l.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		statuses, problem := l.statuses()
		if problem == nil {
			return *statuses[0].Digest
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not settled within a minute: %v", problem)
		}
		time.Sleep(50 * time.Millisecond) // the lab is another process
	}
}

func (l *labProcess) statuses() (statuses []*api.Status, problem error) {
	for _, r := range l.regions {
		c, err := api.NewClient(r.API)
		if err != nil {
			return nil, err
		}
		s, err := c.Status(l.t.Context())
		if err != nil {
			return nil, err
		}
		if api.Known(s.Events) != history.Events || api.Known(s.Parked) != 0 {
			return nil, fmt.Errorf("%s has folded %d events and parked %d", r.Region, api.Known(s.Events), api.Known(s.Parked))
		}
		if len(statuses) > 0 && s.Vector().Compare(statuses[0].Vector()) != events.Equal {
			return nil, fmt.Errorf("%s is at another vector", r.Region)
		}
		if len(statuses) > 0 && *s.Digest != *statuses[0].Digest {
			l.t.Fatalf("%s has digest %s, %s has %s", r.Region, s.Digest, l.regions[0].Region, statuses[0].Digest)
		}
		statuses = append(statuses, s)
	}
	return statuses, nil
}

// load loads the history and notes its progress in a file.
func (l *labProcess) load(progress string) error {
	path := filepath.Join(l.t.TempDir(), "history.jsonl")
	if err := history.WriteTo(path, 0, history.Events); err != nil {
		return err
	}
	input, err := load.JSONLines(path, history.Fields())
	if err != nil {
		return err
	}
	nodes := map[events.Region]load.Node{}
	for _, r := range l.regions {
		if nodes[r.Region], err = api.NewClient(r.API); err != nil {
			return err
		}
	}
	_, err = load.Run(l.t.Context(), input, nodes, load.Config{Stream: history.Stream, Progress: progress, Patience: time.Minute})
	return err
}

// written is how many events a load has noted as written.
func written(progress string) (n int) {
	text, err := os.ReadFile(progress)
	if err != nil {
		return 0
	}
	var state struct {
		Regions map[string]struct{ Written int }
	}
	_ = json.Unmarshal(text, &state) // what is not there yet counts 0
	for _, r := range state.Regions {
		n += r.Written
	}
	return n
}

// The lab is killed with -9 in the middle of a load, twice, and started again;
// the load goes on by itself. In the end every region has the digest that an
// undisturbed load gives.
func TestKillDuringLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes; make test runs it")
	}
	calm := &labProcess{t: t, dir: t.TempDir()}
	calm.start()
	if err := calm.load(filepath.Join(t.TempDir(), "progress")); err != nil {
		t.Fatal(err)
	}
	want := calm.settled()
	calm.kill()

	shaken := &labProcess{t: t, dir: t.TempDir()}
	shaken.start()
	progress := filepath.Join(t.TempDir(), "progress")
	done := make(chan error, 1)
	go func() { done <- shaken.load(progress) }()
	for _, at := range []int{2_000, 10_000} {
		awaitWritten(t, progress, at, done)
		shaken.kill()
		shaken.start()
	}
	if err := <-done; err != nil {
		t.Fatalf("load: %v", err)
	}
	if got := shaken.settled(); got != want {
		t.Errorf("digest %s after the kills, %s without", got, want)
	}
}

func awaitWritten(t *testing.T, progress string, least int, done <-chan error) {
	t.Helper()
	for written(progress) < least {
		select {
		case err := <-done:
			t.Fatalf("the load ended before %d events: %v", least, err)
		case <-time.After(time.Millisecond): // the load is another process
		}
	}
}

// Ctrl-C stops the lab cleanly.
func TestInterrupt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes; make test runs it")
	}
	l := &labProcess{t: t, dir: t.TempDir()}
	l.start()
	begun := time.Now()
	if err := l.process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := l.process.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	t.Logf("stopped in %s", time.Since(begun).Round(time.Millisecond))
	if out, err := labCommand(t, "regions", "--lab", "http://127.0.0.1:1").CombinedOutput(); err == nil || !strings.Contains(string(out), "no lab answers") {
		t.Errorf("regions without a lab: %v: %s", err, out)
	}
}
