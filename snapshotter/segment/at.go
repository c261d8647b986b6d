package segment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

const (
	// wholeRead is up to which size a segment is read in one request, whatever is
	// wanted of it: a second request takes longer than so many bytes.
	wholeRead = 256 << 10

	// runBytes is about how much is read of a larger one in one request.
	runBytes = 4 << 20
)

// At is a segment of which blocks are read where they lie. A small one is read and
// verified whole; of a larger one, what is sealed is authenticated against its key and its
// place, and of the rest each block has its checksum. That nothing is missing shows in the
// chain over the records, which whoever reads them has to compare.
type At struct {
	*format.Segment
	bucket  objstore.Reader
	name    string
	object  []byte // its beginning
	payload int64  // where in the object the payload begins
	stored  *seal.ReaderAt
}

// OpenAt reads the header of a segment, of which a listing tells the size, and makes its
// blocks readable. A nil opener opens what is not sealed. Errors are those of Open.
func OpenAt(ctx context.Context, bucket objstore.Reader, opener *seal.Opener, r events.Region, shard int32, at Listed) (*At, error) {
	s, object, rest, err := readHeader(ctx, bucket, r, shard, at, wholeRead)
	if err != nil {
		return nil, err
	}
	o := &At{Segment: s, bucket: bucket, name: format.SegmentName(r, shard, at.Number), object: object, payload: int64(len(object) - len(rest))}
	if o.payload+s.StoredSize != at.Size {
		return nil, events.Errorf(events.KindInconsistent, "object %s has %d bytes, its header tells of %d", o.name, at.Size, o.payload+s.StoredSize)
	}
	if int64(len(rest)) == s.StoredSize {
		if err := matches(rest, s.StoredSize, s.StoredSHA256); err != nil {
			return nil, events.Errorf(events.KindInconsistent, "object %s: %w", o.name, err)
		}
	}
	if err := opener.Fits(s.Keys); err != nil {
		return nil, fmt.Errorf("object %s: %w", o.name, err)
	}
	if s.Size == 0 {
		return o, nil
	}
	if o.stored, err = opener.OpenAt(ctx, o.read, s.StoredSize, s.Keys, seal.ShortTail); err != nil {
		return nil, o.damage(err)
	}
	if o.stored.Size() != s.Size {
		return nil, events.Errorf(events.KindInconsistent, "object %s holds %d bytes, its header tells of %d", o.name, o.stored.Size(), s.Size)
	}
	return o, nil
}

// read reads what is stored as the payload.
func (o *At) read(ctx context.Context, p []byte, offset int64) (err error) {
	from := o.payload + offset
	if from+int64(len(p)) <= int64(len(o.object)) {
		copy(p, o.object[from:])
		return nil
	}
	if len(p) == 0 {
		return nil
	}
	body, err := o.bucket.GetRange(ctx, o.name, from, int64(len(p)))
	if err != nil {
		return readError(o.name, err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if _, err = io.ReadFull(body, p); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = fmt.Errorf("segment %s: %w: less came than the %d bytes from offset %d on", o.name, objstore.ErrCorrupt, len(p), from)
	}
	return err
}

func (o *At) damage(err error) error {
	if errors.Is(err, seal.ErrDamaged) {
		return events.Errorf(events.KindInconsistent, "object %s: %w", o.name, err)
	}
	return err
}

// Records yields the records of a log from an offset on, in order, as Segment.Records
// does, and reads no blocks but those that hold some. An error is yielded once and ends it.
func (o *At) Records(ctx context.Context, l events.Log, from int64) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		p := o.Part(l)
		if p == nil {
			return
		}
		blocks := p.Blocks
		for len(blocks) > 0 && blocks[0].Last < from {
			blocks = blocks[1:]
		}
		for len(blocks) > 0 {
			n := 1
			for n < len(blocks) && blocks[n].At+blocks[n].Length-blocks[0].At <= runBytes {
				n++
			}
			records, err := o.decode(ctx, l, blocks[:n])
			if err != nil {
				yield(nil, err)
				return
			}
			for _, r := range records {
				if r.Offset >= from && !yield(r, nil) {
					return
				}
			}
			blocks = blocks[n:]
		}
	}
}

// decode reads blocks that lie one behind the other.
func (o *At) decode(ctx context.Context, l events.Log, blocks []format.Block) (records []*kgo.Record, err error) {
	first, last := blocks[0], blocks[len(blocks)-1]
	run := make([]byte, last.At+last.Length-first.At)
	if err := o.stored.ReadAt(ctx, run, first.At); err != nil {
		return nil, o.damage(err)
	}
	for _, b := range blocks {
		at := b.At - first.At
		in, err := decodeBlock(run[at:at+b.Length], b)
		if err != nil {
			return nil, blockError(o.Segment, l, b, err)
		}
		records = append(records, in...)
	}
	return records, nil
}

func blockError(s *format.Segment, l events.Log, b format.Block, err error) error {
	return events.Errorf(events.KindInconsistent, "object %s, %s, block of offsets %d to %d: %w", format.SegmentName(s.Region, s.Shard, s.Number), l, b.First, b.Last, err)
}

// readHeader reads the beginning of a segment, of so many bytes at first, and decodes
// its header; rest is what was read behind it.
func readHeader(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32, at Listed, first int64) (s *format.Segment, object, rest []byte, err error) {
	name := format.SegmentName(r, shard, at.Number)
	for size := first; ; size *= 8 {
		size = min(size, at.Size, format.MaxSegmentHeaderBytes)
		b, err := readRange(ctx, bucket, name, size)
		if err != nil {
			return nil, nil, nil, readError(name, err)
		}
		s, rest, complete, err := decode(b, r, shard, at.Number)
		if complete || err != nil {
			return s, b, rest, err
		}
		if size == at.Size || size == format.MaxSegmentHeaderBytes {
			return nil, nil, nil, events.Errorf(events.KindInconsistent, "object %s: it ends within its header", name)
		}
	}
}
