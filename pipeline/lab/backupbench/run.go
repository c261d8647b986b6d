package backupbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

// Config is what is measured, and where.
type Config struct {
	Short bool           // few and small cases, within four minutes
	Only  *regexp.Regexp // sections whose names match; nil: all
	Dir   string         // for buckets and states; what is made there is deleted
	Seed  uint64         // of keys and values
	Out   io.Writer      // progress

	// Save, if not nil, is given the report after each section.
	Save func(*Report) error
}

// section measures one thing.
type section struct {
	name string
	run  func(ctx context.Context, e *env) error
}

// sections are run one after the other, in this order.
var sections = []section{
	{"full", fulls},
	{"delta", deltas},
	{"segments", segments},
	{"replay", replays},
	{"chain", chains},
	{"instant", instants},
}

// env is what a section works with.
type env struct {
	Config
	section string
	dir     string // of the section alone
	report  *Report
}

// add adds a row, and shows it.
func (e *env) add(name, measure string, value float64, unit string) {
	row := Row{Section: e.section, Case: name, Measure: measure, Value: value, Unit: unit}
	e.report.Rows = append(e.report.Rows, row)
	e.logf("%s", row)
}

func (e *env) logf(format string, args ...any) { fmt.Fprintf(e.Out, format+"\n", args...) }

// Run runs the sections. After an error the report has what was measured before; nil: nothing is to be measured.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &Report{Machine: report.ThisMachine(), Short: cfg.Short, Seed: cfg.Seed, Rows: []Row{}}
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	if err := report.CheckOnly(cfg.Only, names); err != nil {
		return nil, err
	}
	if r.Machine.IsBusy() {
		fmt.Fprintf(cfg.Out, "other programs keep %.1f of %d processors busy: absolute figures are too low\n", r.Machine.Load, r.Machine.CPUs)
	}
	for _, s := range sections {
		if cfg.Only != nil && !cfg.Only.MatchString(s.name) {
			continue
		}
		if err := runSection(ctx, cfg, s, r); err != nil {
			return r, fmt.Errorf("%s: %w", s.name, err)
		}
		if cfg.Save != nil {
			if err := cfg.Save(r); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

func runSection(ctx context.Context, cfg Config, s section, r *Report) (err error) {
	e := &env{Config: cfg, section: s.name, dir: filepath.Join(cfg.Dir, s.name), report: r}
	if err := errors.Join(os.RemoveAll(e.dir), os.MkdirAll(e.dir, 0o755)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(e.dir)) }()
	return s.run(ctx, e)
}
