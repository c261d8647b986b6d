package segment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// ErrTaken says that another archiver has put its own segment at that place.
var ErrTaken = errors.New("another archiver has gone on there")

// Append puts a segment into the bucket. ErrTaken: it is another one's place, and the
// archive goes on behind what is there now. After any other error it may be there or
// not, and the same bytes are to be appended again.
func Append(ctx context.Context, bucket objstore.Creator, s *format.Segment, object []byte) error {
	err := bucket.Create(ctx, format.SegmentName(s.Region, s.Shard, s.Number), object)
	switch {
	case errors.Is(err, objstore.ErrExists):
		return fmt.Errorf("segment %d of shard %d: %w: %w", s.Number, s.Shard, ErrTaken, err)
	case err != nil:
		return fmt.Errorf("segment %d of shard %d: %w", s.Number, s.Shard, err)
	}
	return nil
}

// Numbers lists the segments of a shard, ascending. Objects that are none are passed
// over.
func Numbers(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32) ([]int64, error) {
	return NumbersBehind(ctx, bucket, r, shard, 0)
}

// NumbersBehind is Numbers of the segments behind a number, without listing those before.
func NumbersBehind(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32, number int64) ([]int64, error) {
	var numbers []int64
	for at, err := range Behind(ctx, bucket, r, shard, number) {
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, at.Number)
	}
	return numbers, nil
}

// Listed is a segment in a listing.
type Listed struct {
	Number int64
	Size   int64  // of the object
	Class  string // of storage; empty: the usual one
}

// Behind lists the segments behind a number, ascending.
func Behind(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32, number int64) iter.Seq2[Listed, error] {
	last := ""
	if number > 0 {
		last = format.SegmentName(r, shard, number)
	}
	return func(yield func(Listed, error) bool) {
		for info, err := range bucket.ListAfter(ctx, format.ShardSegmentPrefix(r, shard), last) {
			if err != nil {
				yield(Listed{}, fmt.Errorf("list segments of shard %d of %s: %w", shard, r, err))
				return
			}
			if n, ok := format.ParseSegmentName(r, shard, info.Name); ok && !yield(Listed{n, info.Size, info.Class}, nil) {
				return
			}
		}
	}
}

// List lists all segments of a shard, ascending, and reads the header of the newest, which
// tells which of them are void; that is nil if there are none, or if it is damaged.
func List(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32) (all []Listed, newest *format.Segment, err error) {
	return ListBehind(ctx, bucket, r, shard, 0)
}

// ListBehind is List of the segments behind a number.
func ListBehind(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32, number int64) (all []Listed, newest *format.Segment, err error) {
	for at, err := range Behind(ctx, bucket, r, shard, number) {
		if err != nil {
			return nil, nil, err
		}
		all = append(all, at)
	}
	if len(all) == 0 {
		return nil, nil, nil
	}
	newest, err = newestOf(ctx, bucket, r, shard, all)
	return all, newest, err
}

// Archive is what a listing has of a shard's archive, as List tells it.
type Archive struct {
	Shard  int32
	All    []Listed        // ascending, one at least
	Newest *format.Segment // nil: its header is damaged, or it was pruned meanwhile, behind newer ones
}

// ListAll is List of all shards, ascending, in one listing.
func ListAll(ctx context.Context, bucket objstore.Reader, r events.Region) ([]Archive, error) {
	var all []Archive
	for info, err := range bucket.List(ctx, format.SegmentPrefix(r)) {
		if err != nil {
			return nil, fmt.Errorf("list segments of %s: %w", r, err)
		}
		shard, _ := format.ParseShardOfSegment(r, info.Name)
		n, ok := format.ParseSegmentName(r, shard, info.Name)
		if !ok {
			continue
		}
		i := slices.IndexFunc(all, func(a Archive) bool { return a.Shard == shard })
		if i < 0 {
			i, all = len(all), append(all, Archive{Shard: shard})
		}
		all[i].All = append(all[i].All, Listed{n, info.Size, info.Class})
	}
	slices.SortFunc(all, func(a, b Archive) int { return int(a.Shard - b.Shard) })
	for i := range all {
		a := &all[i]
		newest, err := newestOf(ctx, bucket, r, a.Shard, a.All)
		if err != nil && events.KindOf(err) != events.KindNotFound {
			return nil, err
		}
		a.Newest = newest
	}
	return all, nil
}

