package events

import (
	"strconv"
	"strings"
	"sync"
	"time"
)

// HLC is a hybrid logical clock reading: 48 bits of milliseconds since 1970
// (UTC) and 16 bits of a counter that orders events within a millisecond and
// absorbs clocks that stand still or run backwards. Readings are ordered as
// numbers. The zero HLC is before every other. Text: "1750774237000.3".
// After Kulkarni and others, "Logical Physical Clocks", 2014.
type HLC uint64

// MaxHLC is the largest reading (in the year 10889).
const MaxHLC = HLC(1<<64 - 1)

const (
	hlcCounterBits = 16
	maxHLCMillis   = 1<<48 - 1
)

// HLCAt is the first reading of the millisecond of t; times before 1970 give
// the zero HLC and times past the range give the last millisecond's.
func HLCAt(t time.Time) HLC { return HLCFromMillis(t.UnixMilli()) }

// HLCFromMillis is HLCAt for milliseconds since 1970.
func HLCFromMillis(ms int64) HLC {
	return HLC(min(max(ms, 0), maxHLCMillis)) << hlcCounterBits
}

// ParseHLC reads what String prints.
func ParseHLC(s string) (HLC, error) {
	msText, counterText, _ := strings.Cut(s, ".")
	ms, err1 := parseNumber(msText, maxHLCMillis)
	counter, err2 := parseNumber(counterText, 1<<hlcCounterBits-1)
	if err1 != nil || err2 != nil {
		return 0, Errorf(KindInvalid, "clock %q: want MILLISECONDS.COUNTER, e.g. 1750774237000.0", clip(s))
	}
	return HLC(ms)<<hlcCounterBits | HLC(counter), nil
}

func (h HLC) String() string {
	return strconv.FormatInt(h.Millis(), 10) + "." + strconv.FormatUint(uint64(h&(1<<hlcCounterBits-1)), 10)
}

// Millis is the physical part, in milliseconds since 1970.
func (h HLC) Millis() int64 { return int64(h >> hlcCounterBits) }

// Time is the physical part.
func (h HLC) Time() time.Time { return time.UnixMilli(h.Millis()).UTC() }

// Next is the smallest reading after h; the largest stays where it is.
func (h HLC) Next() HLC {
	if h == MaxHLC {
		return h
	}
	return h + 1
}

// Clock gives out strictly increasing readings that stay close to physical
// time. Its zero value is ready; it is safe for concurrent use.
type Clock struct {
	mu   sync.Mutex
	last HLC
}

// Now is a reading after every reading given out or observed so far.
func (c *Clock) Now() HLC {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(HLCAt(time.Now()), c.last.Next())
	return c.last
}

// Observe moves the clock past a reading met in an event, so that what is
// written here next comes after it. A reading more than MaxClockSkew ahead of
// physical time is ignored: one broken clock must not drag all others along.
func (c *Clock) Observe(h HLC) {
	if TooFarAhead(h) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, h)
}

// MaxClockSkew is how far ahead of physical time a writer's clock may be.
const MaxClockSkew = time.Minute

// TooFarAhead reports whether h is more than MaxClockSkew ahead of physical
// time. It reads the wall clock: for the doors where events enter, never for a
// fold or a join.
func TooFarAhead(h HLC) bool { return h > HLCAt(time.Now().Add(MaxClockSkew)) }
