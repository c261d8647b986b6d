package replicator

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

const (
	appendTimeBit    = 0x08
	transactionalBit = 0x10
	controlBit       = 0x20
	horizonBit       = 0x40
)

// piece is a batch of a log, as a test has it.
type piece struct {
	base       int64
	deltas     []int32 // of the records that are left; none: empty
	last       int32   // delta of the last offset
	attributes int16
	producer   int64
	epoch      int32 // of the leader
	valueBytes int   // at least, of each record
	aborted    bool  // what the transaction of the piece comes to
}

func (b piece) next() int64 { return b.base + int64(b.last) + 1 }

// values are the records that a mirror must have of the piece: each tells its
// offset.
func (b piece) values() (offsets []int64) {
	if b.attributes&controlBit != 0 || b.aborted {
		return nil
	}
	for _, d := range b.deltas {
		offsets = append(offsets, b.base+int64(d))
	}
	return offsets
}

func (b piece) encode() []byte {
	rb := kmsg.RecordBatch{
		FirstOffset: b.base, PartitionLeaderEpoch: b.epoch, Magic: 2, Attributes: b.attributes, LastOffsetDelta: b.last,
		FirstTimestamp: 1000, MaxTimestamp: 1000 + int64(b.last), ProducerID: b.producer, FirstSequence: 5, NumRecords: int32(len(b.deltas)),
	}
	for _, d := range b.deltas {
		value := strconv.AppendInt(nil, b.base+int64(d), 10)
		r := kmsg.Record{TimestampDelta64: int64(d), OffsetDelta: d, Key: make([]byte, b.valueBytes), Value: value}
		n := len(r.AppendTo(nil)) - 1 // the length 0 has one byte
		r.Length = int32(n)
		rb.Records = r.AppendTo(rb.Records)
	}
	rb.Length = int32(batch.HeaderBytes - 12 + len(rb.Records))
	raw := rb.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// plain is a dense piece of n records.
func plain(base int64, n, valueBytes int) piece {
	b := piece{base: base, last: int32(n - 1), producer: -1, valueBytes: valueBytes}
	for i := range n {
		b.deltas = append(b.deltas, int32(i))
	}
	return b
}

func (b piece) with(attributes int16, producer int64) piece {
	b.attributes |= attributes
	b.producer = producer
	return b
}

// bench is a preparer with one flow.
type bench struct {
	*preparer
	f *flow
	p *part
}

func newBench() *bench {
	m := &mover{
		cfg:    Config{Origin: events.FirstOrigin("us"), Destination: "eu", WindowBytes: 1 << 30},
		source: &cluster{name: "us"}, dest: &cluster{name: "eu"}, metrics: NewMetrics(prometheus.NewRegistry()), log: slog.New(slog.DiscardHandler),
		kick: make(chan struct{}, 1), room: make(chan struct{}), parts: map[partition]*part{}, troubles: map[string]error{},
		fetchers: map[lane]*fetcher{}, appenders: map[lane]*appender{},
	}
	b := &bench{preparer: &preparer{m: m, recoder: batch.NewRecoder()}}
	b.p = &part{partition: partition{"t", 0}, mirror: "us.t", state: Mirroring}
	m.appenders[b.p.lane(0)] = newAppender(m, b.p.lane(0))
	m.parts[b.p.partition] = b.p
	b.flow(0, 0, math.MaxInt, nil)
	return b
}

// flow begins a new one.
func (b *bench) flow(next, end int64, limit int, runs *mapping.Map) {
	if runs == nil {
		runs = new(mapping.Map)
	}
	b.f = &flow{part: b.p, next: next, end: end, runs: runs, epoch: 0, open: map[int64]bool{}, limit: limit}
	b.p.flow = b.f
}

// answer is what a broker says of pieces.
func answer(aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction, pieces ...piece) *kmsg.FetchResponseTopicPartition {
	rp := kmsg.NewFetchResponseTopicPartition()
	for _, b := range pieces {
		rp.RecordBatches = append(rp.RecordBatches, b.encode()...)
	}
	rp.AbortedTransactions = aborted
	return &rp
}

func (b *bench) take(rp *kmsg.FetchResponseTopicPartition) prepared {
	return b.partition(b.f, rp, &load{bytes: int64(len(rp.RecordBatches)), refs: 1})
}

// fataler is a test or a property.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// landed adds to a mirror what chunks hold, and checks their account of it.
func landed(t fataler, mirror []int64, chunks []chunk, runs *mapping.Map, limit int) []int64 {
	t.Helper()
	for _, c := range chunks {
		if c.dest != int64(len(mirror)) || len(c.raw) > limit {
			t.Fatalf("chunk of %d bytes for offset %d, the mirror ends at %d and takes %d", len(c.raw), c.dest, len(mirror), limit)
		}
		batch.Stamp(c.raw, 7, 0, sequence(c.dest))
		b, rest, err := batch.Read(c.raw)
		if err == nil {
			err = b.Verify()
		}
		if err != nil || len(rest) > 0 || !b.Dense() || b.Count != c.count || b.Transactional() || b.LogAppendTime() || b.DeleteHorizon() {
			t.Fatalf("chunk for offset %d: %+v, %d bytes left, %v", c.dest, b.Header, len(rest), err)
		}
		records, err := batch.NewRecoder().Records(b)
		if err != nil {
			t.Fatalf("chunk for offset %d: %v", c.dest, err)
		}
		for i, r := range records {
			source, err := strconv.ParseInt(string(r.Value), 10, 64)
			if err != nil {
				t.Fatalf("chunk for offset %d: %v", c.dest, err)
			}
			if at, ok := runs.Source(int64(len(mirror))); !ok || at != source {
				t.Fatalf("offset %d is source offset %d, the map says %d: %v", len(mirror), source, at, runs.Runs())
			}
			if i == 0 && c.first != source || source >= c.next {
				t.Fatalf("chunk of source offsets %d to %d has %d", c.first, c.next-1, source)
			}
			mirror = append(mirror, source)
		}
	}
	return mirror
}

func TestPrepare(t *testing.T) {
	aborted := func(producer, first int64) []kmsg.FetchResponseTopicPartitionAbortedTransaction {
		return []kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: producer, FirstOffset: first}}
	}
	marker := func(base, producer int64) piece { return plain(base, 1, 0).with(controlBit|transactionalBit, producer) }
	old := func(b piece) piece { b.epoch = 3; return b }
	for _, test := range []struct {
		name    string
		from    int64
		aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction
		pieces  []piece
		limit   int
		want    []int64 // source offsets in the mirror
		chunks  int
		next    int64
	}{
		{"nothing", 0, nil, nil, 0, nil, 0, 0},
		{"a large batch passes", 0, nil, []piece{plain(0, 2, 9000)}, 0, []int64{0, 1}, 1, 2},
		{"a small batch passes", 0, nil, []piece{plain(0, 2, 9)}, 0, []int64{0, 1}, 1, 2},
		{"small batches are merged", 0, nil, []piece{plain(0, 2, 9), plain(2, 1, 9), plain(3, 1, 9)}, 0, []int64{0, 1, 2, 3}, 1, 4},
		{"small ones are not merged over a large one", 0, nil, []piece{plain(0, 1, 9), plain(1, 1, 9), plain(2, 1, 9000), plain(3, 1, 9), plain(4, 1, 9)}, 0, []int64{0, 1, 2, 3, 4}, 3, 5},
		{"small ones are merged up to the limit", 0, nil, []piece{plain(0, 1, 900), plain(1, 1, 900), plain(2, 1, 900)}, 2000, []int64{0, 1, 2}, 2, 3},
		{"a hole between small ones", 0, nil, []piece{plain(0, 1, 9), plain(5, 1, 9)}, 0, []int64{0, 5}, 1, 6},
		{"holes inside", 0, nil, []piece{{base: 0, deltas: []int32{1, 4}, last: 6, producer: -1, valueBytes: 9000}}, 0, []int64{1, 4}, 1, 7},
		{"empty", 0, nil, []piece{plain(0, 1, 9), {base: 1, last: 3, producer: -1}, plain(5, 1, 9)}, 0, []int64{0, 5}, 2, 6},
		{"empty at the end", 0, nil, []piece{plain(0, 1, 9), {base: 1, last: 3, producer: -1}}, 0, []int64{0}, 1, 5},
		{"committed", 0, nil, []piece{plain(0, 2, 9).with(transactionalBit, 8), marker(2, 8)}, 0, []int64{0, 1}, 1, 3},
		{"aborted", 0, aborted(8, 0), []piece{plain(0, 2, 9).with(transactionalBit, 8), marker(2, 8), plain(3, 1, 9)}, 0, []int64{3}, 1, 4},
		{"aborted around another's", 0, aborted(8, 0), []piece{plain(0, 2, 9).with(transactionalBit, 8), plain(2, 1, 9).with(transactionalBit, 9), plain(3, 1, 9), marker(4, 8)}, 0, []int64{2, 3}, 1, 5},
		{"aborted, then committed by the same", 0, aborted(8, 0), []piece{plain(0, 1, 9).with(transactionalBit, 8), marker(1, 8), plain(2, 1, 9).with(transactionalBit, 8)}, 0, []int64{2}, 1, 3},
		{"committed, then aborted by the same", 0, aborted(8, 2), []piece{plain(0, 1, 9).with(transactionalBit, 8), marker(1, 8), plain(2, 1, 9).with(transactionalBit, 8), marker(3, 8)}, 0, []int64{0}, 1, 4},
		{"aborted since before", 5, aborted(8, 2), []piece{plain(4, 2, 9).with(transactionalBit, 8), marker(6, 8)}, 0, nil, 0, 7},
		{"not of the transaction that is aborted", 0, aborted(8, 0), []piece{plain(0, 1, 9).with(0, 8)}, 0, []int64{0}, 1, 1},
		{"in the middle", 3, nil, []piece{plain(0, 5, 9)}, 0, []int64{3, 4}, 1, 5},
		{"in the middle of a large one", 3, nil, []piece{plain(0, 5, 9000)}, 0, []int64{3, 4}, 1, 5},
		{"in the middle, the rest is too large", 1, nil, []piece{plain(0, 5, 9000)}, 20000, []int64{1, 2, 3, 4}, 2, 5},
		{"in the middle, before a hole at the end", 3, nil, []piece{{base: 0, deltas: []int32{0, 2}, last: 4, producer: -1}}, 0, nil, 0, 5},
		{"begins with a batch before", 3, nil, []piece{plain(0, 3, 9), plain(3, 1, 9)}, 0, []int64{3}, 1, 4},
		{"begins with a marker before", 3, nil, []piece{marker(2, 8), plain(3, 1, 9)}, 0, []int64{3}, 1, 4},
		{"too large", 0, nil, []piece{plain(0, 5, 9000)}, 20000, []int64{0, 1, 2, 3, 4}, 3, 5},
		{"times of appending", 0, nil, []piece{plain(0, 2, 9000).with(appendTimeBit, -1)}, 0, []int64{0, 1}, 1, 2},
		{"times of appending, small", 0, nil, []piece{plain(0, 2, 9).with(appendTimeBit, -1), plain(2, 1, 9)}, 0, []int64{0, 1, 2}, 1, 3},
		{"delete horizon", 0, nil, []piece{plain(0, 2, 9000).with(horizonBit, -1)}, 0, []int64{0, 1}, 1, 2},
		{"another leader", 0, nil, []piece{plain(0, 2, 9), old(plain(2, 2, 9))}, 0, []int64{0, 1, 2, 3}, 1, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench()
			limit := cmp.Or(test.limit, math.MaxInt)
			var runs *mapping.Map
			if test.from > 0 {
				runs, _ = mapping.New(mapping.Run{Source: test.from})
			}
			b.flow(test.from, 0, limit, runs)
			p := b.take(answer(test.aborted, test.pieces...))
			if p.flow == nil || p.err != nil {
				t.Fatalf("%+v", p)
			}
			got := landed(t, nil, p.chunks, b.f.runs, limit)
			if !slices.Equal(got, test.want) || len(p.chunks) != test.chunks || b.f.next != test.next {
				t.Errorf("%v in %d chunks, next %d; want %v in %d, next %d", got, len(p.chunks), b.f.next, test.want, test.chunks, test.next)
			}
			if all := b.f.runs.Runs(); !slices.Equal([]mapping.Run(all)[p.known:], p.runs) {
				t.Errorf("runs to be written %v after %d, all %v", p.runs, p.known, all)
			}
			b.gone(t, p.chunks)
		})
	}
}

