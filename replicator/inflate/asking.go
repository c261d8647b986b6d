package inflate

// asking is how much is asked for in one fetch. What does not fit is fetched for nothing, so that is what
// fits, if it compresses as well as the last batches.
type asking struct{ packed, plain int64 } // bytes of those

func (a *asking) compresses(packed, plain, room int64) {
	if a.packed, a.plain = a.packed+packed, a.plain+plain; a.plain > 2*room {
		a.packed, a.plain = a.packed/2, a.plain/2
	}
}

// bytes are those to ask for where so many answers share the room, with what is being polled.
func (a *asking) bytes(room int64, answers int, most int32) int32 {
	if a.plain == 0 {
		return most
	}
	fits := float64(room) / float64(answers+1) * float64(a.packed) / float64(a.plain)
	return min(most, max(leastAsked, int32(min(fits, float64(most)))))
}
