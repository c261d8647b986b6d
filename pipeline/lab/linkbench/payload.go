package linkbench

import (
	"fmt"
	"math/rand/v2"
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

// payload makes records that look like the events of a service: JSON with the
// same field names in each, ids and hashes that do not compress, and words that
// do; lz4 and zstd shrink it to a third or a fifth. The same seed makes the same
// records.
type payload struct {
	random *rand.Rand
	seq    int
}

func newPayload(seed uint64) *payload {
	return &payload{random: rand.New(rand.NewPCG(seed, seed))}
}

var (
	operations = []string{"put", "patch", "delete", "rename", "annotate"}
	words      = []string{
		"account", "balance", "customer", "delivery", "entry", "forwarded", "granted", "handover", "invoice", "journal", "ledger",
		"merchant", "notified", "order", "payment", "quantity", "received", "shipment", "transfer", "updated", "voucher", "warehouse",
	}
)

// A record ends with a note, which brings it to its size.
const (
	noteBegin, noteEnd = `,"note":"`, `"}`
	fieldBytesMax      = 45 // of those before it
)

// record makes the next one, of exactly size bytes, key and value together, 100 at least.
func (p *payload) record(size int) record {
	p.seq++
	entity := p.random.IntN(100_000)
	key := fmt.Appendf(nil, "entity-%06d", entity)
	value := fmt.Appendf(make([]byte, 0, size+64), `{"seq":%d,"op":%q,"id":"%06d","hash":"%08x"`,
		p.seq, operations[p.random.IntN(len(operations))], entity, p.random.Uint32())
	end := size - len(key) - len(noteBegin) - len(noteEnd)
	for i := 0; len(value)+fieldBytesMax < end; i++ {
		if i%4 == 3 {
			value = fmt.Appendf(value, `,"reference_%d":"%016x"`, i%16, p.random.Uint64())
			continue
		}
		value = fmt.Appendf(value, `,"attribute_%d":"%s %s"`, i%16,
			words[p.random.IntN(len(words))], words[p.random.IntN(len(words))])
	}
	value = append(value, noteBegin...)
	for n := end - len(value) + len(noteBegin); n > 0; {
		word := words[p.random.IntN(len(words))] + " "
		word = word[:min(len(word), n)]
		value, n = append(value, word...), n-len(word)
	}
	value = append(value, noteEnd...)
	return record{key, value}
}

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
	p := newPayload(seed)
	count, size := poolBytes/largeBatchBytes, func() int { return largeBatchBytes / c.RecordBytes }
	if c.Tiny {
		count, size = tinyBatches, func() int { return 1 + p.random.IntN(2) }
	}
	var pool []batch
	for range count {
		records := make([]record, size())
		for j := range records {
			records[j] = p.record(c.RecordBytes)
		}
		pool = append(pool, batch{e.batch(records, unixMilli), len(records)})
	}
	return pool, nil
}
