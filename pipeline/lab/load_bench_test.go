package lab_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

// BenchmarkLoad loads events of about 190 bytes, spread over three regions and
// 100,000 keys, while links mirror and all regions fold. An operation is one
// event acknowledged by its region's log.
func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	l, err := lab.Up(b.Context(), lab.Config{Dir: filepath.Join(dir, "lab")}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := l.Down(); err != nil {
			b.Error(err)
		}
	}()
	nodes := map[events.Region]load.Node{}
	for _, r := range l.Regions() {
		if nodes[r], err = l.Client(r); err != nil {
			b.Fatal(err)
		}
	}
	runs := 0
	for b.Loop() {
		b.StopTimer()
		runs++
		path := filepath.Join(dir, fmt.Sprintf("events-%d.jsonl", runs))
		if err := writeEvents(path, l.Regions(), eventsPerLoad); err != nil {
			b.Fatal(err)
		}
		fields := load.DefaultFields()
		fields.Value = ""
		input, err := load.JSONLines(path, fields)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := load.Run(b.Context(), input, nodes, load.Config{Stream: "config", Progress: path + ".progress"}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(runs*eventsPerLoad)/b.Elapsed().Seconds(), "events/s")
}

const eventsPerLoad = 200_000

func writeEvents(path string, regions []events.Region, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for i := range n {
		fmt.Fprintf(w, `{"seq":%d,"key":"entity-%06d","region":%q,"op":"put","blob":"%040x","size":%d,"path":"some/path/of/some/length/file-%d.erl"}`+"\n",
			i, i*7919%100_000, regions[i/500%len(regions)], i*2654435761, i%9999, i%5000)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
