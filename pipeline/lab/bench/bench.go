// Package bench measures how fast events go into a lab, beside what bare
// producers reach with the same records on the same clusters in the same run.
package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

// Row is one measurement.
type Row struct {
	System        string  `json:"system"` // produce: bare producers; load: to the last acknowledgement; settled: until all regions have folded all
	Events        int     `json:"events"`
	ValueBytes    int     `json:"value_bytes"`
	Seconds       float64 `json:"seconds"`
	EventsPerS    float64 `json:"events_per_s"`
	CPUUsPerEvent float64 `json:"cpu_us_per_event"` // of the whole process: all clusters, nodes and the client
}

// stream is where events go; topic is for the bare producers.
const (
	stream = events.Stream("session")
	topic  = "bench"
)

// Load measures n events spread over the lab's regions.
func Load(ctx context.Context, l *lab.Lab, dir string, n int) ([]Row, error) {
	path := filepath.Join(dir, "events.jsonl")
	valueBytes, err := writeEvents(path, l.Regions(), n)
	if err != nil {
		return nil, err
	}
	fields := load.DefaultFields()
	fields.Value = "" // the whole line
	input, err := load.JSONLines(path, fields)
	if err != nil {
		return nil, err
	}
	row := func(system string, m meter) Row {
		seconds, cpu := m.read()
		return Row{
			System: system, Events: n, ValueBytes: valueBytes, Seconds: seconds,
			EventsPerS: float64(n) / seconds, CPUUsPerEvent: cpu / float64(n) * 1e6,
		}
	}
	m := startMeter()
	if err := produce(ctx, l, input); err != nil {
		return nil, err
	}
	rows := []Row{row("produce", m)}

	nodes, clients := map[events.Region]load.Node{}, map[events.Region]*api.Client{}
	for _, r := range l.Regions() {
		c, err := l.Client(r)
		if err != nil {
			return nil, err
		}
		nodes[r], clients[r] = c, c
	}
	m = startMeter()
	if _, err := load.Run(ctx, input, nodes, load.Config{Stream: stream, Progress: path + ".progress"}); err != nil {
		return nil, err
	}
	rows = append(rows, row("load", m))
	if err := settle(ctx, clients, int64(n)); err != nil {
		return nil, err
	}
	return append(rows, row("settled", m)), nil
}

// writeEvents writes n events of equal size over 100,000 keys.
func writeEvents(path string, regions []events.Region, n int) (valueBytes int, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriter(f)
	for i := range n {
		valueBytes, err = fmt.Fprintf(w, `{"seq":"%07d","key":"entity-%06d","region":%q,"op":"put","blob":"%040x","path":"some/path/of/some/length/file-%04d.erl"}`,
			i, i*7919%100_000, regions[i/500%len(regions)], i*2654435761, i%5000)
		if err != nil {
			return 0, err
		}
		if err := w.WriteByte('\n'); err != nil {
			return 0, err
		}
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	return valueBytes, f.Close()
}

// produce writes the same events with bare clients, as fast as they go.
func produce(ctx context.Context, l *lab.Lab, input *load.Input) error {
	clients := map[events.Region]*kgo.Client{}
	for _, a := range l.Addresses() {
		c, err := kgo.NewClient(kgo.SeedBrokers(a.Kafka), kgo.RequiredAcks(kgo.AllISRAcks()))
		if err != nil {
			return err
		}
		defer c.Close()
		clients[a.Region] = c
		created, err := kadm.NewClient(c).CreateTopics(ctx, lab.DefaultPartitions, -1, nil, topic)
		if err == nil {
			err = created.Error()
		}
		if err != nil {
			return err
		}
	}
	failed := make(chan error, 1)
	for item, err := range input.Items() {
		if err != nil {
			return err
		}
		r := &kgo.Record{Topic: topic, Key: item.Event.Key, Value: item.Event.Value}
		clients[item.Region].Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default: // one is enough
				}
			}
		})
	}
	for _, c := range clients {
		if err := c.Flush(ctx); err != nil {
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// settle waits until every region has folded n events.
func settle(ctx context.Context, clients map[events.Region]*api.Client, n int64) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for r, c := range clients {
		for {
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if api.Known(s.Events) >= n {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", r, ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}

// meter measures time and this process's processor time.
type meter struct {
	begun time.Time
	cpu   float64
}

func startMeter() meter { return meter{time.Now(), cpuSeconds()} }

func (m meter) read() (seconds, cpu float64) {
	return time.Since(m.begun).Seconds(), cpuSeconds() - m.cpu
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
