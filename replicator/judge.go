package replicator

import (
	"fmt"

	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// findings is all that is looked at before a partition is mirrored on.
type findings struct {
	topic      string
	mirror     string
	sourceName string
	destName   string

	sourceID, mirrorID string
	known              ledger.Mirror // what the topic's mirror is a copy of; zero: there is none yet
	fresh              bool          // no link has written this partition
	runs               *mapping.Map
	expired            *ledger.Plan // of a batch that may be the mirror's last, which is gone

	// reached says, where the mirror still ends there, up to where the source
	// was read and had nothing more for it: markers, aborted and removed records.
	reached start

	mirrorStart, mirrorEnd   int64
	producing                bool  // the broker remembers the link's producer
	displaced                bool  // and that it has written more than the mirror has
	lastSequence             int32 // of it
	sourceStart, sourceEnd   int64
	epochKnown               bool  // the source has answered about the leader epoch mirrored last
	epochEnd                 int64 // where the source says that it ended
	until                    int64 // of a peer's mirror: up to where its link has written it
	tail                     comparison
	tailOffset, tailMirrorAt int64 // of the record compared, at source and mirror
}

// comparison of the mirror's last record with the source's.
type comparison int

const (
	notCompared comparison = iota // nothing to compare, or no reason to
	same
	differs
)

// start is where to go on.
type start struct {
	next int64         // of the source
	end  int64         // of the mirror
	runs []mapping.Run // to be written before anything else
}

// decide says from where to mirror on, or why not. It sees facts only, and
// changes nothing.
func (f findings) decide() (start, *StoppedError) {
	if f.known != (ledger.Mirror{}) {
		if stop := f.recreated(); stop != nil {
			return start{}, stop
		}
	}
	if f.displaced {
		return start{}, stopped(Diverged, -1, -1, "%s in %s ends at offset %d, and the last record that the link has written there was due behind it: %s had forgotten "+
			"the link's producer and has put batches in the place of others, which are missing, or the mirror has lost its end; verify the link to see "+
			"from which offset on they differ, and say where to go on", f.mirror, f.destName, f.mirrorEnd, f.destName)
	}
	if p := f.expired; p != nil {
		return start{}, stopped(Diverged, p.Dest, f.mirrorEnd-1, "whether offsets %d to %d of %s in %s are what was planned to be there cannot be told: "+
			"they are gone; say where to go on", p.Dest, f.mirrorEnd-1, f.mirror, f.destName)
	}
	chosen := f.runs.Len() > 0 // by an operator: from where to go on behind whatever there is
	if f.fresh && f.mirrorEnd > 0 && f.tail != same && !chosen {
		return start{}, stopped(ForeignWriter, f.mirrorStart, f.mirrorEnd-1,
			"%s in %s has records up to offset %d that no link has written: delete it, or say where to go on", f.mirror, f.destName, f.mirrorEnd-1)
	}
	if stop := f.foreign(); stop != nil {
		return start{}, stop
	}
	next, mapped := f.next()
	if !mapped {
		return start{}, f.mirrorTruncated()
	}
	s := start{next: next, end: f.mirrorEnd}
	if f.fresh && f.mirrorEnd == 0 && !chosen && f.sourceStart > 0 {
		s.next = f.sourceStart // a log that began to expire before it was mirrored at all
		s.runs = []mapping.Run{{Source: f.sourceStart, Dest: 0}}
		return s, nil
	}
	return s, f.missing(next)
}

// mirrorTruncated is for a mirror that ends before what is known of its offsets
// begins: where an operator once let it go on.
func (f findings) mirrorTruncated() *StoppedError {
	first := f.runs.Runs()[0]
	stop := stopped(MirrorTruncated, f.mirrorEnd, first.Dest-1, "%s in %s ends at offset %d: it has lost all from there on, also what it had before "+
		"offset %d, where an operator let it go on; an unclean leader was elected, or its disk was restored", f.mirror, f.destName, f.mirrorEnd, first.Dest)
	stop.next = first.Source
	return stop
}

// next is the offset of the source up to which everything has been read. mapped
// is false if the mirror ends before anything is known of its offsets.
func (f findings) next() (next int64, mapped bool) {
	next, mapped = f.runs.Source(f.mirrorEnd)
	if mapped && f.reached.end == f.mirrorEnd {
		next = max(next, f.reached.next)
	}
	return next, mapped
}

// recreated finds a topic on either side that is not the one mirrored so far.
func (f findings) recreated() *StoppedError {
	switch {
	case f.known.SourceTopicID != f.sourceID:
		return stopped(SourceRecreated, -1, -1, "topic %s of %s was deleted and created again: its id is %s, what was mirrored up to now is %s",
			f.topic, f.sourceName, f.sourceID, f.known.SourceTopicID)
	case f.known.MirrorTopicID != f.mirrorID:
		return stopped(MirrorRecreated, -1, -1, "%s in %s was deleted and created again: its id is %s, the link wrote to %s",
			f.mirror, f.destName, f.mirrorID, f.known.MirrorTopicID)
	}
	return nil
}

// foreign finds records that the link's producer did not write: its last
// sequence is the last offset of the mirror, else somebody else wrote after it.
func (f findings) foreign() *StoppedError {
	if !f.producing {
		return nil
	}
	extra := f.extra()
	if extra == 0 {
		return nil
	}
	stop := stopped(ForeignWriter, f.mirrorEnd-extra, f.mirrorEnd-1,
		"%d records of %s in %s, offsets %d to %d, were written by somebody else", extra, f.mirror, f.destName, f.mirrorEnd-extra, f.mirrorEnd-1)
	if next, mapped := f.runs.Source(f.mirrorEnd - extra); mapped {
		stop.next = next
	}
	return stop
}

// extra is how many records come after the one that the link's producer wrote
// last, as sequences count.
func (f findings) extra() int64 { return f.behindLast(f.mirrorEnd) }

// behindLast is how many records come after that one in a log that ends there.
func (f findings) behindLast(end int64) int64 { return (end - 1 - int64(f.lastSequence)) & (1<<31 - 1) }

// ahead reports whether the producer has written more than there is up to an offset.
func (f findings) ahead(end int64) bool { return f.behindLast(end) > 1<<30 }

// missing finds records that one side has lost.
func (f findings) missing(next int64) *StoppedError {
	switch {
	case f.epochKnown && f.epochEnd < next: // says how much, where the tail says only that
		return truncated(f.epochEnd, next)
	case f.tail == differs:
		return stopped(Diverged, f.tailOffset, f.tailOffset,
			"offset %d of the source and offset %d of %s are not the same record", f.tailOffset, f.tailMirrorAt, f.mirror)
	case next > f.sourceEnd && !f.producing:
		return stopped(Truncated, f.sourceEnd, next-1, "offsets %s are in the mirror, and the source does not have them: it was truncated, "+
			"an unclean leader was elected, or somebody else wrote to the mirror (the destination has forgotten who did)", span(f.sourceEnd, next-1))
	case next > f.sourceEnd:
		return truncated(f.sourceEnd, next)
	case next < f.sourceStart:
		return stopped(LostRecords, next, f.sourceStart-1, "offsets %d to %d have expired at the source before they were mirrored", next, f.sourceStart-1)
	}
	return nil
}

// truncated says that the source ends, or goes on otherwise, at an offset below
// that up to which it was mirrored.
func truncated(end, next int64) *StoppedError {
	return stopped(Truncated, end, next-1,
		"offsets %s are in the mirror, and the source has lost them: it was truncated, or an unclean leader was elected", span(end, next-1))
}

func span(from, to int64) string {
	if from == to {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d to %d", from, to)
}
