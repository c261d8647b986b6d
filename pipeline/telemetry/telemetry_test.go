package telemetry_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/pipeline/telemetry"
)

func TestLoggerForms(t *testing.T) {
	for _, isJSON := range []bool{false, true} {
		var b bytes.Buffer
		log := telemetry.NewLogger(&b, slog.LevelInfo, isJSON)
		log.Debug("unheard")
		log.Info("heard", "region", "us-east-1", "bytes", 5)
		if lines := strings.Count(b.String(), "\n"); lines != 1 {
			t.Errorf("%d lines: %s", lines, b.String())
		}
		if !isJSON {
			if !strings.HasSuffix(b.String(), "level=INFO msg=heard region=us-east-1 bytes=5\n") {
				t.Error(b.String())
			}
			continue
		}
		var line struct {
			Level, Msg, Region string
			Bytes              int
		}
		if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Level != "INFO" || line.Msg != "heard" || line.Region != "us-east-1" || line.Bytes != 5 {
			t.Errorf("%s: %v", b.String(), err)
		}
	}
}

// What a Kafka client says is one level less urgent here, and it is asked for no
// more than is written.
func TestKafkaLogger(t *testing.T) {
	for level, want := range map[slog.Level]kgo.LogLevel{
		slog.LevelDebug: kgo.LogLevelInfo, slog.LevelInfo: kgo.LogLevelError, slog.LevelWarn: kgo.LogLevelError, slog.LevelError: kgo.LogLevelNone,
	} {
		var b bytes.Buffer
		log := telemetry.KafkaLogger(telemetry.NewLogger(&b, level, false))
		if got := log.Level(); got != want {
			t.Errorf("at %s the client is asked for %s, want %s", level, got, want)
		}
		log.Log(kgo.LogLevelError, "broke", "broker", 1)
		if wrote := strings.Contains(b.String(), "level=WARN") && strings.Contains(b.String(), "message=broke broker=1"); wrote != (level <= slog.LevelWarn) {
			t.Errorf("at %s an error is written as %q", level, b.String())
		}
		b.Reset()
		log.Log(kgo.LogLevelWarn, "hm")
		log.Log(kgo.LogLevelInfo, "by the way", "odd")
		if wrote := strings.Count(b.String(), "level=DEBUG") == 2; wrote != (level == slog.LevelDebug) {
			t.Errorf("at %s warnings are written as %q", level, b.String())
		}
	}
}

// Registries are apart: the same metrics can be in two of them.
func TestRegistriesAreApart(t *testing.T) {
	for range 2 {
		r := telemetry.NewRegistry()
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "test_total", Help: "A test."})
		r.MustRegister(c)
		c.Inc()
		page := httptest.NewRecorder()
		telemetry.MetricsPage(r).ServeHTTP(page, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
		if text := page.Body.String(); page.Code != http.StatusOK || !strings.Contains(text, "test_total 1\n") || !strings.Contains(text, "go_goroutines") {
			t.Errorf("HTTP %d: %s", page.Code, text)
		}
	}
}