// gone checks that all memory is given back with the chunks.
func (b *bench) gone(t *testing.T, chunks []chunk) {
	t.Helper()
	if len(chunks) > 0 {
		b.m.discard(chunks)
	}
	if b.m.used != 0 {
		t.Errorf("%d bytes are in use", b.m.used)
	}
}

// TestPrepareSpoilt: what is no batch ends an answer. What is before it goes its way
// first; then it is read again, and the third time stops the part.
func TestPrepareSpoilt(t *testing.T) {
	wrongCRC := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	wrongInside := func(b []byte) []byte {
		b[batch.HeaderBytes] = 0xff // the first record's length
		binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		return b
	}
	wrongMagic := func(b []byte) []byte { b[16] = 9; return b }
	for name, spoil := range map[string]func([]byte) []byte{"crc": wrongCRC, "magic": wrongMagic, "inside": wrongInside} {
		for _, size := range []int{9, 9000} {
			for _, before := range [][]piece{{}, {plain(0, 3, 9)}, {plain(0, 3, 9000)}, {plain(0, 1, 9), plain(1, 1, 9), plain(2, 1, 9)}, {plain(0, 2, 9000), plain(2, 1, 9)}} {
				if name == "inside" && (size < smallBytes || len(before) > 0 && before[0].valueBytes > smallBytes) {
					continue // nobody looks inside of what passes as it is
				}
				t.Run(fmt.Sprint(name, size, len(before)), func(t *testing.T) {
					good := int64(0)
					for _, b := range before {
						good = b.next()
					}
					b := newBench()
					if name == "inside" {
						b.f.limit = size // so that somebody does
					}
					var mirror []int64
					for round := 1; b.p.stop == nil; round++ {
						if round > 8 {
							t.Fatalf("still not stopped; mirrored %v, corrupt %d times", mirror, b.p.corrupt)
						}
						rp := answer(nil, before...)
						rp.RecordBatches = append(rp.RecordBatches, spoil(plain(good, 3, size).encode())...)
						p := b.take(rp)
						if p.flow != nil {
							mirror = landed(t, mirror, p.chunks, b.f.runs, math.MaxInt)
							b.m.discard(p.chunks)
						}
						if b.p.flow == nil && b.p.stop == nil {
							b.flow(int64(len(mirror)), int64(len(mirror)), b.f.limit, b.f.runs)
						}
					}
					if int64(len(mirror)) != good || b.p.stop.State != Corrupt || b.p.stop.From != good || b.p.corrupt != corruptMost {
						t.Errorf("mirrored %v, after %d answers: %v", mirror, b.p.corrupt, b.p.stop)
					}
					b.gone(t, nil)
				})
			}
		}
	}
}

