package projections_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// BenchmarkGet reads single keys of 100,000, of 300 bytes each, out of a shard that is all in
// the block cache: keys that one of the origins has written, and keys that are not there.
func BenchmarkGet(b *testing.B) {
	for _, origins := range []int{1, 3, 12} {
		s := readShard(b, origins)
		for _, suffix := range []string{"", "-absent"} {
			b.Run(fmt.Sprintf("%d origins%s", origins, suffix), func(b *testing.B) { benchGet(b, s, suffix) })
		}
		closeShard(b, s)
	}
}

const readKeys = 100_000

func readShard(b *testing.B, origins int) *projections.Shard {
	cache := pebble.NewCache(256 << 20)
	b.Cleanup(cache.Unref)
	s, err := projections.Open(projections.Config{Dir: b.TempDir(), FS: vfs.Default, Cache: cache, MemTableBytes: 4 << 20, Rules: rules()})
	if err != nil {
		b.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{1})
	for from := 0; from < 3*readKeys; from += 1000 { // each key about three times
		runs := make([]projections.Run, origins)
		for i := range 1000 {
			n := from + i
			if n >= readKeys {
				n = int(random.Uint64() % readKeys)
			}
			run := &runs[n%origins]
			run.Log = events.Log{Origin: events.FirstOrigin(events.Region(fmt.Sprintf("region-%d", n%origins))), Stream: "session"}
			r := &kgo.Record{Key: fmt.Appendf(nil, "key-%08d", n), Value: make([]byte, 300), Offset: s.Next(run.Log) + int64(len(run.Records))}
			_, _ = random.Read(r.Value) // never fails
			run.Records = append(run.Records, r)
		}
		apply(b, s, runs...)
	}
	return s
}

func benchGet(b *testing.B, s *projections.Shard, suffix string) {
	shards := []*projections.Shard{s}
	b.ReportAllocs()
	begun := processTime(b)
	for b.Loop() {
		e := getOne(b, shards, "session", fmt.Sprintf("key-%08d%s", rand.IntN(readKeys), suffix))
		if e.Exists != (suffix == "") {
			b.Fatalf("%+v", e)
		}
	}
	b.ReportMetric(float64((processTime(b)-begun).Nanoseconds())/float64(b.N), "cpu-ns/op")
}
