package format

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// SegmentVersion is the format of segments that this package writes. It reads this
// one and all before it.
const SegmentVersion = 2

const (
	// MaxSegmentHeaderBytes bounds what is read as the header of a segment.
	MaxSegmentHeaderBytes = 4 << 20

	// MaxSegmentBytes bounds the payload of a segment, before it is sealed.
	MaxSegmentBytes = 64 << 20
)

// Segment is the header of a segment: a piece of the archive of a shard's logs. It is
// immutable, and the segments of a shard have numbers without gaps.
type Segment struct {
	Format   int           `json:"format"`
	Region   events.Region `json:"region"` // whose archive it is
	Shard    int32         `json:"shard"`
	Number   int64         `json:"number"`         // from 1
	Created  time.Time     `json:"created"`        // when it was closed, UTC
	Epoch    events.Epoch  `json:"epoch,omitzero"` // under which the shard was open
	Software string        `json:"software"`

	// The segments before this one that are not part of the archive, ascending: they could
	// not be read, and the one behind them has again what they had.
	Void []Range `json:"void,omitempty"`

	Ends  []LogEnd      `json:"ends"`  // of every log of the archive after this segment, ascending
	Parts []SegmentPart `json:"parts"` // the logs of which it holds something, ascending

	// The payload: the parts' blocks one behind the other, and what the object holds
	// of it. See Table.
	Size         int64    `json:"size"`
	SHA256       string   `json:"sha256"`
	StoredSize   int64    `json:"stored_size"`
	StoredSHA256 string   `json:"stored_sha256"`
	Keys         []string `json:"keys"`
}

// Range is some numbers of segments, from First to Last.
type Range struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

// LogEnd is how far a log is archived.
type LogEnd struct {
	Log   events.Log    `json:"log"`
	Next  int64         `json:"next"`           // the first offset that is not archived
	Chain events.Digest `json:"chain,omitzero"` // of the records below it; see events.Mark

	// Of the record right below Next, by itself: a chain that begins with it. Zero: it is
	// not known, or there is none.
	Last events.Digest `json:"last,omitzero"`
}

// IsChained says whether the chain is known: it is not, for a while, where a log had lost
// records before they were archived.
func (e LogEnd) IsChained() bool { return e.Next == 0 || e.Chain != events.Digest{} }

// SegmentPart is what a segment holds of one log: all its records with offsets from
// From to below To. Offsets that no record has are those of transactions' markers, or
// of what was aborted.
type SegmentPart struct {
	Log     events.Log    `json:"log"`
	From    int64         `json:"from"`
	To      int64         `json:"to"`
	Before  events.Digest `json:"before,omitzero"` // chain of the records below From
	Records int64         `json:"records"`
	Bytes   int64         `json:"bytes"` // of keys, values and headers

	// What the region had made of the records below To, where it was known when
	// the segment was closed.
	Mark *events.Mark `json:"mark,omitempty"`

	// Why the archive lacks the records from Gap.From to below From; nil: it
	// lacks none.
	Gap *Gap `json:"gap,omitempty"`

	Blocks []Block `json:"blocks"` // ascending
}

// Gap says what an archive lacks.
type Gap struct {
	From   int64  `json:"from"`
	Reason string `json:"reason"`
}

// Block is one record batch of Kafka's format (magic 2) in the payload. Its offsets
// are those of the origin's log.
type Block struct {
	First   int64 `json:"first"` // offset
	Last    int64 `json:"last"`
	Records int32 `json:"records"`
	MinTime int64 `json:"min_time"` // record timestamps, in milliseconds since 1970
	MaxTime int64 `json:"max_time"`
	At      int64 `json:"at"` // place in the payload
	Length  int64 `json:"length"`
}

// SegmentPrefix is where a region's segments are.
func SegmentPrefix(r events.Region) string { return string(r) + "/segments/" }

// ShardSegmentPrefix is where the segments of a shard are.
func ShardSegmentPrefix(r events.Region, shard int32) string {
	return fmt.Sprintf("%sshard-%04d/", SegmentPrefix(r), shard)
}

const segmentSuffix = ".segment"

// SegmentName names a segment.
func SegmentName(r events.Region, shard int32, number int64) string {
	return fmt.Sprintf("%s%010d%s", ShardSegmentPrefix(r, shard), number, segmentSuffix)
}

// ParseSegmentName is the inverse of SegmentName for a known region and shard.
func ParseSegmentName(r events.Region, shard int32, name string) (number int64, ok bool) {
	return parseNumber(name, ShardSegmentPrefix(r, shard), segmentSuffix)
}

