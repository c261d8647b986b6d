package inflate

import "encoding/binary"

// What the client makes of a record and of a header, besides their bytes, about.
const (
	recordBytes = 200
	headerBytes = 40
)

// What the client makes of the records of a batch may come to so many times what their bytes
// may: that is only reached where records are smaller than half of recordBytes.
const overheadFactor = 2

// worstOverhead is more than a byte of a batch can make the client take besides: a record has
// seven bytes, a header two.
const worstOverhead = 30

// hasTooMany says whether there are so many records and headers that what the client makes of
// them takes more than so many bytes. Few batches are large enough to be looked through for it.
func hasTooMany(plain []byte, most int64) bool {
	return int64(len(plain))*worstOverhead > most && memoryOf(plain)-int64(len(plain)) > most
}

// memoryOf is what the records of a batch take in memory, of which these are the bytes. A
// record may have seven bytes, a header two, so that what the client makes of them is
// more than they are. What is no batch of the present format counts as its bytes.
func memoryOf(plain []byte) int64 {
	all := int64(len(plain))
	for {
		length, n := binary.Varint(plain)
		if n <= 0 || length < 0 || length > int64(len(plain)-n) {
			return all
		}
		all += recordBytes + headersOf(plain[n:n+int(length)])*headerBytes
		plain = plain[n+int(length):]
	}
}

// headersOf is how many headers a record has, and not more than it has room for.
func headersOf(record []byte) int64 {
	if len(record) == 0 {
		return 0
	}
	rest := record[1:] // attributes
	for range 2 {      // time and offset
		if _, rest = varint(rest); rest == nil {
			return 0
		}
	}
	for range 2 { // key and value
		length, behind := varint(rest)
		if behind == nil || length > int64(len(behind)) {
			return 0
		}
		rest = behind[max(length, 0):]
	}
	number, rest := varint(rest)
	return max(0, min(number, int64(len(rest))))
}

// varint reads a number; rest is nil if there is none.
func varint(b []byte) (number int64, rest []byte) {
	number, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil
	}
	return number, b[n:]
}
