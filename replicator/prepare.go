package replicator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

const (
	smallBytes  = 8 << 10   // smaller batches are merged with their neighbours
	mergedBytes = 512 << 10 // of what is merged into one
	mergedMost  = 10_000    // records in one merged batch
	corruptMost = 3         // answers in a row that are no records before a part stops
)

// preparer makes chunks of what a fetch brought: it decides for each batch
// whether it passes as it is, is framed anew or left out, and gives it its place
// in the mirror.
type preparer struct {
	m       *mover
	recoder *batch.Recoder
}

// prepared is what one answer brought for one flow.
type prepared struct {
	flow   *flow
	chunks []chunk
	known  int           // runs of the flow's map before
	runs   []mapping.Run // to be written ahead
	epochs []ledger.Epoch

	err   error         // why the chunks must not be appended
	small []batch.Batch // collected to be merged
	bytes int           // of small
	load  *load
	state flowState
}

// flowState is what changes in a flow as it goes through an answer; it takes
// effect when all of the answer has proved good.
type flowState struct {
	next, end int64
	epoch     int32
}

// partition prepares an answer's records of one partition. Without a flow in the
// result there is nothing to be done.
func (pr *preparer) partition(fl *flow, rp *kmsg.FetchResponseTopicPartition, l *load) prepared {
	p := prepared{flow: fl, known: fl.runs.Len(), load: l, state: flowState{fl.next, fl.end, fl.epoch}}
	aborted := slices.SortedFunc(slices.Values(rp.AbortedTransactions), func(a, b kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
	data := rp.RecordBatches
	for len(data) > 0 {
		b, rest, err := batch.Read(data)
		if errors.Is(err, batch.ErrPartial) {
			break
		}
		var old *batch.OldFormatError
		switch {
		case errors.As(err, &old):
			if rest, err = pr.old(&p, data); err == nil {
				data = rest
				continue
			}
		case err == nil:
			err = b.Verify()
		}
		if err == nil {
			aborted = fl.openAborted(aborted, b.LastOffset())
			err = pr.batch(&p, b)
		}
		if err != nil {
			return pr.failed(&p, err)
		}
		data = rest
	}
	if err := pr.flush(&p); err != nil {
		return pr.failed(&p, err)
	}
	p.settle()
	return p
}

// settle lets the flow go on behind what was prepared.
func (p *prepared) settle() {
	p.flow.next, p.flow.end, p.flow.epoch = p.state.next, p.state.end, p.state.epoch
}

// openAborted notes the transactions that are aborted later and begin up to an
// offset, and returns those that remain.
func (fl *flow) openAborted(aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction, to int64) []kmsg.FetchResponseTopicPartitionAbortedTransaction {
	for len(aborted) > 0 && aborted[0].FirstOffset <= to {
		fl.open[aborted[0].ProducerID] = true
		aborted = aborted[1:]
	}
	return aborted
}

// batch decides about one batch.
func (pr *preparer) batch(p *prepared, b batch.Batch) error {
	fl := p.flow
	if b.NextOffset() <= p.state.next {
		return nil // an answer begins with the batch that the offset is in, or with one before
	}
	if pr.m.relay != nil && b.NextOffset() > fl.until {
		return nil // the peer's link has more by now, or somebody else has written there; see lookAgain
	}
	if b.LeaderEpoch != p.state.epoch && pr.m.relay == nil {
		p.epochs = append(p.epochs, ledger.Epoch{Epoch: b.LeaderEpoch, Start: max(b.BaseOffset, p.state.next)})
		p.state.epoch = b.LeaderEpoch
	}
	switch {
	case b.Control():
		delete(fl.open, b.ProducerID) // the end of its transaction, one way or the other
		return pr.skip(p, b, "control")
	case b.Transactional() && fl.open[b.ProducerID]:
		return pr.skip(p, b, "aborted")
	case b.Count == 0:
		return pr.skip(p, b, "empty")
	case b.BaseOffset < p.state.next:
		if err := pr.flush(p); err != nil {
			return err
		}
		d, err := pr.recoder.Trim(b, p.state.next)
		if err != nil {
			return err
		}
		return pr.add(p, "trimmed", b.NextOffset(), d)
	case len(b.Raw) < smallBytes:
		return pr.collect(p, b)
	}
	if err := pr.flush(p); err != nil {
		return err
	}
	return pr.large(p, b)
}

// large passes a batch on as it is, if it can pass.
func (pr *preparer) large(p *prepared, b batch.Batch) error {
	switch {
	case len(b.Raw) > p.flow.limit:
		d, err := pr.recoder.Split(b, p.flow.limit)
		if err != nil {
			return cmp.Or(pr.putAll(p, d), err) // what comes before the record that does not fit
		}
		return pr.add(p, "split", b.NextOffset(), d...)
	case !b.Dense():
		return pr.recode(p, b, "holes")
	case b.LogAppendTime():
		return pr.recode(p, b, "append-time")
	}
	pr.m.metrics.batch(pr.m.cfg.Origin, "passed", 1)
	return pr.put(p, chunk{
		raw: b.Raw, count: b.Count, first: b.BaseOffset, next: b.NextOffset(), time: b.MaxTimestamp, load: p.load,
	}, []batch.Run{{Source: b.BaseOffset, Count: b.Count}})
}

func (pr *preparer) recode(p *prepared, b batch.Batch, why string) error {
	d, err := pr.recoder.Merge([]batch.Batch{b})
	if err != nil {
		return err
	}
	return pr.add(p, why, b.NextOffset(), d)
}

// collect keeps a small batch for merging.
func (pr *preparer) collect(p *prepared, b batch.Batch) error {
	if len(p.small) > 0 {
		records := b.LastOffset() - p.small[0].BaseOffset
		if p.bytes+len(b.Raw) > min(mergedBytes, p.flow.limit) || records > mergedMost || b.Codec() != p.small[0].Codec() {
			if err := pr.flush(p); err != nil {
				return err
			}
		}
	}
	p.small = append(p.small, b)
	p.bytes += len(b.Raw)
	return nil
}

// flush makes one batch of the small ones collected; a single one passes as it is.
func (pr *preparer) flush(p *prepared) error {
	small := p.small
	if len(small) == 0 {
		return nil
	}
	p.small, p.bytes = nil, 0
	if len(small) == 1 {
		return pr.large(p, small[0])
	}
	d, err := pr.recoder.Merge(small)
	if err != nil {
		return pr.each(p, small) // up to the one that is at fault
	}
	pr.m.metrics.batch(pr.m.cfg.Origin, "merged", len(small))
	return pr.add(p, "", small[len(small)-1].NextOffset(), d)
}

func (pr *preparer) each(p *prepared, batches []batch.Batch) error {
	for _, b := range batches {
		if err := pr.large(p, b); err != nil {
			return err
		}
	}
	return nil
}

// skip leaves a batch out.
func (pr *preparer) skip(p *prepared, b batch.Batch, why string) error {
	if err := pr.flush(p); err != nil {
		return err
	}
	pr.m.metrics.batch(pr.m.cfg.Origin, why, 1)
	p.state.next = b.NextOffset()
	return nil
}

// add puts batches that were framed anew into the mirror.
func (pr *preparer) add(p *prepared, why string, next int64, dense ...batch.Dense) error {
	if why != "" {
		pr.m.metrics.batch(pr.m.cfg.Origin, why, 1)
	}
	dense, err := pr.fit(p, dense)
	if err := cmp.Or(pr.putAll(p, dense), err); err != nil {
		return err
	}
	if n := len(p.chunks); n > 0 {
		p.chunks[n-1].next = next
	}
	p.state.next = next
	return nil
}

// putAll puts batches that were framed anew into the mirror, one after the other.
func (pr *preparer) putAll(p *prepared, dense []batch.Dense) error {
	for _, d := range dense {
		last := d.Runs[len(d.Runs)-1]
		err := pr.put(p, chunk{
			raw: d.Raw, count: d.Count, first: d.Runs[0].Source, next: last.Source + int64(last.Count), time: d.MaxTimestamp(),
		}, d.Runs)
		if err != nil {
			return err
		}
	}
	return nil
}

// fit splits what is larger than the mirror takes, and drops what is empty.
func (pr *preparer) fit(p *prepared, dense []batch.Dense) ([]batch.Dense, error) {
	var fitting []batch.Dense
	for _, d := range dense {
		switch {
		case d.Count == 0:
		case p.flow.careful && len(d.Runs) > ledger.PlanRunsMax:
			parts, err := pr.recoder.SplitEvery(d, ledger.PlanRunsMax)
			if err != nil {
				return fitting, err
			}
			if parts, err = pr.fit(p, parts); err != nil {
				return append(fitting, parts...), err
			}
			fitting = append(fitting, parts...)
		case len(d.Raw) <= p.flow.limit:
			fitting = append(fitting, d)
		default:
			parts, err := pr.recoder.SplitDense(d, p.flow.limit)
			fitting = append(fitting, parts...)
			if err != nil {
				return fitting, err
			}
		}
	}
	return fitting, nil
}

// old frames messages of the formats before version 2 anew.
func (pr *preparer) old(p *prepared, data []byte) (rest []byte, err error) {
	if err := pr.flush(p); err != nil {
		return nil, err
	}
	d, rest, err := pr.recoder.Old(data)
	if err != nil || d.Count == 0 {
		return rest, err
	}
	last := d.Runs[len(d.Runs)-1]
	next := last.Source + int64(last.Count)
	if next <= p.state.next {
		return rest, nil
	}
	if d.Runs[0].Source < p.state.next {
		if d, err = pr.recoder.TrimDense(d, p.state.next); err != nil {
			return nil, err
		}
	}
	return rest, pr.add(p, "old-format", next, d)
}

// failed ends an answer before a batch that does not fit. What comes before it
// is mirrored first; a batch that is no record may be so by an accident on the
// way, and is read again a few times.
func (pr *preparer) failed(p *prepared, err error) prepared {
	if first := pr.flush(p); first != nil {
		err = first
	}
	if len(p.chunks) > 0 {
		p.settle()
		return *p
	}
	var large *batch.TooLargeError
	if errors.As(err, &large) {
		pr.tooLarge(p.flow, large)
		return prepared{}
	}
	offset, reason := p.state.next, err.Error()
	var corrupt *batch.CorruptError
	if errors.As(err, &corrupt) {
		offset, reason = corrupt.Offset, corrupt.Reason
	}
	pr.spoilt(p.flow, offset, reason)
	return prepared{}
}

// tooLarge stops a part at a record that the mirror does not take, once the
// mirror has had the time to follow the source's configuration.
func (pr *preparer) tooLarge(fl *flow, large *batch.TooLargeError) {
	stop := stopped(TooLarge, large.Offset, large.Offset,
		"the record at offset %d makes a batch of %d bytes, the mirror takes %d: raise max.message.bytes of %s in %s",
		large.Offset, large.Bytes, large.Limit, fl.part.mirror, pr.m.cfg.Destination)
	pr.m.mu.Lock()
	p := fl.part
	if p.largeAt != large.Offset {
		p.largeAt, p.largeSince = large.Offset, time.Now()
	}
	patient := time.Since(p.largeSince) < 2*topicsInterval
	if patient {
		p.limitBytes, p.refused = 0, 0
	}
	pr.m.mu.Unlock()
	if patient {
		pr.m.interrupt(fl, stop)
		return
	}
	pr.m.finish(fl, stop)
}

// spoilt counts answers in a row that are no records.
func (pr *preparer) spoilt(fl *flow, offset int64, reason string) {
	pr.m.metrics.batch(pr.m.cfg.Origin, "corrupt", 1)
	p := fl.part
	pr.m.mu.Lock()
	p.corrupt++
	often := p.corrupt >= corruptMost
	pr.m.mu.Unlock()
	if often {
		pr.m.finish(fl, stopped(Corrupt, offset, offset, "what the source has at offset %d is no record batch: %s", offset, reason))
		return
	}
	pr.m.interrupt(fl, fmt.Errorf("read %s, %s, offset %d: %s", pr.m.source.name, p.partition, offset, reason))
}
