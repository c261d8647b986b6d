package batch

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// Where the fields of messages of the formats v0 and v1 are. After the
// timestamp, which v0 lacks, follow key and value, each after its length.
const (
	atOldCRC        = 12
	afterOldCRC     = 16
	atOldAttributes = 17
	atOldTimestamp  = 18

	messageV0Bytes = 26 // without key and value
	messageV1Bytes = 34

	oldTimestampBytes = 8
	oldLengthBytes    = 4

	noTimestamp = -1
)

// message is a message of an old format, which may hold others, compressed.
type message struct {
	offset     int64
	magic      int8
	attributes byte
	timestamp  int64 // in ms; -1 for v0, which has none
	key, value []byte
}

func (m *message) codec() Codec { return Codec(m.attributes & codecBits) }

// Old converts the first message of data, of the format v0 or v1, with all the
// messages inside if it is compressed; rest is what follows. The batch is
// compressed as the message was. Errors are those of Read, and *CorruptError;
// rest is all of the data then.
func (r *Recoder) Old(data []byte) (d Dense, rest []byte, err error) {
	if len(data) <= atMagic {
		return Dense{}, data, ErrPartial
	}
	size, err := wholeSize(data)
	if err != nil {
		return Dense{}, data, err
	}
	outer, err := readMessage(data[:size])
	if err != nil {
		return Dense{}, data, err
	}
	if d, err = r.convert(&outer); err != nil {
		return Dense{}, data, err
	}
	return d, data[size:], nil
}

func (r *Recoder) convert(outer *message) (Dense, error) {
	if outer.offset < 0 {
		return Dense{}, corrupt(outer.offset, "its offset is negative")
	}
	codec := outer.codec()
	messages := []message{*outer}
	if codec != None {
		if codec > LZ4 {
			return Dense{}, corrupt(outer.offset, "its compression codec is %d, in format v%d", codec, outer.magic)
		}
		defer r.trim()
		plain, err := r.inflate(outer.offset, outer.value, codec)
		if err != nil {
			return Dense{}, err
		}
		if messages, err = outer.inner(plain); err != nil {
			return Dense{}, err
		}
	}
	f := newFrame(nil)
	var body []byte
	for i := range messages {
		m := &messages[i]
		body = appendBytes(appendBytes(body[:0], m.key), m.value)
		body = append(body, 0) // no headers
		f.add(&record{offset: m.offset, timestamp: m.timestamp, body: body})
	}
	return r.finish(&f, codec)
}

func appendBytes(b, field []byte) []byte {
	if field == nil {
		return appendUvarint(b, zigzag(-1))
	}
	return append(appendUvarint(b, zigzag(int64(len(field)))), field...)
}

// inner reads the messages inside a compressed one, and gives them their true
// offsets and timestamps.
func (m *message) inner(plain []byte) ([]message, error) {
	var messages []message
	for len(plain) > 0 {
		if len(plain) <= atMagic {
			return nil, corrupt(m.offset, "message %d inside is cut off", len(messages)+1)
		}
		size, err := wholeSize(plain)
		if err != nil {
			return nil, corrupt(m.offset, "message %d inside: %v", len(messages)+1, err)
		}
		in, err := readMessage(plain[:size])
		if err != nil {
			return nil, corrupt(m.offset, "message %d inside: %v", len(messages)+1, err)
		}
		if in.magic != m.magic || in.codec() != None {
			return nil, corrupt(m.offset, "message %d inside has format v%d and codec %v", len(messages)+1, in.magic, in.codec())
		}
		if m.attributes&logAppendTimeBit != 0 && m.magic == 1 {
			in.timestamp = m.timestamp
		}
		messages = append(messages, in)
		plain = plain[size:]
	}
	if len(messages) == 0 {
		return nil, corrupt(m.offset, "it is compressed and has no messages inside")
	}
	return messages, m.rebase(messages)
}

// rebase turns relative offsets into true ones. In v1 the outer offset is that
// of the last message inside, unless it is 0, which some producers wrote
// whatever was inside. In v0 all offsets are true.
func (m *message) rebase(messages []message) error {
	base := int64(0)
	if m.magic == 1 && m.offset != 0 {
		base = m.offset - messages[len(messages)-1].offset
	}
	last := int64(-1)
	for i := range messages {
		in := &messages[i]
		if base < 0 || in.offset <= last-base || in.offset < 0 || in.offset >= math.MaxInt64-base {
			return corrupt(m.offset, "message %d of %d inside has offset %d", i+1, len(messages), in.offset)
		}
		in.offset += base
		last = in.offset
	}
	return nil
}

// readMessage reads one whole message.
func readMessage(data []byte) (message, error) {
	be := binary.BigEndian
	m := message{offset: int64(be.Uint64(data)), magic: int8(data[atMagic]), timestamp: noTimestamp}
	if m.magic == magicV2 {
		return m, corrupt(m.offset, "it is no message of an old format")
	}
	if want, sum := be.Uint32(data[atOldCRC:]), crc32.ChecksumIEEE(data[afterOldCRC:]); want != sum {
		return m, corrupt(m.offset, "its CRC is %08x, that of its bytes is %08x", want, sum)
	}
	m.attributes = data[atOldAttributes]
	at := atOldTimestamp
	if m.magic == 1 {
		m.timestamp = int64(be.Uint64(data[at:]))
		at += oldTimestampBytes
	}
	var ok bool
	for _, field := range []*[]byte{&m.key, &m.value} {
		if *field, at, ok = takeOld(data, at); !ok {
			return m, corrupt(m.offset, "its key and value do not fit")
		}
	}
	if at != len(data) {
		return m, corrupt(m.offset, "%d bytes follow its value", len(data)-at)
	}
	return m, nil
}

// takeOld takes a length of four bytes and as many bytes after it. The length -1
// stands for null.
func takeOld(data []byte, at int) (field []byte, next int, ok bool) {
	if len(data)-at < oldLengthBytes {
		return nil, 0, false
	}
	n := int(int32(binary.BigEndian.Uint32(data[at:])))
	at += oldLengthBytes
	if n < -1 || n > len(data)-at {
		return nil, 0, false
	}
	if n == -1 {
		return nil, at, true
	}
	return data[at : at+n : at+n], at + n, true
}