// TestPrepareAgainstThePlan: a log that does not have its holes where they were
// planned, because another replica has them elsewhere, is not mirrored by that plan.
func TestPrepareAgainstThePlan(t *testing.T) {
	for name, test := range map[string]struct {
		runs   []mapping.Run
		pieces []piece
		fits   bool
	}{
		"as planned":                  {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 5, 9000), plain(7, 2, 9000)}, true},
		"as planned, merged":          {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 5, 9), plain(7, 2, 9)}, true},
		"no hole inside a batch":      {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 10, 9000)}, false},
		"no hole between batches":     {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 5, 9000), plain(5, 5, 9000)}, false},
		"no hole between merged ones": {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 5, 9), plain(5, 5, 9)}, false},
		"a smaller hole":              {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 5, 9000), plain(6, 2, 9000)}, false},
		"a larger hole":               {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 5, 9000), plain(8, 2, 9000)}, false},
		"a hole before":               {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 2, 9000), plain(7, 2, 9000)}, false},
		"ends before the hole":        {[]mapping.Run{{}, {Source: 7, Dest: 5}}, []piece{plain(0, 5, 9000)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			runs, err := mapping.New(test.runs...)
			if err != nil {
				t.Fatal(err)
			}
			b := newBench()
			b.flow(0, 0, math.MaxInt, runs)
			p := b.take(answer(nil, test.pieces...))
			if fits := p.err == nil; fits != test.fits {
				t.Errorf("error %v, runs %v", p.err, b.f.runs.Runs())
			}
			if test.fits {
				landed(t, nil, p.chunks, b.f.runs, math.MaxInt)
			}
		})
	}
}

