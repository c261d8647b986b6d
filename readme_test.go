package evenkeel_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/lab"
)

// block finds the first block of a kind in the README.
func block(t *testing.T, kind string) string {
	t.Helper()
	return blocks(t, kind)[0]
}

// blocks finds all blocks of a kind in the README; there is one.
func blocks(t *testing.T, kind string) (found []string) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllSubmatch(readme, -1) {
		found = append(found, string(m[1]))
	}
	if len(found) == 0 {
		t.Fatalf("README.md has no block of kind %s", kind)
	}
	return found
}

func TestReadmeConfig(t *testing.T) {
	c, err := config.Parse("README.md", []byte(block(t, "yaml")), []string{"KAFKA_PASSWORD=x"})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Regions) != 3 || c.Backup == nil || c.Backup.IdentityFile == "" {
		t.Errorf("the README's configuration has %d regions, backup %v", len(c.Regions), c.Backup)
	}
}

// Every command under "Try it" and "Read what was written" works as it stands, one after the other, and
// says what stands behind it.
func TestReadmeCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the commands; make test runs it")
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir, "./cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	up := exec.Command(filepath.Join(dir, "evenkeel-lab"), "up", "--dir", filepath.Join(dir, "lab"), "--base-port", "0", "-o", "json")
	stdout, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	up.Stderr = &stderr
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = up.Process.Signal(os.Interrupt)
		if err := up.Wait(); err != nil {
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
	inLab := func(address string) string {
		t.Helper()
		port, err := strconv.Atoi(address[strings.LastIndex(address, ":")+1:])
		const portsOfRegion = 2 // API, Kafka
		if n := port - lab.DefaultBasePort; err == nil && n >= 0 && n%portsOfRegion == 0 && n/portsOfRegion < len(listing.Regions) {
			return listing.Regions[n/portsOfRegion].API
		}
		t.Fatalf("%s is no API of a lab with default ports", address)
		return ""
	}
	commands := blocks(t, "sh")
	for line := range strings.Lines(commands[0] + commands[1]) {
		line = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).ReplaceAllStringFunc(line, inLab)
		c := exec.Command("sh", "-c", line)
		c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "EVENKEEL_SERVER="+listing.Regions[0].API, "EVENKEEL_LAB="+listing.Control)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		if _, says, ok := strings.Cut(line, "# … "); ok && !strings.Contains(string(out), strings.TrimSpace(says)) {
			t.Errorf("%s: it says\n%s", line, out)
		}
	}
}
