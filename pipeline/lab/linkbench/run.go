package linkbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

// Config is what Run does and with what.
type Config struct {
	Script   string // kafka.sh
	Dir      string // for jars, data and logs of the processes; data is deleted at both ends of a run
	BasePort int    // of the clusters: see kafka.sh
	Systems  []string
	Short    bool           // the cases of Cases(true), and latency without distance
	Only     *regexp.Regexp // of cases' names, "latency-0ms" and the like among them; nil: all
	Seed     uint64         // of the records
	Out      io.Writer      // progress, a line per measurement
	// Save is called after each measurement with all that there is so far.
	Save func(*Report) error
}

type bench struct {
	cfg      Config
	clusters *clusters
	report   *Report
	logs     string // folder for the output of mirroring processes
}

// Run measures all cases. What one system fails at is noted in the report and
// does not keep the others from being measured; the error then tells of all of
// them. Brokers and processes have ended when it returns.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	b := &bench{cfg: cfg, report: &Report{Machine: Machine{Machine: report.ThisMachine()}, Short: cfg.Short, Seed: cfg.Seed}, logs: filepath.Join(cfg.Dir, "mirrors")}
	rtts := []time.Duration{0, farRTT}
	if cfg.Short {
		rtts = rtts[:1]
	}
	var names []string
	for _, c := range Cases(cfg.Short) {
		names = append(names, c.Name())
	}
	for _, rtt := range rtts {
		names = append(names, latencyName(rtt))
	}
	if err := report.CheckOnly(cfg.Only, names); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(b.logs); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.logs, 0o755); err != nil {
		return nil, err
	}
	if b.clusters, err = startClusters(ctx, cfg.Script, cfg.Dir, cfg.BasePort, cfg.Out); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.clusters.stop()) }()
	if b.report.Machine.Kafka, err = b.clusters.version(); err != nil {
		return nil, err
	}
	if m := b.report.Machine; m.IsBusy() {
		b.say("the load is %.1f on %d processors: other programs slow every system down", m.Load, m.CPUs)
	}
	for _, c := range Cases(cfg.Short) {
		if !b.wanted(c.Name()) {
			continue
		}
		if err := b.runCase(ctx, c); err != nil {
			return b.report, fmt.Errorf("case %s: %w", c.Name(), err)
		}
	}
	for _, rtt := range rtts {
		if name := latencyName(rtt); b.wanted(name) {
			if err := b.runLatency(ctx, name, rtt); err != nil {
				return b.report, fmt.Errorf("case %s: %w", name, err)
			}
		}
	}
	if len(b.report.Failures) > 0 {
		return b.report, fmt.Errorf("measurements that failed, see above: %d", len(b.report.Failures))
	}
	return b.report, nil
}

func latencyName(rtt time.Duration) string { return fmt.Sprintf("latency-%dms", rtt.Milliseconds()) }

func (b *bench) wanted(name string) bool { return b.cfg.Only == nil || b.cfg.Only.MatchString(name) }

// systems are those of the configuration, in the order of Systems.
func (b *bench) systems() []string {
	return slices.DeleteFunc(Systems(), func(s string) bool { return !slices.Contains(b.cfg.Systems, s) })
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.cfg.Out, format+"\n", args...) }

// runCase fills a log and has each system mirror it.
func (b *bench) runCase(ctx context.Context, c Case) (err error) {
	began := time.Now()
	pool, err := batches(c, b.cfg.Seed, began.UnixMilli())
	if err != nil {
		return err
	}
	const topic = "log"
	if err := b.clusters.source.createTopic(ctx, topic, c.Partitions); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clusters.source.deleteTopics(context.WithoutCancel(ctx))) }()
	total, err := fill(ctx, b.clusters.source, topic, c.Partitions, c.Records, pool)
	if err != nil {
		return err
	}
	held, err := b.clusters.source.records(ctx, topic, c.Partitions)
	if err != nil {
		return err
	}
	if held != total {
		return fmt.Errorf("the log holds %d records, was given %d", held, total)
	}
	b.say("%s: %d records at the source after %.1f s", c.Name(), total, time.Since(began).Seconds())
	for _, system := range b.systems() {
		r, err := b.runSystem(ctx, c, system, topic, total)
		if err == nil {
			b.report.Rows = append(b.report.Rows, r)
			b.say("  %-16s %s", system, r)
		}
		if err := b.note(ctx, c.Name(), system, err); err != nil {
			return err
		}
	}
	return b.clusters.dest.deleteTopics(ctx)
}

// runSystem has one system mirror a log as often as it takes to tell how fast it is.
func (b *bench) runSystem(ctx context.Context, c Case, system, topic string, total int64) (all Row, err error) {
	for all.Runs < runsMost && all.Seconds < measuredSecondsMin {
		if err := b.clusters.dest.deleteTopics(ctx); err != nil {
			return Row{}, err
		}
		if err := b.clusters.dest.createTopic(ctx, mirrorTopic(topic), c.Partitions); err != nil {
			return Row{}, err
		}
		// What the log and the mirrors before have left to be written to the disk would
		// hold up those that come later.
		syscall.Sync()
		r, err := b.mirrorCase(ctx, c, system, topic, total)
		if err != nil {
			return Row{}, err
		}
		if r.RecordsInCopy != total {
			return Row{}, fmt.Errorf("the mirror holds %d records, the log %d", r.RecordsInCopy, total)
		}
		if all.Runs > 0 {
			r = all.and(r)
		}
		all = r
	}
	return all, nil
}

func (b *bench) runLatency(ctx context.Context, name string, rtt time.Duration) error {
	b.say("%s: %d single records", name, latencyRecords)
	for _, system := range b.systems() {
		l, err := b.latency(ctx, system, rtt)
		if err == nil {
			b.report.Latency = append(b.report.Latency, l)
			b.say("  %-16s %s", system, l)
		}
		if err := b.note(ctx, name, system, err); err != nil {
			return err
		}
	}
	return nil
}

// note saves the report after a measurement, with the failure if it was one. It
// returns an error only if the run cannot go on.
func (b *bench) note(ctx context.Context, name, system string, failure error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failure != nil {
		b.say("  %-16s failed: %v", system, failure)
		b.report.Failures = append(b.report.Failures, fmt.Sprintf("%s, %s: %v", name, system, failure))
	}
	return b.cfg.Save(b.report)
}

// makeTopics makes a log and its mirror anew.
func (b *bench) makeTopics(ctx context.Context, topic string, partitions int32) error {
	for _, at := range []struct {
		cluster *cluster
		topic   string
	}{{b.clusters.source, topic}, {b.clusters.dest, mirrorTopic(topic)}} {
		if err := at.cluster.deleteTopics(ctx); err != nil {
			return err
		}
		if err := at.cluster.createTopic(ctx, at.topic, partitions); err != nil {
			return err
		}
	}
	return nil
}