// ParseShardOfSegment tells the shard of a segment of a known region by its name.
func ParseShardOfSegment(r events.Region, name string) (shard int32, ok bool) {
	rest, inside := strings.CutPrefix(name, SegmentPrefix(r))
	folder, _, _ := strings.Cut(rest, "/")
	digits, named := strings.CutPrefix(folder, "shard-")
	n, err := strconv.ParseInt(digits, 10, 32)
	if !inside || !named || err != nil || n < 0 {
		return 0, false
	}
	_, ok = ParseSegmentName(r, int32(n), name)
	return int32(n), ok
}

// End is how far a log is archived after the segment; false: the archive does not
// have it.
func (s *Segment) End(l events.Log) (LogEnd, bool) {
	i, found := slices.BinarySearchFunc(s.Ends, l, func(e LogEnd, l events.Log) int { return e.Log.Compare(l) })
	if !found {
		return LogEnd{Log: l}, false
	}
	return s.Ends[i], true
}

// Part is what the segment holds of a log; nil: nothing.
func (s *Segment) Part(l events.Log) *SegmentPart {
	i, found := slices.BinarySearchFunc(s.Parts, l, func(p SegmentPart, l events.Log) int { return p.Log.Compare(l) })
	if !found {
		return nil
	}
	return &s.Parts[i]
}

// After is the number of the segment that this one follows; 0: of none.
func (s *Segment) After() int64 {
	if n := len(s.Void); n > 0 && s.Void[n-1].Last == s.Number-1 {
		return s.Void[n-1].First - 1
	}
	return s.Number - 1
}

// IsVoid says whether a segment is not part of the archive, as this one knows it.
func (s *Segment) IsVoid(number int64) bool {
	return slices.ContainsFunc(s.Void, func(r Range) bool { return r.First <= number && number <= r.Last })
}

// Follows says whether the segment is the one after another: of the same archive,
// with the next number that is not void, closed no earlier, and beginning where the other
// ends.
func (s *Segment) Follows(before *Segment) error {
	if s.Region != before.Region || s.Shard != before.Shard || s.After() != before.Number {
		return events.Errorf(events.KindInconsistent, "segment %d of shard %d of %s does not follow segment %d of shard %d of %s",
			s.Number, s.Shard, s.Region, before.Number, before.Shard, before.Region)
	}
	if s.Created.Before(before.Created) {
		return events.Errorf(events.KindInconsistent, "segment %d of shard %d was closed at %s, before segment %d at %s", s.Number, s.Shard, s.Created, before.Number, before.Created)
	}
	for _, end := range before.Ends {
		if after, ok := s.End(end.Log); !ok || after != end && s.Part(end.Log) == nil {
			return events.Errorf(events.KindInconsistent, "segment %d of shard %d: the end of %s is not where segment %d has it", s.Number, s.Shard, end.Log, before.Number)
		}
	}
	for _, p := range s.Parts {
		end, known := before.End(p.Log)
		from, chained := p.From, p.Before == end.Chain
		if p.Gap != nil {
			from, chained = p.Gap.From, true
		}
		if known && (from != end.Next || !chained) {
			return events.Errorf(events.KindInconsistent, "segment %d of shard %d: %s goes on at offset %d with chain %s, segment %d ends at %d with %s",
				s.Number, s.Shard, p.Log, p.From, p.Before, before.Number, end.Next, end.Chain)
		}
	}
	return nil
}

// Encode writes the header as Manifest.Encode does a manifest.
func (s *Segment) Encode() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	text, err := encodeLine(s)
	if err == nil && len(text) > MaxSegmentHeaderBytes {
		return nil, events.Errorf(events.KindRefused, "segment %d of shard %d: a header of %d bytes, nothing reads more than %d", s.Number, s.Shard, len(text), MaxSegmentHeaderBytes)
	}
	return text, err
}

// DecodeSegment reads and verifies the header at the beginning of an object. rest
// is what follows it. Complete is false if b ends within the header.
func DecodeSegment(b []byte) (s *Segment, rest []byte, complete bool, err error) {
	first := bytes.IndexByte(b, '\n')
	second := bytes.IndexByte(b[first+1:], '\n')
	if first < 0 || second < 0 {
		return nil, nil, false, nil
	}
	end := first + 1 + second + 1
	s = &Segment{}
	if err := decodeLine("segment", SegmentVersion, b[:end], s); err != nil {
		return nil, nil, true, err
	}
	return s, b[end:], true, s.Validate()
}

func (s *Segment) version() int { return s.Format }

