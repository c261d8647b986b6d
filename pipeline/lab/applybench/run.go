package applybench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

// Config is what Run does and with what.
type Config struct {
	Dir     string // for databases and profiles; databases are deleted when they are measured
	Short   bool
	Only    *regexp.Regexp // of cases' names; nil: all
	Seed    uint64
	Profile bool      // keep each case's processor profile in Dir
	Out     io.Writer // progress, a line per measurement

	// Save is called after each measurement with all that there is so far.
	Save func(*Report) error
}

// Run measures all cases. Its processes have ended and the databases are deleted
// when it returns. Without a report nothing is to be measured.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &Report{Machine: report.ThisMachine(), Short: cfg.Short, Seed: cfg.Seed, Rows: []Row{}, CatchUp: []Row{}}
	var names []string
	for _, c := range Cases(cfg.Short, cfg.Seed) {
		names = append(names, c.Name())
	}
	if err := report.CheckOnly(cfg.Only, names); err != nil {
		return nil, err
	}
	if r.Machine.IsBusy() {
		fmt.Fprintf(cfg.Out, "the load is %.1f on %d processors: absolute figures are too low\n", r.Machine.Load, r.Machine.CPUs)
	}
	for _, c := range Cases(cfg.Short, cfg.Seed) {
		if cfg.Only != nil && !cfg.Only.MatchString(c.Name()) {
			continue
		}
		row, err := runCase(ctx, cfg, c)
		if err != nil {
			return r, fmt.Errorf("case %s: %w", c.Name(), err)
		}
		if c.CatchUp {
			r.CatchUp = append(r.CatchUp, row)
		} else {
			r.Rows = append(r.Rows, row)
		}
		fmt.Fprintf(cfg.Out, "%-36s %s\n", c.Name(), row)
		if err := cfg.Save(r); err != nil {
			return r, err
		}
	}
	return r, nil
}

func runCase(ctx context.Context, cfg Config, c Case) (_ Row, err error) {
	dir := filepath.Join(cfg.Dir, "data")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return Row{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := checkSpace(dir, c); err != nil {
		return Row{}, err
	}
	if !c.CatchUp {
		if err := fill(ctx, dir, c); err != nil {
			return Row{}, err
		}
	}
	var pair [2]*process
	for i, system := range []string{systemShard, systemBare} {
		sc := SubjectConfig{System: system, Dir: filepath.Join(dir, system), Case: c, Filled: !c.CatchUp}
		if cfg.Profile {
			sc.Profile = filepath.Join(cfg.Dir, c.Name()+".pprof")
		}
		cmd, err := command(ctx, sc)
		if err != nil {
			return Row{}, err
		}
		if pair[i], err = start(cmd, system); err != nil {
			return Row{}, err
		}
		defer pair[i].end()
	}
	return measure(ctx, c, pair)
}

// subjectCommand is the command of the lab that calls Subject.
const subjectCommand = "bench-apply-subject"

// command is this program again, as a measured process.
func command(ctx context.Context, sc SubjectConfig) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(sc)
	return exec.CommandContext(ctx, self, subjectCommand, string(text)), err
}

// measure has the two take turns, the shard first in every other one.
func measure(ctx context.Context, c Case, pair [2]*process) (Row, error) {
	var sums [2]answer
	for turn := 0; sums[0].Events < c.Events; turn++ {
		for i := range pair {
			if err := ctx.Err(); err != nil {
				return Row{}, err
			}
			i := (i + turn) % len(pair)
			a, err := pair[i].do(askSlice)
			if err != nil {
				return Row{}, err
			}
			sums[i].Events += a.Events
			sums[i].Seconds += a.Seconds
			sums[i].CPUSeconds += a.CPUSeconds
		}
	}
	var peaks [2]int64
	for i, p := range pair {
		var err error
		if peaks[i], err = p.peakBytes(); err != nil {
			return Row{}, err
		}
		last, err := p.do(askEnd)
		if err != nil {
			return Row{}, err
		}
		sums[i].Totals, sums[i].Shares = last.Totals, last.Shares
	}
	if !sums[0].Totals.isLike(sums[1].Totals) {
		return Row{}, fmt.Errorf("the shard holds %+v, the bare database %+v: they did not do the same", sums[0].Totals, sums[1].Totals)
	}
	return newRow(c, sums, peaks), nil
}

func checkSpace(dir string, c Case) error {
	usage, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	if need := c.diskBytes(); usage.AvailBytes < need {
		return events.Errorf(events.KindRefused, "%s has %d MiB free, the case may need %d MiB; free some space, or pass --dir on another disk, or --short",
			dir, usage.AvailBytes>>20, need>>20)
	}
	return nil
}
