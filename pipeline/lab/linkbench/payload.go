package linkbench

import (
	"math/rand/v2"

	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
)

const (
	// largeBatchBytes is how much a producer that is set for throughput puts into a
	// batch; brokers take 1,048,588 bytes by default.
	largeBatchBytes = 900 * kilobyte
	// poolBytes bounds the batches that are made; a log repeats them. Codecs and
	// links see one batch at a time, so repetition gains nobody anything.
	poolBytes   = 64 * megabyte
	tinyBatches = 3000
)

// batch is an encoded one, with the number of its records.
type batch struct {
	bytes   []byte
	records int
}

// batches makes the pool of which a case's log consists.
func batches(c Case, seed uint64, unixMilli int64) ([]batch, error) {
	e, err := newEncoder(c.Codec)
	if err != nil {
		return nil, err
	}
	p, random := payload.New(seed), rand.New(rand.NewPCG(seed, seed))
	count, size := poolBytes/largeBatchBytes, func() int { return largeBatchBytes / c.RecordBytes }
	if c.Tiny {
		count, size = tinyBatches, func() int { return 1 + random.IntN(2) }
	}
	var pool []batch
	for range count {
		records := make([]payload.Record, size())
		for j := range records {
			records[j] = p.Record(c.RecordBytes)
		}
		pool = append(pool, batch{e.batch(records, unixMilli), len(records)})
	}
	return pool, nil
}
