package replicator

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Verified is what a comparison of a stretch of a mirror with its source has
// found.
type Verified struct {
	From    int64 `json:"from"` // offsets of the mirror: compared from here
	Next    int64 `json:"next"` // up to here, exclusive
	End     int64 `json:"end"`  // where the mirror ends
	Records int64 `json:"records"`
	Batches int64 `json:"batches"` // of the mirror
	Bytes   int64 `json:"bytes"`   // of them

	// Difference is the first one; nil: all is the same.
	Difference *Difference `json:"difference,omitempty"`

	// Expired is how many records the source does not have any more, so that
	// there was nothing to compare with.
	Expired int64 `json:"expired"`
}

// Difference is where a mirror is no copy.
type Difference struct {
	Source int64  `json:"source"` // offset there
	Mirror int64  `json:"mirror"` // offset here; of what the mirror lacks, that of the record that comes next
	What   string `json:"what"`

	gone bool // the source does not have the record
}

const verifyBytes = 1 << 20

// Verify compares a stretch of a partition's mirror, from one of its offsets on,
// with the source: about a mebibyte of it at a time, for callers to show progress
// and to stop when they like. Next is where to go on; it is End when all is done.
func (l *Link) Verify(ctx context.Context, topic string, num int32, from int64) (*Verified, error) {
	m, err := l.active()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	p := m.parts[partition{topic, num}]
	m.mu.Unlock()
	if p == nil {
		return nil, events.Errorf(events.KindNotFound, "link %s does not mirror topic %s, partition %d", l.cfg.name(), topic, num)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	return m.verify(ctx, p, from)
}

func (m *mover) verify(ctx context.Context, p *part, from int64) (*Verified, error) {
	if m.relay != nil {
		return nil, events.Errorf(events.KindNotReady, "%s cannot be reached, so there is nothing to compare with", m.cfg.Origin)
	}
	found, err := m.spots(ctx, p)
	if err != nil {
		return nil, err
	}
	at := found[0]
	if err := m.ledger.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("link topic of %s: %w", m.dest.name, err)
	}
	for _, plan := range m.ledger.Plans(p.ledger()) {
		if plan.Dest+int64(plan.Count) == at.mirrorEnd {
			at.mirrorEnd = plan.Dest // the last batch may be this one, of which the map does not tell yet
		}
	}
	mirror := at.mirror
	if mirror.offset = from; from < at.mirrorStart {
		mirror.offset = at.mirrorStart
	}
	v := &Verified{From: mirror.offset, Next: mirror.offset, End: at.mirrorEnd}
	if mirror.offset >= at.mirrorEnd {
		return v, nil
	}
	here, err := m.dest.readRecords(ctx, mirror)
	if err != nil {
		return nil, err
	}
	v.Batches, v.Bytes = here.batches, here.bytes
	// What has been appended meanwhile, the map need not tell of.
	here.records = slices.DeleteFunc(here.records, func(r batch.Record) bool { return r.Offset >= at.mirrorEnd })
	runs := m.ledger.Map(p.ledger())
	log := at.log
	for i := 0; i < len(here.records); {
		source, mapped := runs.Source(here.records[i].Offset)
		if !mapped || source < at.logStart {
			v.Expired++
			v.Next = here.records[i].Offset + 1
			i++
			continue
		}
		if log.offset = source; !at.mayLack {
			// From behind what the mirror has before it: whatever lies between is to be nothing.
			if before, mapped := runs.Source(here.records[i].Offset - 1); mapped {
				log.offset = max(before+1, at.logStart)
			}
		}
		there, err := m.source.readRecords(ctx, log)
		if err != nil {
			return nil, err
		}
		n, diff := compare(here.records[i:], there, runs, at.mayLack)
		v.Records += int64(n)
		i += n
		if diff != nil && diff.gone && at.compacted {
			v.Expired++ // compaction has removed it there, and not yet here
			diff = nil
			i++
		}
		if i > 0 {
			v.Next = here.records[i-1].Offset + 1
		}
		if v.Difference = diff; diff != nil {
			return v, nil
		}
	}
	if len(here.records) == 0 {
		v.Next = v.End // nothing but what compaction has emptied
	}
	return v, nil
}

// compare goes through the records of a mirror and those of the source, and
// tells how many are the same up to the first difference or to the end of either.
// A mirror of a compacted log may lack records that the source has.
func compare(here []batch.Record, there stretch, runs *mapping.Map, mayLack bool) (n int, _ *Difference) {
	at := 0
	for _, r := range here {
		want, _ := runs.Source(r.Offset)
		for ; at < len(there.records) && there.records[at].Offset < want; at++ {
			if offset := there.records[at].Offset; !mayLack && !has(runs, offset, r.Offset) {
				return n, &Difference{offset, r.Offset, fmt.Sprintf("the mirror does not have it: it goes on with offset %d of the source", want), false}
			}
		}
		switch {
		case at == len(there.records):
			if n == 0 {
				return 0, &Difference{want, r.Offset, "the source has no record there", true}
			}
			return n, nil
		case there.records[at].Offset != want:
			return n, &Difference{want, r.Offset, fmt.Sprintf("the source has no record there, the next is at offset %d", there.records[at].Offset), true}
		case !r.SameAs(there.records[at]):
			return n, &Difference{want, r.Offset, "they differ in " + differing(r, there.records[at]), false}
		}
		at++
		n++
	}
	return n, nil
}

