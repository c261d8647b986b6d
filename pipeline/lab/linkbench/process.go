package linkbench

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const stopGrace = 5 * time.Second // then it is killed

// process is a mirroring process under way.
type process struct {
	cmd     *exec.Cmd
	logFile string
	ended   chan struct{} // closed when it has
}

// startProcess starts it in a process group of its own, so that it is this program
// alone that ends it, on a Ctrl-C at the terminal too.
func startProcess(cmd *exec.Cmd, logFile string) (*process, error) {
	f, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, logFile: logFile, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState, good or bad
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process and returns when it has.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(stopGrace):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// lastWords is the end of what it has written.
func (p *process) lastWords() string {
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines = lines[max(0, len(lines)-8):]; lines[0] == "" {
		return "it wrote nothing"
	}
	return "the end of " + p.logFile + ":\n    " + strings.Join(lines, "\n    ")
}
