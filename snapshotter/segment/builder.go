package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// Config is what an archive says of itself.
type Config struct {
	Region   events.Region
	Shard    int32
	Software string       // name and version of the archiver
	Sealer   *seal.Sealer // required; seal.None() for payloads as they are

	// Chain is the hash chain of a log after a record.
	Chain func(before events.Digest, r *kgo.Record) events.Digest
}

// Builder gathers what comes next in a shard's logs, up to the next segment. It
// belongs to one goroutine.
type Builder struct {
	cfg    Config
	number int64 // of the segment that is being made
	void   []format.Range
	ends   map[events.Log]format.LogEnd
	parts  map[events.Log]*part
	bytes  int64     // of the records
	closed time.Time // when the segment before was
}

// part is what was gathered of one log.
type part struct {
	format.SegmentPart
	open    open
	last    *kgo.Record
	payload []byte // closed blocks; their places are counted from its beginning
}

// NewBuilder begins behind a segment; nil: behind none. Of each log the archive goes
// on where that segment ends, or else at an end that Begin gives.
func NewBuilder(cfg Config, newest *format.Segment) *Builder {
	b := &Builder{cfg: cfg, number: 1, ends: map[events.Log]format.LogEnd{}, parts: map[events.Log]*part{}}
	if newest != nil {
		b.number, b.closed, b.void = newest.Number+1, newest.Created, newest.Void
		for _, e := range newest.Ends {
			b.ends[e.Log] = e
		}
	}
	return b
}

// maxVoid is how many ranges of void segments are kept in mind, of the newest.
const maxVoid = 100

// Void lets the segments right behind the one that the archive goes on at, up to a number,
// be no part of it: they cannot be read.
func (b *Builder) Void(upTo int64) error {
	if !b.Empty() || upTo < b.number {
		return fmt.Errorf("segments up to %d cannot be void: the archive goes on with segment %d", upTo, b.number)
	}
	b.void = append(slices.Clone(b.void), format.Range{First: b.number, Last: upTo})
	b.void = b.void[max(0, len(b.void)-maxVoid):]
	b.number = upTo + 1
	return nil
}

// Begin says where the archive of a log begins that the archive does not have yet.
func (b *Builder) Begin(end format.LogEnd) error {
	if _, known := b.ends[end.Log]; known {
		return fmt.Errorf("the archive of %s has begun already", end.Log)
	}
	b.ends[end.Log] = end
	return nil
}

// Skip goes on at a later place, with the chain that is known there, because what is
// before it cannot be archived any more. The segment says so.
func (b *Builder) Skip(to format.LogEnd, reason string) error {
	end, known := b.ends[to.Log]
	switch {
	case !known || to.Next <= end.Next || reason == "":
		return fmt.Errorf("archive of %s: it cannot skip from %d to %d", to.Log, end.Next, to.Next)
	case b.parts[to.Log] != nil:
		return fmt.Errorf("archive of %s: the segment before a gap is to be closed first", to.Log)
	}
	b.parts[to.Log] = &part{SegmentPart: format.SegmentPart{
		Log: to.Log, From: to.Next, To: to.Next, Before: to.Chain, Gap: &format.Gap{From: end.Next, Reason: reason},
	}}
	b.ends[to.Log] = to
	return nil
}

// Number is that of the segment that is being made.
func (b *Builder) Number() int64 { return b.number }

// Next is the offset at which the archive of a log goes on; false: it has not begun.
func (b *Builder) Next(l events.Log) (int64, bool) {
	end, known := b.ends[l]
	return end.Next, known
}

// End is how far a log is archived; false: its archive has not begun.
func (b *Builder) End(l events.Log) (format.LogEnd, bool) {
	end, known := b.ends[l]
	return end, known
}

// Bytes is how much was gathered: of records' keys, values and headers, before
// anything is compressed.
func (b *Builder) Bytes() int64 { return b.bytes }

// Empty says whether there is nothing to make a segment of.
func (b *Builder) Empty() bool { return len(b.parts) == 0 }

