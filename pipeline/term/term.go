// Package term writes for people at a terminal: tables, numbers and progress.
// Where the output is no terminal, progress becomes plain lines.
package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	xterm "golang.org/x/term"
)

// Table writes rows below a header, in columns. A cell stays in its line,
// whatever is in it.
func Table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		for i, cell := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, oneLine.Replace(cell))
		}
		fmt.Fprintln(t)
	}
	line(header)
	for _, row := range rows {
		line(row)
	}
	return t.Flush()
}

var oneLine = strings.NewReplacer("\t", " ", "\n", " ", "\v", " ", "\f", " ", "\r", " ")

// Count writes a number with commas: 18,543.
func Count[N ~int | ~int32 | ~int64](n N) string {
	digits := strings.TrimPrefix(fmt.Sprint(n), "-")
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	text := strings.Join(append([]string{digits}, parts...), ",")
	if n < 0 {
		return "-" + text
	}
	return text
}

// Bytes writes a size: 12.3 MiB.
func Bytes(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/(1<<10), 0
	for size >= 1023.95 && unit < len(units)-1 { // would be written as 1024.0
		size, unit = size/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", size, units[unit])
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && xterm.IsTerminal(int(f.Fd()))
}

// Waiting shows, at a terminal, for how long something has been under way of which no more is
// known, until end is called. Where there is no terminal nobody watches, and it says nothing.
func Waiting(out io.Writer, what string) (end func()) {
	if !isTerminal(out) {
		return func() {}
	}
	return waiting(out, what)
}

// waitingFrom is how long something is under way before that is shown: most calls are over by then.
const waitingFrom = 2 * time.Second

func waiting(out io.Writer, what string) (end func()) {
	begun, stop, done := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-stop:
				if shown {
					fmt.Fprint(out, "\r\x1b[K") // the line is for what comes of it
				}
				return
			case now := <-tick.C:
				if took := now.Sub(begun); took >= waitingFrom {
					shown = true
					fmt.Fprintf(out, "\r%s is under way, for %s so far\x1b[K", what, took.Round(time.Second))
				}
			}
		}
	}()
	return func() {
		close(stop)
		<-done
	}
}

// Progress shows how far long work is. Its methods may be called from several
// goroutines.
type Progress struct {
	mu    sync.Mutex
	out   io.Writer
	title string
	total int64
	done  int64
	begun time.Time
	said  time.Time

	bars *mpb.Progress // nil: no terminal
	bar  *mpb.Bar
}

// plainInterval is how often progress is told where there is no terminal.
const plainInterval = 2 * time.Second

// NewProgress begins to show work of total steps of which done are done.
func NewProgress(out io.Writer, title string, total, done int64) *Progress {
	p := &Progress{out: out, title: title, total: total, done: done, begun: time.Now(), said: time.Now()}
	if isTerminal(out) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))
		p.bar = p.bars.AddBar(total,
			mpb.PrependDecorators(decor.Name(title+" "), decor.CountersNoUnit("%d / %d")),
			mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageSpeed(0, "%.0f/s"), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)))
		p.bar.SetCurrent(done)
	}
	return p
}

// Add notes that n more steps are done.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.bar != nil {
		p.bar.IncrInt64(n)
		return
	}
	if now := time.Now(); now.Sub(p.said) >= plainInterval {
		p.said = now
		fmt.Fprintf(p.out, "%s %s / %s\n", p.title, Count(p.done), Count(p.total))
	}
}

// End stops showing.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.bar.Abort(false) // leaves a finished bar as it is
		p.bars.Wait()
	}
}
