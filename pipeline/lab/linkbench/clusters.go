package linkbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

const (
	sourceRegion = "us-east-1"
	destRegion   = "us-west-1"
	brokerID     = 1 // kafka.sh's only one
)

// clusters are the two that a link connects.
type clusters struct {
	script string // kafka.sh
	env    []string
	dir    string
	out    io.Writer

	source, dest *cluster
	farListener  string // of the source; clients that come in there go on to farAddress
	farAddress   string // where a proxy has to be
}

// cluster is one of them.
type cluster struct {
	address string
	client  *kgo.Client
}

// startClusters starts both, without what an earlier run may have left.
func startClusters(ctx context.Context, script, dir string, basePort int, out io.Writer) (_ *clusters, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	k := &clusters{
		script: script, dir: dir, out: out,
		env:         append(os.Environ(), "KAFKA_DIR="+dir, fmt.Sprintf("KAFKA_BASE_PORT=%d", basePort), "KAFKA_FAR=1"),
		farListener: at(basePort + 2), farAddress: at(basePort + 3),
	}
	if err := k.kafka(ctx, "clean"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.stop())
		}
	}()
	if err := k.kafka(ctx, "up"); err != nil {
		return nil, err
	}
	if k.source, err = connect(at(basePort)); err != nil {
		return nil, err
	}
	if k.dest, err = connect(at(basePort + 100)); err != nil {
		return nil, err
	}
	return k, nil
}

func connect(address string) (*cluster, error) {
	c, err := kgo.NewClient(kgo.SeedBrokers(address))
	return &cluster{address, c}, err
}

// stop ends the brokers and deletes their data; the jars stay.
func (k *clusters) stop() error {
	for _, c := range []*cluster{k.source, k.dest} {
		if c != nil && c.client != nil {
			c.client.Close()
		}
	}
	return k.kafka(context.Background(), "clean") // whatever has ended the run, this is still to be done
}

// kafka runs kafka.sh in a process group of its own: a Ctrl-C at the terminal
// must not end the very script that stops the brokers.
func (k *clusters) kafka(ctx context.Context, verb string) error {
	c := exec.CommandContext(ctx, k.script, verb, sourceRegion, destRegion)
	c.Env, c.Stdout, c.Stderr = k.env, k.out, k.out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case err == nil || ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == int(events.KindNotReady):
		return events.Errorf(events.KindNotReady, "no Kafka to measure links between: %s says above what is missing", filepath.Base(k.script))
	default:
		return fmt.Errorf("%s %s: %w, see above", k.script, verb, err)
	}
}

// libs is where the jars are that kafka.sh has fetched, of the one version that
// is there.
func (k *clusters) libs() (string, error) {
	found, err := filepath.Glob(filepath.Join(k.dir, "libs", "[0-9]*"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no jars in %s/libs", k.dir)
	}
	if version := os.Getenv("KAFKA_VERSION"); version != "" {
		return filepath.Join(k.dir, "libs", version), nil
	}
	return found[len(found)-1], nil
}
