package linkbench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

func sampleRow(system, codec string, rttMs int64, recordsPerS, cpu float64) Row {
	return Row{
		System: system, Codec: codec, RecordBytes: 1000, Batch: "large", Partitions: 6, RTTMs: rttMs,
		Records: 10, RecordsInCopy: 10, Seconds: 1.5, RecordsPerS: recordsPerS, MBPerS: recordsPerS / 1000, CPUSPerGB: cpu, PeakMB: 100,
	}
}

func TestRow(t *testing.T) {
	began := time.Now()
	c := Case{Codec: "lz4", RecordBytes: 500, Partitions: 12, RTT: 80 * time.Millisecond}
	r := row(c, Evenkeel, 4000,
		sample{at: began, records: 1000, cpu: 2 * time.Second},
		sample{at: began.Add(2 * time.Second), records: 4000, cpu: 5 * time.Second}, 123*megabyte)
	want := Row{
		System: Evenkeel, Codec: "lz4", RecordBytes: 500, Batch: "large", Partitions: 12, RTTMs: 80, Records: 4000, Runs: 1, Seconds: 2,
		RecordsPerS: 1500, MBPerS: 0.75, CPUSPerGB: 2000, PeakMB: 123,
	}
	if r != want {
		t.Errorf("got %+v\nwant %+v", r, want)
	}
	if r.caseName() != c.Name() {
		t.Errorf("the row is of case %s, was measured as %s", r.caseName(), c.Name())
	}
}

// Two runs of one case count by what was measured in each.
func TestRowsTogether(t *testing.T) {
	began := time.Now()
	c := Case{Codec: "lz4", RecordBytes: 500, Partitions: 12}
	of := func(seconds int, records int64, cpu time.Duration, peak int64) Row {
		return row(c, Evenkeel, 9000, sample{at: began}, sample{at: began.Add(time.Duration(seconds) * time.Second), records: records, cpu: cpu}, peak*megabyte)
	}
	got, want := of(1, 1000, time.Second, 70).and(of(3, 2000, 5*time.Second, 50)), of(4, 3000, 6*time.Second, 70)
	want.Runs = 2
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestReportIsReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "not", "there", "link.json")
	r := &Report{
		Machine: Machine{report.ThisMachine(), "4.2.0"}, Short: true, Seed: 7,
		Rows:    []Row{sampleRow(Evenkeel, "lz4", 0, 1000, 0.5)},
		Latency: []Latency{{Evenkeel, 80, 42.5, 95}},
	}
	for range 2 { // the second time there is one already
		if err := r.WriteFile(path); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, *r) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, *r)
	}
	for _, name := range []string{
		`"system": "evenkeel"`, `"codec"`, `"record_bytes"`, `"batch"`, `"partitions"`, `"rtt_ms"`, `"records_per_s"`, `"mb_per_s"`,
		`"cpu_s_per_gb"`, `"peak_mb"`, `"p50_ms": 42.5`, `"p99_ms": 95`,
	} {
		if !strings.Contains(string(text), name) {
			t.Errorf("no %s in %s", name, text)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files: %v, %v", left, err)
	}
}

