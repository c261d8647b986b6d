package batch

import "hash/crc32"

// A CRC is linear: those of two texts of one length differ by that of their
// difference. So when the head of a batch changes, its CRC is known from the one before
// without another look at the records, and whatever happens to these in this
// process's memory is seen by the broker, which compares. (The algorithm is zlib's
// crc32_combine.)

// derivedLeast is from how many bytes on that is quicker than to sum them up.
const derivedLeast = 16 << 10

// changed is the CRC of a text of which the first bytes were before and are now head, and
// rest bytes follow them that have not changed.
func changed(crc uint32, before, head []byte, rest int) uint32 {
	var diff [64]byte
	d := diff[:len(head)]
	for i := range d {
		d[i] = before[i] ^ head[i]
	}
	const fromZero = 0xffffffff // Update inverts what it is given and what it gives
	return crc ^ behindZeros(^crc32.Update(fromZero, castagnoli, d), rest)
}

// behindZeros is the remainder when n zero bytes follow what has given crc.
func behindZeros(crc uint32, n int) uint32 {
	for k := 3; n > 0; k, n = k+1, n>>1 { // 2³ bits a byte
		if n&1 != 0 {
			crc = times(powers[k], crc)
		}
	}
	return crc
}

// powers holds x to the power of 2ᵏ, modulo the polynomial: enough for any batch, whose length has 31 bits.
var powers = func() (p [35]uint32) {
	p[0] = 1 << 30 // x, as bits are reflected
	for k := range p[1:] {
		p[k+1] = times(p[k], p[k])
	}
	return p
}()

// times multiplies two polynomials modulo that of the CRC.
func times(a, b uint32) (product uint32) {
	for m := uint32(1) << 31; m != 0; m >>= 1 {
		if a&m != 0 {
			product ^= b
		}
		carry := b & 1
		if b >>= 1; carry != 0 {
			b ^= crc32.Castagnoli
		}
	}
	return product
}
