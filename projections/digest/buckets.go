package digest

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/evenkeel/evenkeel/events"
)

// BucketCount is the number of buckets that the keys of a log are spread over,
// so that two regions that differ need not compare all keys.
const BucketCount = 1024

// Bucket sums up the live slices of some keys of a log.
type Bucket struct {
	Sum   Sum
	Keys  int64
	Bytes int64 // of keys and slices
}

// BucketOf is the bucket of a key, the same in every region.
func BucketOf(key string) int { return int(xxh3.HashString(key) % BucketCount) }

// Changes are changes of the buckets of one log. The zero Changes are none.
type Changes struct {
	by    [BucketCount]Bucket
	isSet [BucketCount / 64]uint64
}

// Add takes a slice with the given hash and bytes into a bucket.
func (c *Changes) Add(bucket int, hash Sum, bytes int64) {
	c.Touch(bucket)
	b := &c.by[bucket]
	b.Sum, b.Keys, b.Bytes = b.Sum.Add(hash), b.Keys+1, b.Bytes+bytes
}

// Remove is the inverse of Add.
func (c *Changes) Remove(bucket int, hash Sum, bytes int64) {
	c.Touch(bucket)
	b := &c.by[bucket]
	b.Sum, b.Keys, b.Bytes = b.Sum.Sub(hash), b.Keys-1, b.Bytes-bytes
}

// Merge adds other changes to these.
func (c *Changes) Merge(other *Changes) {
	for i := range other.each() {
		c.Touch(i)
		b, o := &c.by[i], &other.by[i]
		b.Sum, b.Keys, b.Bytes = b.Sum.Add(o.Sum), b.Keys+o.Keys, b.Bytes+o.Bytes
	}
}

// Touch counts a bucket among those that were changed, although it is as it was.
func (c *Changes) Touch(bucket int) { c.isSet[bucket/64] |= 1 << (bucket % 64) }

// Reset makes c the zero Changes again.
func (c *Changes) Reset() {
	for i := range c.each() {
		c.by[i] = Bucket{}
	}
	c.isSet = [BucketCount / 64]uint64{}
}

// Len is the number of buckets that were changed, if only back and forth.
func (c *Changes) Len() (n int) {
	for _, word := range c.isSet {
		n += bits.OnesCount64(word)
	}
	return n
}

// each yields the buckets that were changed, in order.
func (c *Changes) each() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i, word := range c.isSet {
			for ; word != 0; word &= word - 1 {
				if !yield(i*64 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}

// Buckets are all buckets of a log.
type Buckets [BucketCount]Bucket

// Apply makes the changes.
func (b *Buckets) Apply(c *Changes) {
	for i := range c.each() {
		b[i] = b.with(c, i)
	}
}

// Differing lists the buckets that are not the same in both.
func (b *Buckets) Differing(c *Buckets) (differing []int) {
	for i := range b {
		if b[i] != c[i] {
			differing = append(differing, i)
		}
	}
	return differing
}

func (b *Buckets) with(c *Changes, i int) Bucket {
	return Bucket{Sum: b[i].Sum.Add(c.by[i].Sum), Keys: b[i].Keys + c.by[i].Keys, Bytes: b[i].Bytes + c.by[i].Bytes}
}

// AppendChanged appends the changed buckets as they will be after Apply: for each
// its number (2 bytes, big-endian), sum (16 bytes), keys and bytes (varints).
func (b *Buckets) AppendChanged(dst []byte, c *Changes) []byte {
	for i := range c.each() {
		dst = appendBucket(dst, i, b.with(c, i))
	}
	return dst
}

// AppendAll appends all buckets that hold something as they will be after Apply,
// in the form of AppendChanged.
func (b *Buckets) AppendAll(dst []byte, c *Changes) []byte {
	for i := range b {
		if with := b.with(c, i); with != (Bucket{}) {
			dst = appendBucket(dst, i, with)
		}
	}
	return dst
}

func appendBucket(dst []byte, i int, b Bucket) []byte {
	sum := b.Sum.Digest()
	dst = binary.BigEndian.AppendUint16(dst, uint16(i))
	dst = append(dst, sum[:]...)
	dst = binary.AppendVarint(dst, b.Keys)
	return binary.AppendVarint(dst, b.Bytes)
}

var errBuckets = errors.New("digest buckets are cut short or malformed")

// Read puts in the buckets that AppendChanged or AppendAll wrote; the others
// stay as they are.
func (b *Buckets) Read(data []byte) error {
	for len(data) > 0 {
		const fixed = 2 + len(events.Digest{})
		if len(data) < fixed {
			return errBuckets
		}
		i := binary.BigEndian.Uint16(data)
		sum := FromDigest(events.Digest(data[2:fixed]))
		keys, n := binary.Varint(data[fixed:])
		if n <= 0 || i >= BucketCount {
			return errBuckets
		}
		bytes, m := binary.Varint(data[fixed+n:])
		if m <= 0 {
			return errBuckets
		}
		b[i] = Bucket{Sum: sum, Keys: keys, Bytes: bytes}
		data = data[fixed+n+m:]
	}
	return nil
}