// newestOf reads the header of the newest segment of a listing; nil: it is damaged, which whoever needs it will be told.
func newestOf(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32, all []Listed) (*format.Segment, error) {
	newest, err := HeaderOf(ctx, bucket, r, shard, all[len(all)-1])
	if kind := events.KindOf(err); kind == events.KindInconsistent || kind == events.KindRefused {
		return nil, nil
	}
	return newest, err
}

// Run is the part of a listing that is the archive: what ends with the newest and lacks none
// in between, without those that are void.
func Run(all []Listed, newest *format.Segment) []Listed {
	if newest != nil && len(newest.Void) > 0 {
		all = slices.DeleteFunc(slices.Clone(all), func(at Listed) bool { return newest.IsVoid(at.Number) })
	}
	i := len(all) - 1
	for i > 0 && Adjoin(all[i-1].Number, all[i].Number, newest) {
		i--
	}
	return all[max(0, i):]
}

// Adjoin says whether nothing but what is void lies between two numbers.
func Adjoin(before, number int64, newest *format.Segment) bool {
	for number--; newest != nil && newest.IsVoid(number); {
		number--
	}
	return number == before
}

// Sound finds the newest segment of a shard that is whole, as it is stored, and tells the number of the
// newest of all: the archive goes on behind the one, and what comes between is damaged. It is nil if
// there is none.
func Sound(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32) (s *format.Segment, newest int64, err error) {
	numbers, err := Numbers(ctx, bucket, r, shard)
	if err != nil || len(numbers) == 0 {
		return nil, 0, err
	}
	newest = numbers[len(numbers)-1]
	for _, number := range slices.Backward(numbers) {
		object, err := objstore.ReadAll(ctx, bucket, format.SegmentName(r, shard, number), maxObjectBytes)
		if err != nil {
			err = readError(format.SegmentName(r, shard, number), err)
		} else {
			s, err = Verify(object, r, shard, number)
		}
		if events.KindOf(err) != events.KindInconsistent {
			return s, newest, err
		}
	}
	return nil, newest, nil
}

// Shards lists the shards that have segments, ascending.
func Shards(ctx context.Context, bucket objstore.Reader, r events.Region) ([]int32, error) {
	var shards []int32
	for info, err := range bucket.List(ctx, format.SegmentPrefix(r)) {
		if err != nil {
			return nil, fmt.Errorf("list segments of %s: %w", r, err)
		}
		if shard, ok := format.ParseShardOfSegment(r, info.Name); ok && !slices.Contains(shards, shard) {
			shards = append(shards, shard)
		}
	}
	slices.Sort(shards)
	return shards, nil
}

// Newest reads the header of a shard's newest segment; nil: there is none.
func Newest(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32) (*format.Segment, error) {
	return NewestBehind(ctx, bucket, r, shard, nil)
}

// NewestBehind is Newest for one who knows a segment that was the newest before, or nil:
// those up to it are not listed.
func NewestBehind(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32, known *format.Segment) (*format.Segment, error) {
	number := int64(0)
	if known != nil {
		number = known.Number
	}
	var newest Listed
	for at, err := range Behind(ctx, bucket, r, shard, number) {
		if err != nil {
			return nil, err
		}
		newest = at
	}
	if newest.Number == 0 {
		return known, nil
	}
	return HeaderOf(ctx, bucket, r, shard, newest)
}

// firstRead is what is read of a segment for its header: nearly always all of it.
const firstRead = 32 << 10

// Header reads the header of a segment. Damage is of kind events.KindInconsistent, no
// such segment of kind events.KindNotFound.
func Header(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32, number int64) (*format.Segment, error) {
	name := format.SegmentName(r, shard, number)
	info, err := bucket.Stat(ctx, name)
	if err != nil {
		return nil, readError(name, err)
	}
	return HeaderOf(ctx, bucket, r, shard, Listed{number, info.Size, info.Class})
}

// HeaderOf is Header for one who knows from a listing how large the segment is.
func HeaderOf(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32, at Listed) (*format.Segment, error) {
	s, _, _, err := readHeader(ctx, bucket, r, shard, at, firstRead)
	return s, err
}

func readRange(ctx context.Context, bucket objstore.Reader, name string, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	body, err := bucket.GetRange(ctx, name, 0, size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, size))
}

// decode reads a header and makes sure that it is the one that was asked for.
func decode(b []byte, r events.Region, shard int32, number int64) (s *format.Segment, payload []byte, complete bool, err error) {
	name := format.SegmentName(r, shard, number)
	s, payload, complete, err = format.DecodeSegment(b)
	switch {
	case err != nil:
		return nil, nil, complete, fmt.Errorf("object %s: %w", name, err)
	case !complete:
		return nil, nil, false, nil
	case s.Region != r || s.Shard != shard || s.Number != number:
		return nil, nil, true, events.Errorf(events.KindInconsistent, "object %s is segment %d of shard %d of %s", name, s.Number, s.Shard, s.Region)
	}
	return s, payload, true, nil
}