// Validate reports whether the header is well formed: everything that FORMAT.md says
// of it, as far as it can be told without the payload.
func (s *Segment) Validate() error {
	if err := s.validate(); err != nil {
		return events.Errorf(events.KindInconsistent, "segment %d of shard %d: %w", s.Number, s.Shard, err)
	}
	return nil
}

func (s *Segment) validate() error {
	if err := s.Region.Validate(); err != nil {
		return err
	}
	_, offset := s.Created.Zone()
	switch {
	case s.Format < 1 || s.Format > SegmentVersion:
		return fmt.Errorf("format %d, want 1 to %d", s.Format, SegmentVersion)
	case s.Shard < 0 || s.Number < 1:
		return errors.New("shard or number is malformed")
	case s.Format == 1 && (s.Void != nil || slices.ContainsFunc(s.Ends, func(e LogEnd) bool { return e.Last != events.Digest{} })):
		return errors.New("format 1 knows neither void segments nor the last records of logs")
	case s.Created.IsZero() || offset != 0:
		return fmt.Errorf("created at %s, want a time in UTC", s.Created)
	case s.Ends == nil || s.Parts == nil || s.Keys == nil:
		return errors.New("ends, parts or keys are missing")
	}
	last := int64(0)
	for _, r := range s.Void {
		if r.First <= last || r.Last < r.First || r.Last >= s.Number {
			return fmt.Errorf("void segments %d to %d do not belong here", r.First, r.Last)
		}
		last = r.Last + 1 // what adjoins is one range
	}
	for i, e := range s.Ends {
		if err := e.Log.Validate(); err != nil {
			return err
		}
		if e.Log.Partition != s.Shard || e.Next < 0 || e.Next == 0 && e.Last != (events.Digest{}) || i > 0 && s.Ends[i-1].Log.Compare(e.Log) >= 0 {
			return fmt.Errorf("end of %s at %d does not belong here", e.Log, e.Next)
		}
	}
	at := int64(0)
	for i, p := range s.Parts {
		if i > 0 && s.Parts[i-1].Log.Compare(p.Log) >= 0 {
			return fmt.Errorf("part of %s stands after that of %s", p.Log, s.Parts[i-1].Log)
		}
		var err error
		if at, err = s.validatePart(p, at); err != nil {
			return fmt.Errorf("part of %s: %w", p.Log, err)
		}
	}
	return s.validatePayload(at)
}

// validatePart checks a part whose blocks begin at a place in the payload.
func (s *Segment) validatePart(p SegmentPart, at int64) (next int64, err error) {
	end, known := s.End(p.Log)
	switch {
	case !known || end.Next != p.To:
		return 0, fmt.Errorf("it ends at %d, the archive at %d", p.To, end.Next)
	case p.From < 0 || p.From > p.To || p.Bytes < 0 || p.Blocks == nil:
		return 0, errors.New("malformed")
	case p.Gap != nil && (p.Gap.From < 0 || p.Gap.From >= p.From || p.Gap.Reason == ""):
		return 0, errors.New("its gap is malformed")
	case p.Mark != nil && (p.Mark.Next != p.To || p.Mark.Chain != end.Chain):
		return 0, errors.New("its mark is that of another place")
	}
	records, from := int64(0), p.From
	for _, b := range p.Blocks {
		if b.First < from || b.Last < b.First || b.Last >= p.To || b.Records < 1 || int64(b.Records) > b.Last-b.First+1 || b.At != at || b.Length < 1 || b.MinTime > b.MaxTime {
			return 0, fmt.Errorf("block of offsets %d to %d is malformed", b.First, b.Last)
		}
		records, from, at = records+int64(b.Records), b.Last+1, at+b.Length
	}
	if records != p.Records {
		return 0, fmt.Errorf("%d records, its blocks have %d", p.Records, records)
	}
	return at, nil
}

func (s *Segment) validatePayload(size int64) error {
	_, plain := parseSum(s.SHA256)
	_, stored := parseSum(s.StoredSHA256)
	if !plain || !stored || s.Size != size || s.Size > MaxSegmentBytes || s.StoredSize < 0 {
		return fmt.Errorf("payload of %d bytes, blocks of %d: malformed", s.Size, size)
	}
	if len(s.Keys) == 0 && (s.Size != s.StoredSize || s.SHA256 != s.StoredSHA256) {
		return errors.New("the payload is not sealed, and yet stored with other bytes: malformed")
	}
	for i, k := range s.Keys {
		if !hasForm(k, keyForm) || slices.Contains(s.Keys[:i], k) {
			return fmt.Errorf("key id %q: malformed", strings.ToValidUTF8(k, "?"))
		}
	}
	return nil
}