// Add gathers the next record of a log. One that is archived already is passed over.
// Offsets that are left out are taken to have no record.
func (b *Builder) Add(l events.Log, r *kgo.Record) error {
	end, known := b.ends[l]
	if !known {
		return fmt.Errorf("the archive of %s has not begun", l)
	}
	if r.Offset < end.Next {
		return nil
	}
	p := b.parts[l]
	if p == nil {
		p = &part{SegmentPart: format.SegmentPart{Log: l, From: end.Next, To: end.Next, Before: end.Chain}}
		b.parts[l] = p
	}
	if !p.open.fits(r.Offset) {
		p.closeBlock()
	}
	p.open.add(r)
	size := recordBytes(r)
	p.To, p.Records, p.Bytes = r.Offset+1, p.Records+1, p.Bytes+size
	if end.IsChained() {
		end.Chain = b.cfg.Chain(end.Chain, r)
	}
	b.ends[l] = format.LogEnd{Log: l, Next: p.To, Chain: end.Chain}
	p.last = r
	b.bytes += size
	return nil
}

func recordBytes(r *kgo.Record) int64 {
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}

func (p *part) closeBlock() {
	var block format.Block
	p.payload, block = p.open.appendTo(p.payload)
	p.Blocks = append(p.Blocks, block)
}

// Close makes the segment of what was gathered, and begins the next one. marks says
// what the region had made of a log below an offset, where that is known.
func (b *Builder) Close(now time.Time, epoch events.Epoch, marks func(events.Log, int64) (events.Mark, bool)) (*format.Segment, []byte, error) {
	if now = now.UTC().Truncate(time.Millisecond); now.Before(b.closed) {
		now = b.closed // another archiver's clock is ahead: times never go back along an archive
	}
	s := &format.Segment{
		Format: format.SegmentVersion, Region: b.cfg.Region, Shard: b.cfg.Shard, Number: b.number, Created: now,
		Epoch: epoch, Software: b.cfg.Software, Void: b.void, Ends: []format.LogEnd{}, Parts: []format.SegmentPart{},
	}
	for _, e := range b.ends {
		s.Ends = append(s.Ends, e)
	}
	slices.SortFunc(s.Ends, func(x, y format.LogEnd) int { return x.Log.Compare(y.Log) })
	var payload []byte
	for i := range s.Ends {
		e := &s.Ends[i]
		p := b.parts[e.Log]
		if p == nil {
			continue
		}
		m, marked := marks(p.Log, p.To)
		if marked && m.Next == p.To && !e.IsChained() {
			e.Chain = m.Chain // from here on it is known
			b.ends[e.Log] = *e
		}
		if p.last != nil {
			e.Last = b.cfg.Chain(events.Digest{}, p.last)
			b.ends[e.Log] = *e
		}
		if p.open.Records > 0 {
			p.closeBlock()
		}
		for i := range p.Blocks {
			p.Blocks[i].At += int64(len(payload))
		}
		payload = append(payload, p.payload...)
		p.Blocks = append([]format.Block{}, p.Blocks...) // never null in JSON
		// A mark with another chain is one of other records: of the two, what is
		// in the segment is what the logs hold.
		if marked && m.Next == p.To && m.Chain == e.Chain {
			p.Mark = &m
		}
		s.Parts = append(s.Parts, p.SegmentPart)
	}
	object, err := b.object(s, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("segment %d of shard %d: %w", s.Number, s.Shard, err)
	}
	b.number, b.bytes, b.closed = b.number+1, 0, now
	clear(b.parts)
	return s, object, nil
}

// object seals a payload, and puts the header before it.
func (b *Builder) object(s *format.Segment, payload []byte) ([]byte, error) {
	var stored bytes.Buffer
	w, err := b.cfg.Sealer.Writer(&stored)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(payload); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	plain, sum := sha256.Sum256(payload), sha256.Sum256(stored.Bytes())
	s.Size, s.SHA256 = int64(len(payload)), hex.EncodeToString(plain[:])
	s.StoredSize, s.StoredSHA256 = int64(stored.Len()), hex.EncodeToString(sum[:])
	s.Keys = append([]string{}, b.cfg.Sealer.Keys()...)
	header, err := s.Encode()
	if err != nil {
		return nil, err
	}
	return append(header, stored.Bytes()...), nil
}