func readError(name string, err error) error {
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return events.Errorf(events.KindNotFound, "segment %s is not there: %w", name, err)
	case errors.Is(err, objstore.ErrCorrupt):
		return events.Errorf(events.KindInconsistent, "segment %s: %w", name, err)
	}
	return fmt.Errorf("segment %s: %w", name, err)
}

// Segment is a segment with all that is in it, verified.
type Segment struct {
	*format.Segment
	payload []byte
}

const maxObjectBytes = format.MaxSegmentHeaderBytes + 2*format.MaxSegmentBytes // sealing adds a little

// Open reads a segment whole and verifies it: header and payload, as it is stored and
// opened. A nil opener opens what is not sealed. Damage is of kind
// events.KindInconsistent and names the object.
func Open(ctx context.Context, bucket objstore.Reader, opener *seal.Opener, r events.Region, shard int32, number int64) (*Segment, error) {
	name := format.SegmentName(r, shard, number)
	object, err := objstore.ReadAll(ctx, bucket, name, maxObjectBytes)
	if err != nil {
		return nil, readError(name, err)
	}
	s, stored, err := verify(object, r, shard, number)
	if err != nil {
		return nil, err
	}
	if err := opener.Fits(s.Keys); err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	plain, err := opener.Open(bytes.NewReader(stored), s.Keys)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	payload, err := io.ReadAll(io.LimitReader(plain, s.Size+1))
	if err != nil {
		return nil, events.Errorf(events.KindInconsistent, "object %s: %w", name, err)
	}
	if err := matches(payload, s.Size, s.SHA256); err != nil {
		return nil, events.Errorf(events.KindInconsistent, "object %s, opened: %w", name, err)
	}
	return &Segment{Segment: s, payload: payload}, nil
}

// Verify verifies what an object holds, without opening it: the header, and the
// payload as it is stored. Damage is of kind events.KindInconsistent.
func Verify(object []byte, r events.Region, shard int32, number int64) (*format.Segment, error) {
	s, _, err := verify(object, r, shard, number)
	return s, err
}

func verify(object []byte, r events.Region, shard int32, number int64) (s *format.Segment, stored []byte, err error) {
	name := format.SegmentName(r, shard, number)
	s, stored, complete, err := decode(object, r, shard, number)
	if err == nil && !complete {
		err = events.Errorf(events.KindInconsistent, "object %s: it ends within its header", name)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := matches(stored, s.StoredSize, s.StoredSHA256); err != nil {
		return nil, nil, events.Errorf(events.KindInconsistent, "object %s: %w", name, err)
	}
	return s, stored, nil
}

func matches(b []byte, size int64, sum string) error {
	if got := sha256.Sum256(b); int64(len(b)) != size || hex.EncodeToString(got[:]) != sum {
		return fmt.Errorf("%d bytes with SHA-256 %x, the header says %d bytes with %s", len(b), got, size, sum)
	}
	return nil
}

// Records yields the records of a log from an offset on, in order, with the offsets
// that they have in the origin's log. They share the segment's memory.
func (s *Segment) Records(l events.Log, from int64) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		p := s.Part(l)
		if p == nil {
			return
		}
		for _, block := range p.Blocks {
			if block.Last < from {
				continue
			}
			records, err := decodeBlock(s.payload[block.At:block.At+block.Length], block)
			if err != nil {
				yield(nil, blockError(s.Segment, l, block, err))
				return
			}
			for _, r := range records {
				if r.Offset >= from && !yield(r, nil) {
					return
				}
			}
		}
	}
}

// Check decodes every record, and computes the chains anew, where the segment says what
// they begin with.
func (s *Segment) Check(chain func(events.Digest, *kgo.Record) events.Digest) error {
	for _, p := range s.Parts {
		sum, from := p.Before, format.LogEnd{Log: p.Log, Next: p.From, Chain: p.Before}
		for r, err := range s.Records(p.Log, p.From) {
			if err != nil {
				return err
			}
			sum = chain(sum, r)
		}
		if end, _ := s.End(p.Log); from.IsChained() && sum != end.Chain {
			return events.Errorf(events.KindInconsistent, "object %s, %s: the chain of its records is %s, the header says %s",
				format.SegmentName(s.Region, s.Shard, s.Number), p.Log, sum, end.Chain)
		}
	}
	return nil
}
