package applybench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// SubjectConfig says what a measured process does.
type SubjectConfig struct {
	System  string
	Dir     string // of the database
	Case    Case
	Fill    bool   // write every key once, and end
	Filled  bool   // that was done
	Profile string // keep the processor profile in this file; empty: do not
}

// What the measuring process asks for, a word a line. The answer is a line of
// JSON.
const (
	askSlice = "slice"
	askEnd   = "end"
)

// answer is what a measured process has to say.
type answer struct {
	Error      string  `json:"error,omitempty"`
	Events     int     `json:"events"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Totals     totals  `json:"totals"`
	Shares     shares  `json:"shares"`
}

// subject is a measured process.
type subject struct {
	cfg      SubjectConfig
	work     *workload
	system   system
	done     int // of the measured events
	profile  *os.File
	profiled bool
}

// Subject is the measured process: it does what it is asked for on in, and ends
// with it.
func Subject(cfg SubjectConfig, in io.Reader, out io.Writer) error {
	w, err := newWorkload(cfg.Case)
	if err != nil {
		return err
	}
	if cfg.Filled {
		w.skipFill()
	}
	sys, err := openSystem(cfg.System, cfg.Dir, w.rule)
	if err != nil {
		return err
	}
	s := &subject{cfg: cfg, work: w, system: sys}
	if cfg.Fill {
		return errors.Join(s.fill(), s.system.close())
	}
	words := bufio.NewScanner(in)
	for words.Scan() {
		a, err := s.do(strings.TrimSpace(words.Text()))
		if err != nil {
			a.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return errors.Join(err, s.system.close())
		}
	}
	return errors.Join(words.Err(), s.system.close())
}

func (s *subject) do(word string) (answer, error) {
	switch word {
	case askSlice:
		return s.slice()
	case askEnd:
		return s.end()
	}
	return answer{}, fmt.Errorf("asked for %q", word)
}

// fill writes every key once.
func (s *subject) fill() error {
	for key := 0; key < s.cfg.Case.Keys; {
		b, err := s.work.batch(min(workerBatch, s.cfg.Case.Keys-key), func() int { key++; return key - 1 })
		if err == nil {
			err = s.system.apply(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// slice applies the next events, as many as are done in one turn.
func (s *subject) slice() (a answer, err error) {
	if err := s.startProfile(); err != nil {
		return answer{}, err
	}
	runtime.LockOSThread() // its processor time is that of preparing
	defer runtime.UnlockOSThread()
	begun, err := processorTime(syscall.RUSAGE_SELF)
	if err != nil {
		return answer{}, err
	}
	var prepared time.Duration
	var applied time.Duration
	for a.Events < sliceEvents && s.done < s.cfg.Case.Events {
		n := min(workerBatch, sliceEvents-a.Events, s.cfg.Case.Events-s.done)
		batches, cpu, err := s.prepare(n)
		if err != nil {
			return answer{}, err
		}
		prepared += cpu
		start := time.Now()
		for _, b := range batches {
			if err := s.system.apply(b); err != nil {
				return answer{}, err
			}
		}
		applied += time.Since(start)
		a.Events, s.done = a.Events+n, s.done+n
	}
	ended, err := processorTime(syscall.RUSAGE_SELF)
	a.Seconds, a.CPUSeconds = applied.Seconds(), (ended - begun - prepared).Seconds()
	return a, err
}

// prepare makes batches of n events together, and says what processor time this
// thread has spent on them.
func (s *subject) prepare(n int) (batches []*batch, cpu time.Duration, err error) {
	const thisThread = 1 // RUSAGE_THREAD of Linux
	begun, err := processorTime(thisThread)
	if err != nil {
		return nil, 0, err
	}
	for n > 0 {
		size := min(n, s.cfg.Case.BatchRecords)
		b, err := s.work.batch(size, s.work.draw)
		if err != nil {
			return nil, 0, err
		}
		batches, n = append(batches, b), n-size
	}
	ended, err := processorTime(thisThread)
	return batches, ended - begun, err
}

// end tells what is there, after the profile was read.
func (s *subject) end() (a answer, err error) {
	if s.profiled {
		pprof.StopCPUProfile()
		if a.Shares, err = readShares(s.profile); err != nil {
			return answer{}, err
		}
	}
	a.Totals, err = s.system.totals()
	return a, err
}

// startProfile begins the profile with the first slice.
func (s *subject) startProfile() (err error) {
	if s.profiled || s.cfg.System != systemShard {
		return nil
	}
	s.profiled = true
	path := s.cfg.Profile
	if path == "" {
		path = s.cfg.Dir + ".pprof"
	}
	if s.profile, err = os.Create(path); err != nil {
		return err
	}
	return pprof.StartCPUProfile(s.profile)
}

func processorTime(who int) (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
