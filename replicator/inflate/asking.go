package inflate

// asking is how much is asked for in one fetch. What does not fit is fetched for nothing, so
// less is asked for then, and slowly more again as long as all fits.
type asking struct {
	bytes   int32
	refused bool // something of what came since the last answer

	// How well the last batches compressed.
	packed, plain int64
}

// compresses notes a batch.
func (a *asking) compresses(packed, plain int64) {
	if a.packed += packed; a.packed > ratioOf {
		a.packed, a.plain = a.packed/2, a.plain/2
	}
	a.plain += plain
}

// less is told that something did not fit; it says whether less is to be asked for: at most what
// fills half of the room, if it compresses as well as the last.
func (a *asking) less(room int64) bool {
	if a.refused {
		return false // a whole answer is refused batch by batch
	}
	a.refused = true
	asked, fits := a.bytes, int64(a.bytes/2)
	if a.plain > 0 {
		fits = min(fits, int64(float64(room)/2*float64(a.packed)/float64(a.plain)))
	}
	a.bytes = min(asked, max(int32(fits), leastAsked))
	return a.bytes != asked
}

// answered is told of an answer; it says whether more is to be asked for.
func (a *asking) answered(bytes int, most int32) bool {
	refused := a.refused
	if a.refused = false; refused || a.bytes >= most || bytes < int(a.bytes/2) {
		return false
	}
	a.bytes = min(most, a.bytes+max(a.bytes/4, 1))
	return true
}
