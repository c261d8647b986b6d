package linkbench

import (
	"testing"

	"pgregory.net/rapid"
)

// Requests hold one batch a partition, take the pool's batches in turn and end
// with the first batch that makes up the number of records.
func TestFillRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.Int32Range(1, 120).Draw(t, "partitions")
		pool := make([]batch, rapid.IntRange(1, 30).Draw(t, "pool"))
		for i := range pool {
			size := rapid.SampledFrom([]int{100, 250_000, fillRequestBytes + 1}).Draw(t, "size")
			pool[i] = batch{make([]byte, size), rapid.IntRange(1, 2).Draw(t, "records")}
		}
		records := rapid.Int64Range(1, 400).Draw(t, "records")
		f, seen := filler{topic: "log", partitions: int(partitions), pool: pool}, map[int32]int{}
		for f.records < records {
			before := f.batches
			parts := f.request(records).Topics[0].Partitions
			if len(parts) == 0 || len(parts) != f.batches-before {
				t.Fatalf("%d partitions for batches %d to %d", len(parts), before, f.batches)
			}
			in := map[int32]bool{}
			for _, p := range parts {
				if in[p.Partition] || p.Partition >= partitions {
					t.Fatalf("partition %d of %d, there already: %v", p.Partition, partitions, in[p.Partition])
				}
				in[p.Partition] = true
				seen[p.Partition]++
			}
		}
		if over := f.records - records; over > 1 {
			t.Fatalf("%d records too many", over)
		}
		for p := range partitions {
			if share := f.batches / int(partitions); seen[p] < share || seen[p] > share+1 {
				t.Fatalf("partition %d has %d of %d batches", p, seen[p], f.batches)
			}
		}
	})
}
