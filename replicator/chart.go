package replicator

import (
	"cmp"
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

const ledgerWide = 16 // partitions written ahead at once

// hold counts memory that this process made for a batch.
func (m *mover) hold(bytes int) *load {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used += int64(bytes)
	return &load{bytes: int64(bytes)} // refs: its chunk is counted when it is handed over
}

// put gives a chunk its place, and sees to it that the runs say which records are
// in it.
func (pr *preparer) put(p *prepared, c chunk, runs []batch.Run) error {
	c.dest, c.flow = p.state.end, p.flow
	runs = p.flow.originRuns(runs)
	c.first = runs[0].Source
	if !agrees(p.flow.runs, c.dest, runs) {
		if !p.flow.careful {
			p.writeRuns(c.dest, runs)
		} else if err := pr.plan(p, &c, runs); err != nil {
			return err
		}
	}
	if c.load == nil {
		c.load = pr.m.hold(len(c.raw))
	}
	p.state.end, p.state.next = c.dest+int64(c.count), c.next
	p.chunks = append(p.chunks, c)
	return nil
}

// agrees reports whether a map has exactly these runs at an offset of the mirror.
func agrees(m *mapping.Map, dest int64, runs []batch.Run) bool {
	for _, r := range runs {
		last := int64(r.Count) - 1
		from, known := m.Source(dest)
		to, _ := m.Source(dest + last) // holes never shrink: what is right at both ends is right between them
		if !known || from != r.Source || to != r.Source+last {
			return false
		}
		dest += int64(r.Count)
	}
	return true
}

// writeRuns notes the runs that begin in a chunk, to be written before it is
// appended. Whatever reads this log finds the same ones, so what contradicts those
// that were planned before is left over from when it was compacted, or from where it
// began.
func (p *prepared) writeRuns(dest int64, runs []batch.Run) {
	keep, added := depart(p.flow.runs, dest, runs)
	if keep < p.flow.runs.Len() {
		p.err = cmp.Or(p.err, errMoved)
		return
	}
	for _, r := range added {
		if err := p.flow.runs.Append(r); err != nil {
			p.err = cmp.Or(p.err, err)
			return
		}
	}
	p.runs = append(p.runs, added...)
}

var errMoved = errors.New("holes at the source are not where they were planned to be")

// plan makes a chunk that departs from the runs one that is told from all others,
// and notes what becomes of the runs if it lands.
func (pr *preparer) plan(p *prepared, c *chunk, runs []batch.Run) error {
	if err := pr.markChunk(p.flow, c); err != nil {
		return err
	}
	producer := p.flow.part.producer
	batch.Stamp(c.raw, producer.ID, producer.Epoch, sequence(c.dest))
	b, _, err := batch.Read(c.raw)
	if err != nil {
		return err
	}
	records, err := pr.recoder.Records(b)
	if err != nil {
		return err
	}
	last := records[len(records)-1].Sum()
	keep, added := depart(p.flow.runs, c.dest, runs)
	c.plan = &ledger.Plan{Dest: c.dest, Count: c.count, CRC: b.CRC, Last: last, Keep: keep, Runs: added}
	if keep < p.flow.runs.Len() {
		if err := p.flow.runs.Truncate(keep); err != nil {
			return err
		}
	}
	for _, r := range added {
		if err := p.flow.runs.Append(r); err != nil {
			return err
		}
	}
	return nil
}

// markChunk frames a chunk anew so that it differs from every one of the same records that
// is no plan's. One that would be too large then stays as it is.
func (pr *preparer) markChunk(fl *flow, c *chunk) error {
	b, _, err := batch.Read(c.raw)
	if err != nil {
		return err
	}
	d, err := pr.recoder.Mark(b, pr.m.mark)
	if err != nil {
		return err
	}
	if len(d.Raw) <= fl.limit {
		c.raw, c.load = d.Raw, nil
	}
	return nil
}

// depart says what it takes for a map to have these runs at an offset of the
// mirror: how many of its own stay, and which follow them.
func depart(m *mapping.Map, dest int64, runs []batch.Run) (keep int, added []mapping.Run) {
	keep = m.Len()
	departed := false
	for _, r := range runs {
		switch from, known := m.Source(dest); {
		case departed:
			added = append(added, mapping.Run{Source: r.Source, Dest: dest})
		case agrees(m, dest, []batch.Run{r}):
		case known && from == r.Source: // a hole is planned where there is none
			departed, keep = true, m.Begun(dest+1)
		default:
			departed, keep = true, m.Begun(dest)
			if m.Len() == 0 && dest > 0 {
				added = append(added, mapping.Run{}) // the identity so far, in words
			}
			added = append(added, mapping.Run{Source: r.Source, Dest: dest})
		}
		dest += int64(r.Count)
	}
	return keep, added
}

// writeAhead writes to the link topic what must be known there before the
// chunks may be appended. What fails concerns its partition only.
func (pr *preparer) writeAhead(ctx context.Context, ready []prepared) {
	var g errgroup.Group
	g.SetLimit(ledgerWide)
	for i := range ready {
		p := &ready[i]
		if p.err != nil || len(p.runs) == 0 && len(p.epochs) == 0 {
			continue
		}
		g.Go(func() error {
			p.err = pr.writePart(ctx, p)
			return nil
		})
	}
	_ = g.Wait() // errors are in what is ready
}

func (pr *preparer) writePart(ctx context.Context, p *prepared) error {
	key := p.flow.part.ledger()
	for _, e := range p.epochs {
		if err := pr.m.ledger.AppendEpoch(ctx, key, e); err != nil {
			return err
		}
	}
	if len(p.runs) == 0 {
		return nil
	}
	return pr.m.ledger.AppendRuns(ctx, key, p.known, p.runs)
}