func TestVerdicts(t *testing.T) {
	tiny := func(r Row) Row { r.Batch = "tiny"; return r }
	r := &Report{
		Rows: []Row{
			sampleRow(MirrorMaker2, "lz4", 0, 100, 10), sampleRow(Evenkeel, "lz4", 0, 300, 1), sampleRow(ConsumeProduce, "lz4", 0, 200, 4),
			sampleRow(MirrorMaker2, "none", 0, 100, 8), sampleRow(Evenkeel, "none", 0, 149, 3),
			sampleRow(MirrorMaker2, "gzip", 0, 100, 8), sampleRow(Evenkeel, "gzip", 0, 50, 30),
			tiny(sampleRow(MirrorMaker2, "lz4", 0, 100, 20)), tiny(sampleRow(Evenkeel, "lz4", 0, 299, 40)),
			sampleRow(Evenkeel, "lz4", 80, 209, 1), sampleRow(Evenkeel, "zstd", 0, 1, 1),
		},
		Latency: []Latency{{MirrorMaker2, 80, 1, 1}, {Evenkeel, 0, 2, 10.5}, {Evenkeel, 80, 50, 89}},
	}
	var got []string
	for _, v := range r.verdicts() {
		got = append(got, strings.Join(v.cells(), " | "))
	}
	const near = "lz4-1000B-large-p6-0ms"
	want := []string{
		near + " | evenkeel | " + measureSpeed + " | 3.00 | ≥ 3 | reached",
		near + " | evenkeel | " + measureCPU + " | 0.10 | ≤ 0.1 | reached",
		near + " | consume-produce | " + measureSpeed + " | 2.00 |  | ",
		near + " | consume-produce | " + measureCPU + " | 0.40 |  | ",
		"none-1000B-large-p6-0ms | evenkeel | " + measureSpeed + " | 1.49 | ≥ 1.5 | missed",
		"none-1000B-large-p6-0ms | evenkeel | " + measureCPU + " | 0.38 | ≤ 0.25 | missed",
		"gzip-1000B-large-p6-0ms | evenkeel | " + measureSpeed + " | 0.50 |  | ",
		"gzip-1000B-large-p6-0ms | evenkeel | " + measureCPU + " | 3.75 |  | ",
		"lz4-1000B-tiny-p6-0ms | evenkeel | " + measureSpeed + " | 2.99 | ≥ 3 | missed",
		"lz4-1000B-tiny-p6-0ms | evenkeel | " + measureCPU + " | 2.00 |  | ",
		"lz4-1000B-large-p6-80ms | evenkeel | " + measureNear + " | 0.70 | ≥ 0.7 | missed",
		"latency-0ms | evenkeel | " + measureLatency + " | 10.50 ms | ≤ 10 ms | missed",
		"latency-80ms | evenkeel | " + measureLatency + " | 89.00 ms | ≤ 90 ms | reached",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTables(t *testing.T) {
	var out bytes.Buffer
	if err := (&Report{}).WriteTables(&out); err != nil || out.Len() > 0 {
		t.Errorf("of nothing: %q, %v", out.String(), err)
	}
	r := &Report{
		Rows:    []Row{sampleRow(MirrorMaker2, "lz4", 0, 100_000, 10), sampleRow(Evenkeel, "lz4", 0, 600_000, 0.75)},
		Latency: []Latency{{Evenkeel, 0, 2, 7}},
	}
	if err := r.WriteTables(&out); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"SYSTEM        CODEC  RECORD B  BATCH  PARTITIONS  RTT   RECORDS/S  MB/S   CPU S/GB  PEAK MB\n",
		"evenkeel      lz4    1000      large  6           0 ms  600,000    600.0  0.75      100\n",
		"\nSingle records through an idle link:\n", "7.0 ms", "reached\n",
	} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, out.String())
		}
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		n     int
		share float64
		want  time.Duration
	}{
		{1, 0.99, 1}, {2, 0.5, 1}, {3, 0.5, 2}, {100, 0.99, 99}, {100, 0.5, 50}, {300, 0.99, 297}, {300, 1, 300}, {10, 0, 1},
	} {
		sorted := make([]time.Duration, c.n)
		for i := range sorted {
			sorted[i] = time.Duration(i + 1)
		}
		if got := quantile(sorted, c.share); got != c.want {
			t.Errorf("quantile %v of 1 to %d: %v, want %v", c.share, c.n, got, c.want)
		}
	}
}

// Each case's name is its own, so that results can be told apart, and each log
// is large enough to be measured.
func TestCases(t *testing.T) {
	for _, short := range []bool{false, true} {
		seen := map[string]bool{}
		for _, c := range Cases(short) {
			if seen[c.Name()] {
				t.Errorf("two cases are named %s", c.Name())
			}
			seen[c.Name()] = true
			if _, err := codecNamed(c.Codec); err != nil || c.Records < 10_000 || c.Partitions < 1 || c.RecordBytes < 100 {
				t.Errorf("case %+v: %v", c, err)
			}
			if bytes := c.Records * c.RecordBytes; bytes > 3000*megabyte || bytes < 100*megabyte {
				t.Errorf("case %s: %d MB", c.Name(), bytes/megabyte)
			}
		}
		for _, name := range []string{"lz4-1000B-large-p12-80ms", "gzip-100B-large-p12-0ms", "lz4-1000B-large-p100-0ms", "none-300B-tiny-p12-0ms"} {
			if seen[name] == short {
				t.Errorf("short %v: case %s is there: %v", short, name, seen[name])
			}
		}
	}
}