// Messages of the formats before version 2 are framed anew, from the middle of a
// compressed one too.
func TestPrepareOldFormat(t *testing.T) {
	message := func(offset int64, value string) []byte {
		m := kmsg.MessageV1{Offset: offset, Magic: 1, Timestamp: 1000, Value: []byte(value)}
		m.MessageSize = int32(len(m.AppendTo(nil)) - 12)
		raw := m.AppendTo(nil)
		binary.BigEndian.PutUint32(raw[12:], crc32.ChecksumIEEE(raw[16:]))
		return raw
	}
	for _, from := range []int64{0, 1, 3} {
		b := newBench()
		if from > 0 {
			runs, _ := mapping.New(mapping.Run{Source: from})
			b.flow(from, 0, math.MaxInt, runs)
		}
		rp := answer(nil)
		for _, o := range []int64{0, 1, 3} {
			rp.RecordBatches = append(rp.RecordBatches, message(o, fmt.Sprint(o))...)
		}
		rp.RecordBatches = append(rp.RecordBatches, plain(4, 2, 9).encode()...)
		p := b.take(rp)
		if p.flow == nil {
			t.Fatalf("from %d: stopped or interrupted: %v %v", from, b.p.stop, b.p.reason)
		}
		got := landed(t, nil, p.chunks, b.f.runs, math.MaxInt)
		want := []int64{0, 1, 3, 4, 5}
		want = slices.DeleteFunc(want, func(o int64) bool { return o < from })
		if !slices.Equal(got, want) || b.f.next != 6 {
			t.Errorf("from %d: %v, next %d; want %v", from, got, b.f.next, want)
		}
		b.gone(t, p.chunks)
	}
}

