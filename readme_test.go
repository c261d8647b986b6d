package evenkeel_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/pipeline/config"
)

// block finds the first block of a kind in the README.
func block(t *testing.T, kind string) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```" + kind + "\n(.*?)```").FindSubmatch(readme)
	if m == nil {
		t.Fatalf("README.md has no block of kind %s", kind)
	}
	return string(m[1])
}

func TestReadmeConfig(t *testing.T) {
	c, err := config.Parse("README.md", []byte(block(t, "yaml")), []string{"KAFKA_PASSWORD=x"})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Regions) != 3 || c.Backup == nil {
		t.Errorf("the README's configuration has %d regions, backup %v", len(c.Regions), c.Backup)
	}
}

// Every command under "Try it" works as it stands.
func TestReadmeCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the commands; make test runs it")
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir, "./cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	lab := exec.Command(filepath.Join(dir, "evenkeel-lab"), "up", "--dir", filepath.Join(dir, "lab"), "--base-port", "0", "-o", "json")
	stdout, err := lab.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	lab.Stderr = &stderr
	if err := lab.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = lab.Process.Signal(os.Interrupt)
		if err := lab.Wait(); err != nil {
			t.Errorf("lab: %v\n%s", err, stderr.String())
		}
	}()
	var listing struct {
		Control string
		Regions []struct{ API string }
	}
	if err := json.NewDecoder(stdout).Decode(&listing); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	for line := range strings.Lines(block(t, "sh")) {
		c := exec.Command("sh", "-c", line)
		c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "EVENKEEL_SERVER="+listing.Regions[0].API, "EVENKEEL_LAB="+listing.Control)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
}