// has reports whether a record of the source has a place in the mirror before an offset of
// that, be it that the mirror has removed it since.
func has(runs *mapping.Map, source, before int64) bool {
	dest, _ := runs.Dest(source, before)
	at, mapped := runs.Source(dest)
	return mapped && at == source
}

func differing(a, b batch.Record) string {
	switch {
	case a.Timestamp != b.Timestamp:
		return fmt.Sprintf("timestamp: the mirror has %d ms, the source %d ms", a.Timestamp, b.Timestamp)
	case !bytes.Equal(a.Key, b.Key) || (a.Key == nil) != (b.Key == nil):
		return "key"
	case !bytes.Equal(a.Value, b.Value) || (a.Value == nil) != (b.Value == nil):
		return "value"
	}
	return "headers"
}

// places are where a partition is on both sides.
type places struct {
	log, mirror                              spot
	logStart, logEnd, mirrorStart, mirrorEnd int64
	compacted                                bool // the log is
	mayLack                                  bool // so the mirror may lack records of it; also if nobody can tell
}

// spots finds where partitions are, all of them in a few requests.
func (m *mover) spots(ctx context.Context, parts ...*part) ([]places, error) {
	todo, found := make([]*locating, len(parts)), make([]places, len(parts))
	at := map[*locating]*places{}
	for i, p := range parts {
		todo[i] = &locating{part: p}
		at[todo[i]] = &found[i]
	}
	logs, err := m.source.metadata(ctx, names(todo, ofLog))
	if err != nil {
		return nil, err
	}
	mirrors, err := m.dest.metadata(ctx, names(todo, ofMirror))
	if err != nil {
		return nil, err
	}
	for i, p := range parts {
		source, err := logs[p.log].leader(m.source.name, p.log, p.num)
		if err != nil {
			return nil, err
		}
		dest, err := mirrors[p.mirror].leader(m.dest.name, p.mirror, p.num)
		if err != nil {
			return nil, err
		}
		found[i].log = spot{logs[p.log].id, p.log, p.num, source, 0}
		found[i].mirror = spot{mirrors[p.mirror].id, p.mirror, p.num, dest, 0}
	}
	for _, err := range []error{
		ask(ctx, m.dest.name, m.dest.admin.ListStartOffsets, todo, ofMirror, func(l *locating, o int64) { at[l].mirrorStart = o }),
		ask(ctx, m.dest.name, m.dest.admin.ListEndOffsets, todo, ofMirror, func(l *locating, o int64) { at[l].mirrorEnd = o }),
		ask(ctx, m.source.name, m.source.admin.ListStartOffsets, todo, ofLog, func(l *locating, o int64) { at[l].logStart = o }),
		ask(ctx, m.source.name, m.source.admin.ListEndOffsets, todo, ofLog, func(l *locating, o int64) { at[l].logEnd = o }),
	} {
		if err != nil {
			return nil, err
		}
	}
	for _, l := range todo {
		if err := l.broken(); err != nil {
			return nil, err
		}
	}
	compacted, err := m.source.compacted(ctx, names(todo, ofLog))
	if err != nil {
		return nil, err
	}
	for i, p := range parts {
		is, known := compacted[p.log]
		found[i].compacted, found[i].mayLack = is, is || !known
	}
	return found, nil
}

// stretch is records read in a row, as a consumer that reads committed ones
// sees them.
type stretch struct {
	records        []batch.Record
	batches, bytes int64
}

// readRecords reads the records from a spot on, until it has some or has come to
// the end.
func (c *cluster) readRecords(ctx context.Context, s spot) (stretch, error) {
	for {
		got := c.readAt(ctx, []spot{s}, verifyBytes)
		if got[0].err != nil {
			return stretch{}, fmt.Errorf("read %s, topic %s, partition %d, offset %d: %w", c.name, s.name, s.num, s.offset, got[0].err)
		}
		found, next, err := got[0].committed(s.offset)
		if err != nil {
			return stretch{}, fmt.Errorf("read %s, topic %s, partition %d: %w", c.name, s.name, s.num, err)
		}
		if len(found.records) > 0 || next == s.offset {
			return found, nil
		}
		s.offset = next
	}
}

// committed are the records in what was read that are at an offset or after it,
// and where to read on.
func (d data) committed(from int64) (s stretch, next int64, err error) {
	aborted := slices.SortedFunc(slices.Values(d.aborted), func(a, b kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
	f := flow{open: map[int64]bool{}}
	recoder := batch.NewRecoder()
	next = from
	for b, err := range d.all() {
		if err == nil {
			err = b.Verify()
		}
		if err != nil {
			return s, next, err
		}
		aborted = f.openAborted(aborted, b.LastOffset())
		next = max(next, b.NextOffset())
		switch {
		case b.Control():
			delete(f.open, b.ProducerID)
			continue
		case b.Transactional() && f.open[b.ProducerID]:
			continue
		}
		records, err := recoder.Records(b)
		if err != nil {
			return s, next, err
		}
		s.batches++
		s.bytes += int64(len(b.Raw))
		for _, r := range records {
			if r.Offset >= from {
				r.Key, r.Value = slices.Clone(r.Key), slices.Clone(r.Value) // the next batch may use their memory
				s.records = append(s.records, r)
			}
		}
	}
	return s, next, nil
}