// Whatever a log looks like, and wherever answers are cut and flows begin anew, a
// mirror gets exactly the committed records, at the offsets of its map.
func TestPrepareAnyLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log, aborted := drawLog(t)
		limit := rapid.SampledFrom([]int{math.MaxInt, 30_000, 9_000}).Draw(t, "limit")
		b := newBench()
		b.flow(0, 0, limit, nil)
		var want, mirror []int64
		for _, piece := range log {
			want = append(want, piece.values()...)
		}
		for rounds := 0; b.f.next < log[len(log)-1].next(); rounds++ {
			if rounds > 10*len(log) {
				t.Fatalf("no progress at %d; stopped: %v, %v", b.f.next, b.p.stop, b.p.reason)
			}
			first := slices.IndexFunc(log, func(p piece) bool { return p.next() > b.f.next })
			n := rapid.IntRange(1, len(log)-first).Draw(t, "batches")
			pieces := log[first : first+n]
			var overlapping []kmsg.FetchResponseTopicPartitionAbortedTransaction
			for _, a := range aborted {
				if a.last >= b.f.next && a.FirstOffset < pieces[n-1].next() {
					overlapping = append(overlapping, a.FetchResponseTopicPartitionAbortedTransaction)
				}
			}
			rp := answer(rapid.Permutation(overlapping).Draw(t, "aborted"), pieces...)
			if rapid.Bool().Draw(t, "cut") && n > 1 {
				rp.RecordBatches = rp.RecordBatches[:len(rp.RecordBatches)-1-rapid.IntRange(0, 60).Draw(t, "bytes")]
			}
			p := b.take(rp)
			if p.flow == nil || p.err != nil {
				t.Fatalf("at %d: %v, stopped: %v, %v", b.f.next, p.err, b.p.stop, b.p.reason)
			}
			chunks := p.chunks
			anew := rapid.IntRange(0, 3).Draw(t, "anew") == 0
			if anew { // some of the chunks are written, and the link is made anew
				chunks = chunks[:rapid.IntRange(0, len(chunks)).Draw(t, "written")]
			}
			mirror = landed(t, mirror, chunks, b.f.runs, limit)
			b.m.discard(p.chunks)
			if anew {
				next, _ := b.f.runs.Source(int64(len(mirror)))
				b.flow(next, int64(len(mirror)), limit, b.f.runs)
			}
		}
		if !slices.Equal(mirror, want) {
			t.Fatalf("mirrored %v, want %v", mirror, want)
		}
		if b.m.used != 0 {
			t.Fatalf("%d bytes are in use", b.m.used)
		}
	})
}

