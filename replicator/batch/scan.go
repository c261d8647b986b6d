package batch

// record is a record within a batch, not decoded further than needed.
type record struct {
	offset, timestamp int64 // as a consumer of the source sees them
	attributes        byte
	body              []byte // key, value and headers, with their lengths
}

// scanner goes through the records of a batch.
type scanner struct {
	header Header
	data   []byte // decompressed
	at     int
	left   int32
	last   int // offset delta of the last record, -1 before the first
}

func newScanner(h Header, data []byte) (scanner, error) {
	if int(h.Count) > len(data)/recordBytesMin {
		return scanner{}, corrupt(h.BaseOffset, "it counts %d records in %d bytes", h.Count, len(data))
	}
	return scanner{header: h, data: data, left: h.Count, last: -1}, nil
}

// next reads a record. After the last one it gives false, and an error if there
// are bytes left over.
func (s *scanner) next(r *record) (bool, error) {
	if s.left <= 0 {
		if s.at != len(s.data) {
			return false, s.corrupt("%d bytes follow the last record", len(s.data)-s.at)
		}
		return false, nil
	}
	length, at := varint(s.data, s.at)
	if at < 0 || length < 1 || length > len(s.data)-at {
		return false, s.corrupt("a record's length is wrong")
	}
	end := at + length
	data := s.data[:end]
	r.attributes = data[at]
	tsDelta, at := varlong(data, at+1)
	offsetDelta, at := varint(data, at)
	if at < 0 {
		return false, s.corrupt("a record's head is cut off")
	}
	if offsetDelta <= s.last || offsetDelta > int(s.header.LastOffsetDelta) {
		return false, s.corrupt("a record with offset delta %d follows %d, the last is to be %d", offsetDelta, s.last, s.header.LastOffsetDelta)
	}
	r.offset = s.header.BaseOffset + int64(offsetDelta)
	r.timestamp = s.header.FirstTimestamp + tsDelta
	if s.header.LogAppendTime() {
		r.timestamp = s.header.MaxTimestamp
	}
	r.body = data[at:end:end]
	if !soundBody(r.body) {
		return false, s.corrupt("the record at offset %d has lengths that do not fit", r.offset)
	}
	s.at, s.last = end, offsetDelta
	s.left--
	return true, nil
}

func (s *scanner) corrupt(format string, args ...any) error {
	return corrupt(s.header.BaseOffset, "record %d of %d: "+format, append([]any{s.header.Count - s.left + 1, s.header.Count}, args...)...)
}

// soundBody tells whether key, value and headers fill the body exactly: what is
// passed on unread must still be readable.
func soundBody(body []byte) bool {
	at := skipBytes(body, skipBytes(body, 0))
	if at < 0 {
		return false
	}
	headers, at := varint(body, at)
	if headers < 0 {
		return false
	}
	for ; headers > 0 && at >= 0; headers-- {
		if keyLength, next := varint(body, at); next < 0 || keyLength < 0 {
			return false
		}
		at = skipBytes(body, skipBytes(body, at))
	}
	return at == len(body)
}

// skipBytes gives the place after a length and as many bytes; negative if they
// are not there. The length -1 stands for null.
func skipBytes(b []byte, at int) int {
	n, at := varint(b, at)
	if at < 0 || n < -1 || n > len(b)-at {
		return -1
	}
	return at + max(n, 0)
}
