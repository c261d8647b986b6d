package inflate

import "testing"

// Where batches compress well less is asked for, at once as little as fits; once for all that is refused
// of an answer; and slowly more again as long as all fits.
func TestAsking(t *testing.T) {
	const most = 16 << 20
	a := asking{bytes: most}
	a.compresses(10_000, 1_000_000)
	if !a.less(128<<20) || a.bytes != 671_088 { // 64 MiB, a hundredth of it
		t.Errorf("%d bytes are asked for", a.bytes)
	}
	if a.less(128 << 20) {
		t.Error("each batch that is refused makes it less")
	}
	if a.answered(600_000, most) || a.bytes != 671_088 {
		t.Error("more is asked for though something was refused")
	}
	if a.answered(100, most) {
		t.Error("more is asked for though there was not more")
	}
	answers := 0
	for ; a.bytes < most; answers++ {
		if !a.answered(int(a.bytes), most) {
			t.Fatal("not more is asked for")
		}
	}
	if answers < 10 || answers > 20 || a.bytes != most {
		t.Errorf("%d bytes are asked for after %d answers", a.bytes, answers)
	}
	for range 100 {
		a.less(1)
		a.answered(0, most)
	}
	if a.bytes != leastAsked {
		t.Errorf("%d bytes are asked for at least", a.bytes)
	}
	few := asking{bytes: 1_000} // as the client is configured
	if few.less(1) || few.bytes != 1_000 {
		t.Errorf("%d bytes are asked for of 1,000", few.bytes)
	}
}