type abortedTransaction struct {
	kmsg.FetchResponseTopicPartitionAbortedTransaction
	last int64 // offset of its marker
}

func drawLog(t *rapid.T) (log []piece, aborted []abortedTransaction) {
	next := int64(0)
	open := map[int64][]int{} // pieces of transactions under way
	closeOne := func(producer int64) {
		ends := plain(next, 1, 0).with(controlBit|transactionalBit, producer)
		if rapid.Bool().Draw(t, "abort") && len(open[producer]) > 0 {
			first := log[open[producer][0]].base
			for _, i := range open[producer] {
				log[i].aborted = true
			}
			a := abortedTransaction{last: next}
			a.ProducerID, a.FirstOffset = producer, first
			aborted = append(aborted, a)
		}
		delete(open, producer)
		log = append(log, ends)
		next++
	}
	for range rapid.IntRange(1, 12).Draw(t, "pieces") {
		if rapid.IntRange(0, 3).Draw(t, "hole") == 0 {
			next += rapid.Int64Range(1, 5).Draw(t, "offsets")
		}
		producer := rapid.Int64Range(10, 12).Draw(t, "producer")
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			closeOne(producer)
			continue
		case 1:
			log = append(log, piece{base: next, last: rapid.Int32Range(0, 4).Draw(t, "last"), producer: -1})
		default:
			n := rapid.IntRange(1, 6).Draw(t, "records")
			b := plain(next, n, rapid.SampledFrom([]int{0, 100, 3000, 8500}).Draw(t, "bytes"))
			b.deltas = slices.DeleteFunc(b.deltas, func(int32) bool { return rapid.IntRange(0, 5).Draw(t, "compacted") == 0 })
			if rapid.Bool().Draw(t, "transactional") {
				b = b.with(transactionalBit, producer)
				open[producer] = append(open[producer], len(log))
			} else if rapid.IntRange(0, 4).Draw(t, "times") == 0 {
				b = b.with(appendTimeBit, -1)
			}
			log = append(log, b)
		}
		next = log[len(log)-1].next()
	}
	for producer := range int64(13) {
		if len(open[producer]) > 0 {
			closeOne(producer)
		}
	}
	return log, aborted
}
