package inflate

import "testing"

// As much is asked for as fits: at once less where batches compress better, and more again where they do not.
func TestAsking(t *testing.T) {
	const most, room = 16 << 20, 128 << 20
	var a asking
	check := func(packed, plain int64, answers int, want int32) {
		t.Helper()
		if a.compresses(packed, plain, room); a.bytes(room, answers, most) != want {
			t.Errorf("%d bytes are asked for, want %d", a.bytes(room, answers, most), want)
		}
	}
	if n := a.bytes(room, 3, most); n != most {
		t.Errorf("%d bytes are asked for of what is not known", n)
	}
	check(1<<20, 2<<20, 3, most)
	check(9<<20, 98<<20, 3, 32<<20/10)
	check(0, 0, 1, 64<<20/10)
	for range 20 { // zeros
		a.compresses(64<<10, 64<<20, room)
	}
	if n := a.bytes(room, 1, most); n < 64<<10 || n > 80<<10 {
		t.Errorf("%d bytes are asked for of zeros", n)
	}
	answers := 0
	for ; a.bytes(room, 1, most) < most; answers++ {
		n := int64(a.bytes(room, 1, most))
		a.compresses(n, n, room)
	}
	if answers > 30 {
		t.Errorf("as much as ever is asked for after %d answers", answers)
	}
	a = asking{}
	check(1, room, 1, leastAsked)
	if n := a.bytes(room, 1, 1_000); n != 1_000 { // as the client is configured
		t.Errorf("%d bytes are asked for of 1,000", n)
	}
}
