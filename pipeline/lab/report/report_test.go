package report

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestFacts(t *testing.T) {
	if got := fieldOf("processor\t: 0\nmodel name\t: Some CPU: fast\nmodel name\t: Other\n", "model name"); got != "Some CPU: fast" {
		t.Errorf("field %q", got)
	}
	if got := fieldOf("a: b", "model name"); got != "" {
		t.Errorf("a field that is not there: %q", got)
	}
	settings := []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}
	if got := revision(settings); got != "abc+changes" {
		t.Errorf("revision %q", got)
	}
	if m := ThisMachine(); m.CPUs < 1 || m.Go == "" || m.Kernel == "" || !strings.HasSuffix(m.MemoryTotal, "kB") {
		t.Errorf("this machine: %+v", m)
	}
}
