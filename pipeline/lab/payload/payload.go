// Package payload makes records for benchmarks that look like the events of a
// service: JSON with the same field names in each, ids and hashes that do not
// compress, and words that do; lz4 and zstd shrink them to a third or a fifth.
package payload

import (
	"fmt"
	"math/rand/v2"
)

// Record is a key and a value.
type Record struct{ Key, Value []byte }

// Payload makes records; the same seed makes the same ones. It is for one
// goroutine.
type Payload struct {
	random *rand.Rand
	seq    int
}

// New begins a sequence of records.
func New(seed uint64) *Payload {
	return &Payload{random: rand.New(rand.NewPCG(seed, seed))}
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

// Record makes the next one, of exactly size bytes, key and value together, 100 at least.
func (p *Payload) Record(size int) Record {
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
	return Record{key, value}
}
