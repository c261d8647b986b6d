package ledger

import (
	"cmp"
	"maps"
	"slices"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

const (
	// chunkRuns is how many runs an appended chunk holds at most.
	chunkRuns = 128
	// blockChunks is how many chunks make a block. A full block of such chunks has
	// to fit into a message: two offsets of 13 digits a run are half a MiB.
	blockChunks = 128
	// epochsMax is how many epochs of a partition are kept.
	epochsMax = 64
)

// partition is one generation of a partition's runs and epochs.
type partition struct {
	generation int64
	resetBy    string          // writer of the reset that began it
	chunks     map[int64]chunk // winners that are not in a block, by number
	blocks     map[int64]block
	plans      map[int64][]plan // by the chunk that they would be, in the topic's order
	next       int64            // number of the chunk that the map lacks
	runs       mapping.Map      // of the chunks before next
	epochs     map[int32]epoch
}

type chunk struct {
	key string
	blockChunk
}

// block is the chunks from its number times blockChunks on. It needs no contest:
// whoever writes it writes the same under the same key.
type block struct {
	key    string
	chunks []blockChunk // nil once the map has them
}

type epoch struct {
	key   string
	start int64
}

func newPartition(generation int64) *partition {
	return &partition{
		generation: generation,
		chunks:     map[int64]chunk{}, blocks: map[int64]block{}, plans: map[int64][]plan{}, epochs: map[int32]epoch{},
	}
}

// keys are those of all records of the generation that count.
func (p *partition) keys() (keys []string) {
	for _, c := range p.chunks {
		keys = append(keys, c.key)
	}
	for _, b := range p.blocks {
		keys = append(keys, b.key)
	}
	for _, e := range p.epochs {
		keys = append(keys, e.key)
	}
	for number := range p.plans {
		keys = append(keys, p.planKeys(number)...)
	}
	return keys
}

// takeChunk returns keys of records that do not count any more; so do the others.
func (p *partition) takeChunk(number int64, c chunk) (voided []string) {
	winner, decided := p.chunks[number]
	_, inBlock := p.blocks[number/blockChunks]
	switch {
	case decided && winner.key == c.key:
		return nil
	case decided || inBlock:
		return []string{c.key}
	}
	p.chunks[number] = c
	return p.decide(number)
}

func (p *partition) takeBlock(number int64, b block) (voided []string) {
	if _, again := p.blocks[number]; again {
		return nil
	}
	if p.next >= (number+1)*blockChunks {
		b.chunks = nil
	}
	p.blocks[number] = b
	for n := number * blockChunks; n < (number+1)*blockChunks; n++ {
		if c, ok := p.chunks[n]; ok {
			voided = append(voided, c.key)
			delete(p.chunks, n)
		}
		voided = append(voided, p.decide(n)...)
	}
	return voided
}

func (p *partition) takeEpoch(number int32, e epoch) (voided []string) {
	if winner, decided := p.epochs[number]; decided {
		if winner.key == e.key {
			return nil
		}
		return []string{e.key}
	}
	p.epochs[number] = e
	if len(p.epochs) > epochsMax {
		oldest := slices.Min(slices.Collect(maps.Keys(p.epochs)))
		voided = append(voided, p.epochs[oldest].key)
		delete(p.epochs, oldest)
	}
	return voided
}

// settle appends to the map the chunks that follow, and tells whose they are. What
// does not fit is left out, by every reader alike, and returned.
func (p *partition) settle(won func(writer string)) (errs []error) {
	for ; ; p.next++ {
		c, ok := p.chunk(p.next)
		if !ok {
			return errs
		}
		won(c.Writer)
		if c.Keep != nil && *c.Keep != p.runs.Len() {
			if err := p.runs.Truncate(*c.Keep); err != nil {
				errs = append(errs, err)
			}
		}
		errs = append(errs, p.append(c.Runs)...)
		number := p.next / blockChunks
		if b, ok := p.blocks[number]; ok && (p.next+1)%blockChunks == 0 {
			b.chunks = nil
			p.blocks[number] = b
		}
	}
}

func (p *partition) append(runs mapping.Runs) (errs []error) {
	for _, r := range runs {
		if err := p.runs.Append(r); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (p *partition) chunk(number int64) (blockChunk, bool) {
	if b, ok := p.blocks[number/blockChunks]; ok {
		return b.chunks[number%blockChunks], true
	}
	c, ok := p.chunks[number]
	return c.blockChunk, ok
}

// fullBlocks are those that the map has as single chunks only. Where chunks have
// more runs than those that are appended, they may make no block: it would not fit
// into a message.
func (p *partition) fullBlocks() map[int64][]blockChunk {
	full := map[int64][]blockChunk{}
	for n := range p.chunks {
		number := n / blockChunks
		if full[number] != nil || p.next < (number+1)*blockChunks {
			continue
		}
		runs := 0
		for n := number * blockChunks; n < (number+1)*blockChunks; n++ {
			full[number] = append(full[number], p.chunks[n].blockChunk)
			runs += len(p.chunks[n].Runs)
		}
		if runs > blockChunks*chunkRuns {
			full[number] = []blockChunk{} // seen, and none
		}
	}
	maps.DeleteFunc(full, func(_ int64, chunks []blockChunk) bool { return len(chunks) == 0 })
	return full
}

// history is the epochs in order. Where a later epoch begins before an earlier one,
// the log was truncated, and of the earlier one nothing is left.
func (p *partition) history() (history []Epoch) {
	for number, e := range p.epochs {
		history = append(history, Epoch{Epoch: number, Start: e.start})
	}
	slices.SortFunc(history, func(a, b Epoch) int { return cmp.Compare(a.Epoch, b.Epoch) })
	kept := history[:0]
	for _, e := range history {
		for len(kept) > 0 && kept[len(kept)-1].Start >= e.Start {
			kept = kept[:len(kept)-1]
		}
		kept = append(kept, e)
	}
	return kept
}
