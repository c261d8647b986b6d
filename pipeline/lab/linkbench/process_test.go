package linkbench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// A process is ended by stop, one that has ended already as well, and what it wrote
// last is kept.
func TestProcess(t *testing.T) {
	for name, c := range map[string]struct {
		script, words string
		ends          bool
	}{
		"runs on":       {"echo begun; exec sleep 600", "begun", false},
		"ends":          {"for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i; done; exit 3", "line 4\n    line 5", true},
		"says nothing":  {"exit 0", "it wrote nothing", true},
		"writes errors": {"echo oh >&2; exit 1", "oh", true},
	} {
		log := filepath.Join(t.TempDir(), "log")
		p, err := startProcess(exec.Command("sh", "-c", c.script), log)
		if err != nil {
			t.Fatal(err)
		}
		if c.ends {
			<-p.ended
		} else {
			for deadline := time.Now().Add(10 * time.Second); !strings.Contains(p.lastWords(), c.words) && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		p.stop()
		p.stop()
		if words := p.lastWords(); !strings.Contains(words, c.words) || strings.Contains(words, "line 3\n") {
			t.Errorf("%s: %q", name, words)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", p.pid())); err == nil {
			t.Errorf("%s: it still runs", name)
		}
	}
	if _, err := startProcess(exec.Command("/nowhere/at/all"), filepath.Join(t.TempDir(), "log")); err == nil {
		t.Error("started what is not there")
	}
}

// What kafka.sh says is missing is passed on, with an exit code that says so too,
// and nothing is left behind.
func TestNoJava(t *testing.T) {
	dir := t.TempDir()
	script, calls := filepath.Join(dir, "kafka.sh"), filepath.Join(dir, "calls")
	text := "#!/bin/sh\necho \"$1\" >>" + calls + "\n[ \"$1\" = clean ] || { echo java is missing >&2; exit 7; }\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	saved := false
	_, err := Run(t.Context(), Config{
		Script: script, Dir: filepath.Join(dir, "data"), BasePort: 1, Systems: Systems(), Out: &out,
		Save: func(*Report) error { saved = true; return nil },
	})
	if events.KindOf(err) != events.KindNotReady || !strings.Contains(out.String(), "java is missing") {
		t.Errorf("%v; output %q", err, out.String())
	}
	if got, err := os.ReadFile(calls); err != nil || string(got) != "clean\nup\nclean\n" {
		t.Errorf("calls %q, %v", got, err)
	}
	if saved {
		t.Error("results of nothing were saved")
	}
}

func TestMirrorCommands(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "case")
	cfg := MirrorConfig{System: MirrorMaker2, Source: "127.0.0.1:1", Dest: "127.0.0.1:2", Topic: "log", Partitions: 3, Codec: "zstd"}
	if _, err := mirrorCommand(cfg, "/libs", prefix); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(prefix + ".properties")
	if err != nil || strings.Contains(string(text), "%!") {
		t.Errorf("properties %s, %v", text, err)
	}
	for _, line := range []string{
		"us-east-1.bootstrap.servers = 127.0.0.1:1", "us-west-1.bootstrap.servers = 127.0.0.1:2", "us-east-1->us-west-1.topics = log",
		"us-west-1.producer.compression.type = zstd",
	} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("no line %q in %s", line, text)
		}
	}
	cfg.System = Evenkeel
	cmd, err := mirrorCommand(cfg, "", prefix)
	if err != nil || !strings.HasSuffix(strings.Join(cmd.Args, " "),
		"mirror --system evenkeel --source 127.0.0.1:1 --dest 127.0.0.1:2 --topic log --partitions 3 --codec zstd --latency=false") {
		t.Errorf("%v, %v", cmd, err)
	}
	for _, wrong := range []MirrorConfig{
		{System: "rsync", Source: "a", Dest: "b", Topic: "c", Partitions: 1}, {System: Evenkeel, Dest: "b", Topic: "c", Partitions: 1},
		{System: ConsumeProduce, Source: "a", Dest: "b", Topic: "c"},
	} {
		if err := Mirror(t.Context(), wrong); events.KindOf(err) != events.KindInvalid {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
