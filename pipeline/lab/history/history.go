// Package history is a piece of real life to try things on: every change of
// every file in the public history of the erlmcp project, as 18,543 events from
// three regions, and the true state after the first 1,477, 12,716 and all of
// them, taken from the version control system itself and not from a fold of these
// events.
package history

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

//go:embed events.jsonl.gz state-*.tsv.gz
var files embed.FS

// Events is the number of events.
const Events = 18_543

// Checkpoints are the numbers of events after which the true state is known.
func Checkpoints() []int { return []int{1_477, 12_716, Events} }

// Stream is the stream that the events are loaded into.
const Stream events.Stream = "config"

// Fields say where in a line the parts of an event are. The whole line is the
// value, and its place in the history is its clock, so that the order of the
// history decides whichever region an event is written to.
func Fields() load.Fields {
	return load.Fields{Key: "path", Region: "region", Clock: "seq", Op: "op"}
}

// WriteTo writes the events from seq from to below seq to, JSON lines, to a file
// to be loaded.
func WriteTo(path string, from, to int) error {
	var lines bytes.Buffer
	seq := 0
	err := Lines(func(line []byte) error {
		if seq >= from && seq < to {
			lines.Write(line)
			lines.WriteByte('\n')
		}
		seq++
		return nil
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, lines.Bytes(), 0o644)
}

// Lines reads the events, one JSON object each.
func Lines(each func(line []byte) error) error {
	return readLines("events.jsonl.gz", each)
}

// State is the true state after n events, one of Checkpoints: path → id of its
// content.
func State(n int) (map[string]string, error) {
	state := map[string]string{}
	err := readLines(fmt.Sprintf("state-%d.tsv.gz", n), func(line []byte) error {
		path, blob, ok := strings.Cut(string(line), "\t")
		if !ok {
			return fmt.Errorf("state after %d events: line %q has no tab", n, line)
		}
		state[path] = blob
		return nil
	})
	return state, err
}

func readLines(name string, each func(line []byte) error) error {
	f, err := files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	lines := bufio.NewReader(z)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			if err := each([]byte(strings.TrimSuffix(string(line), "\n"))); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}
