package applybench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

// process is a measured process, seen from the measuring one. It is stopped but for
// while it does what it is asked for.
type process struct {
	cmd     *exec.Cmd
	system  string
	ask     io.WriteCloser
	answers *bufio.Reader
	stderr  strings.Builder
}

// start starts it in a process group of its own: a Ctrl-C at the terminal comes to
// the measuring process alone, and if that is killed, the kernel ends the stopped
// one, as it does with groups that nobody can wake any more.
func start(cmd *exec.Cmd, system string) (*process, error) {
	p := &process{cmd: cmd, system: system}
	ask, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.ask, p.answers = ask, bufio.NewReader(answers)
	cmd.Stderr = &p.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return p, nil
}

// do has it do one thing, and stops it.
func (p *process) do(word string) (a answer, err error) {
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return answer{}, p.broken(err)
	}
	if _, err := fmt.Fprintln(p.ask, word); err != nil {
		return answer{}, p.broken(err)
	}
	line, err := p.answers.ReadBytes('\n')
	if err != nil {
		return answer{}, p.broken(err)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return answer{}, p.broken(err)
	}
	if a.Error != "" {
		return answer{}, fmt.Errorf("%s: %s", p.system, a.Error)
	}
	return a, p.cmd.Process.Signal(syscall.SIGSTOP)
}

// broken is what to say when it does not answer. It has ended, or does when nothing
// more can be asked; only then are its last words all there.
func (p *process) broken(err error) error {
	_ = p.ask.Close()
	_ = p.cmd.Wait() // how it ended, it says itself
	return fmt.Errorf("the process of %s has failed: %w; it wrote %q", p.system, err, p.stderr.String())
}

func (p *process) peakBytes() (int64, error) { return report.PeakMemoryBytes(p.cmd.Process.Pid) }

// end kills it, stopped or not, and returns when it is gone: what it has on disk
// is of no use any more.
func (p *process) end() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}
