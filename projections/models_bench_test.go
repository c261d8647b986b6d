package projections_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
)

// BenchmarkApplyModels is what read models add to an apply: three origins write
// sessions and registrations as JSON, in batches of 1,000 records over 50,000 keys.
func BenchmarkApplyModels(b *testing.B) {
	byName := map[string][]derived.Model{"none": nil, "all": projections.Models()}
	for _, m := range projections.Models() {
		byName[m.Name] = []derived.Model{m}
	}
	for _, name := range []string{"none", "event-counts", "registry-by-capability", "sessions-by-user", "all"} {
		b.Run(name, func(b *testing.B) { benchApply(b, byName[name]) })
	}
}

func benchApply(b *testing.B, models []derived.Model) {
	const batchRecords, keys = 1_000, 50_000
	s, err := projections.Open(projections.Config{
		Dir: b.TempDir(), FS: vfs.Default, Models: models,
		Rules: map[events.Stream]merge.Rule{"session": lww.Rule{}, "registry": lww.Rule{}},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	rng := rand.New(rand.NewPCG(1, 9))
	next, millis := map[events.Log]int64{}, int64(1_790_000_000_000)
	batch := func() []projections.Run {
		runs := map[events.Log]*projections.Run{}
		for range batchRecords {
			l := events.Log{Origin: events.FirstOrigin([]events.Region{"eu", "us", "ap"}[rng.IntN(3)]), Stream: "session"}
			value := fmt.Sprintf(`{"user":"user-%d","client":"c","state":"active","node":"node-%d","padding":"0123456789012345678901234567890123456789"}`, rng.IntN(5_000), rng.IntN(9))
			if rng.IntN(2) == 0 {
				l.Stream = "registry"
				value = fmt.Sprintf(`{"kind":"tool","node":"node-%d","capabilities":["c-%d","c-%d"],"padding":"0123456789"}`, rng.IntN(9), rng.IntN(50), rng.IntN(50))
			}
			r := bare(fmt.Sprintf("k%05d", rng.IntN(keys)), []byte(value), millis)
			millis++
			r.Offset, next[l] = next[l], next[l]+1
			if runs[l] == nil {
				runs[l] = &projections.Run{Log: l}
			}
			runs[l].Records = append(runs[l].Records, r)
		}
		var list []projections.Run
		for _, run := range runs {
			list = append(list, *run)
		}
		return list
	}
	for range 3 * keys / batchRecords { // so that keys have slices of several origins
		apply(b, s, batch()...)
	}
	b.ResetTimer()
	var spent time.Duration
	for range b.N {
		b.StopTimer()
		runs := batch()
		begun := processTime(b)
		b.StartTimer()
		apply(b, s, runs...)
		spent += processTime(b) - begun
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batchRecords), "ns/event")
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*batchRecords), "cpu-ns/event")
}

// processTime is what the process has used of the processors: on a busy machine it
// says more than the clock on the wall.
func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
