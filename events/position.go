package events

import (
	"cmp"
	"strconv"
	"strings"
)

// Log identifies one partition of one stream's log: (origin, stream,
// partition), printed "us-east-1/session/3". One writer, total order.
type Log struct {
	Origin    Origin
	Stream    Stream
	Partition int32
}

// ParseLog reads what String prints.
func ParseLog(s string) (Log, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Log{}, Errorf(KindInvalid, "log %q: want ORIGIN/STREAM/PARTITION", clip(s))
	}
	origin, err := ParseOrigin(parts[0])
	if err != nil {
		return Log{}, err
	}
	stream, err := ParseStream(parts[1])
	if err != nil {
		return Log{}, err
	}
	p, err := parseNumber(parts[2], MaxPartition-1)
	if err != nil {
		return Log{}, Errorf(KindInvalid, "log %q: partition: %w", clip(s), err)
	}
	return Log{Origin: origin, Stream: stream, Partition: int32(p)}, nil
}

func (l Log) String() string {
	return l.Origin.String() + "/" + string(l.Stream) + "/" + strconv.Itoa(int(l.Partition))
}

// Validate reports whether l names a log.
func (l Log) Validate() error {
	if err := l.Origin.Validate(); err != nil {
		return err
	}
	if err := l.Stream.Validate(); err != nil {
		return err
	}
	if l.Partition < 0 || l.Partition >= MaxPartition {
		return Errorf(KindInvalid, "log %s: partition out of range [0, %d)", l, MaxPartition)
	}
	return nil
}

// Compare orders logs by origin, stream, partition.
func (l Log) Compare(m Log) int {
	return cmp.Or(l.Origin.Compare(m.Origin), strings.Compare(string(l.Stream), string(m.Stream)), cmp.Compare(l.Partition, m.Partition))
}

// At is the position of offset in this log.
func (l Log) At(offset int64) Position { return Position{Log: l, Offset: offset} }

// Position is one place in one log: (origin, stream, partition, offset in the
// origin's log), printed "us-east-1/session/3@1042". It means the same in
// every region, whatever the offset in a mirror.
type Position struct {
	Log
	Offset int64
}

// ParsePosition reads what String prints.
func ParsePosition(s string) (Position, error) {
	logText, offsetText, ok := strings.Cut(s, "@")
	if !ok {
		return Position{}, Errorf(KindInvalid, "position %q: want ORIGIN/STREAM/PARTITION@OFFSET", clip(s))
	}
	log, err := ParseLog(logText)
	if err != nil {
		return Position{}, err
	}
	offset, err := parseNumber(offsetText, 1<<63-1)
	if err != nil {
		return Position{}, Errorf(KindInvalid, "position %q: offset: %w", clip(s), err)
	}
	return Position{Log: log, Offset: offset}, nil
}

func (p Position) String() string { return p.Log.String() + "@" + strconv.FormatInt(p.Offset, 10) }

// Validate reports whether p names a position.
func (p Position) Validate() error {
	if p.Offset < 0 {
		return Errorf(KindInvalid, "position %s: negative offset", p)
	}
	return p.Log.Validate()
}

// Compare orders positions by log, then offset.
func (p Position) Compare(q Position) int {
	return cmp.Or(p.Log.Compare(q.Log), cmp.Compare(p.Offset, q.Offset))
}

// parseNumber reads a canonical decimal (no sign, no leading zero) up to most.
func parseNumber(s string, most int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > most || strconv.FormatInt(n, 10) != s {
		return 0, Errorf(KindInvalid, "%q is no whole number from 0 to %d", clip(s), most)
	}
	return n, nil
}
