//go:build kafka

package lab_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/pipeline/lab/demo"
)

// The demo, with its checks against the truth, on real and fresh clusters.
func TestKafkaDemo(t *testing.T) {
	kafka := map[events.Region]string{}
	for _, r := range lab.DefaultRegions() {
		name := "EVENKEEL_KAFKA_" + strings.ToUpper(strings.ReplaceAll(r.String(), "-", "_"))
		if kafka[r] = os.Getenv(name); kafka[r] == "" {
			t.Fatalf("%s is not set; run this by: make test-kafka", name)
		}
	}
	l, err := lab.Up(t.Context(), lab.Config{Dir: t.TempDir(), Kafka: kafka}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	}()
	d := &demo.Demo{Lab: l, Out: t.Output(), Dir: t.TempDir()}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}
