package events

import (
	"cmp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
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

// IsAheadOf reports whether h is more than skew ahead of t. It reads no clock.
func (h HLC) IsAheadOf(t time.Time, skew time.Duration) bool {
	return h > HLCFromMillis(HLCAt(t).Millis()+skew.Milliseconds())
}

// Clock gives out strictly increasing readings that stay close to physical
// time. Its zero value is ready; it is safe for concurrent use.
type Clock struct {
	mu   sync.Mutex
	last HLC
	skew time.Duration // 0: MaxClockSkew
}

// Now is a reading after every reading given out or observed so far.
func (c *Clock) Now() HLC {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(HLCAt(time.Now()), c.last.Next())
	return c.last
}

// Last is the last reading that was given out or observed.
func (c *Clock) Last() HLC {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Observe moves the clock past a reading met in an event, so that what is
// written here next comes after it. A reading too far ahead of physical time is
// ignored: one broken clock must not drag all others along.
func (c *Clock) Observe(h HLC) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h > c.last && !TooFarAhead(h, cmp.Or(c.skew, MaxClockSkew)) {
		c.last = h
	}
}

// DurableClock is a Clock that never gives out a reading twice, nor one before
// an earlier one, whatever restarts and jumps of physical time come between:
// a bound is kept durably ahead of the readings, and no reading at or beyond it
// is given out before a later bound is kept. After a restart it goes on behind
// the bound. It is safe for concurrent use.
//
// Nodes of one origin have a clock each, and two of them may give out the same
// reading. That is harmless: where two events of one origin meet, their log's
// order decides, or else their positions do; clocks only order events of
// different origins.
type DurableClock struct {
	clock Clock
	keep  func(bound HLC) error

	mu    sync.Mutex
	bound HLC
}

// boundAhead is how far ahead of a reading the bound is kept: how often it is
// kept while events are written, and how far the clock may be ahead of physical
// time after a crash.
const boundAhead = 3 * time.Second

// NewDurableClock makes a clock that goes on behind a bound that was kept
// before; 0 if there was none. keep stores a bound durably. Readings more than
// skew ahead of physical time are not observed.
func NewDurableClock(bound HLC, skew time.Duration, keep func(bound HLC) error) *DurableClock {
	return &DurableClock{clock: Clock{last: bound, skew: skew}, keep: keep, bound: bound}
}

// Now is a reading after every reading given out or observed so far. An error
// is one of keep, and then there is none.
func (c *DurableClock) Now() (HLC, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.clock.Now()
	if h < c.bound {
		return h, nil
	}
	bound := HLCFromMillis(h.Millis() + boundAhead.Milliseconds())
	if err := c.keep(bound); err != nil {
		return 0, err
	}
	c.bound = bound
	return h, nil
}

// Last is Clock.Last.
func (c *DurableClock) Last() HLC { return c.clock.Last() }

// Observe is Clock.Observe.
func (c *DurableClock) Observe(h HLC) { c.clock.Observe(h) }

// Settle keeps a bound just behind the last reading, so that the clock goes on
// close to physical time after a restart. To be called last.
func (c *DurableClock) Settle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	bound := c.clock.Now()
	if bound >= c.bound {
		return nil // no reading was given out since the bound was kept, or physical time has passed it
	}
	if err := c.keep(bound); err != nil {
		return err
	}
	c.bound = bound
	return nil
}

// MaxClockSkew is how far ahead of physical time a writer's clock may be, unless
// a door is told otherwise.
const MaxClockSkew = time.Minute

// TooFarAhead reports whether h is more than skew ahead of physical time. It
// reads the wall clock: for the doors where events enter, never for a fold or a
// join.
func TooFarAhead(h HLC, skew time.Duration) bool { return h.IsAheadOf(time.Now(), skew) }

// MaxFoldSkew is how far an event's clock may be ahead of the timestamp of its
// own record. It is part of the contract between regions, like a merge rule:
// all must park the same events. Doors allow at most as much.
const MaxFoldSkew = 5 * time.Minute

// CheckClock says in a *DecodeError why an event that was met in a log is to be
// parked for its clock: it is more than MaxFoldSkew ahead of its record's
// timestamp. It is a pure function of the record and its event.
func CheckClock(e *Event, r *kgo.Record) error {
	if !e.Clock.IsAheadOf(r.Timestamp, MaxFoldSkew) {
		return nil
	}
	return decodeErrorf(headerHLC, "%s is more than %s ahead of the record's timestamp, %s", e.Clock, MaxFoldSkew, HLCAt(r.Timestamp))
}
