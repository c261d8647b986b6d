package load

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// needs are what the items of one region ask of its node.
type needs struct {
	value   int        // bytes of the largest value
	request int        // bytes that the largest item takes in a request, at most
	clock   events.HLC // the latest; 0: none has one
}

func (n *needs) add(item Item) {
	n.value, n.request = max(n.value, len(item.Event.Value)), max(n.request, jsonSize(item))
	if c := item.Event.Clock; c != nil {
		n.clock = max(n.clock, *c)
	}
}

// limits are what a node takes.
type limits struct {
	value   int64         // bytes
	skew    time.Duration // of clocks
	batch   int           // bytes of a batch's events in JSON
	request int           // of one event
}

// limitsOf are those that a node tells of. One of an earlier version tells of none, and
// refuses later. rest is what a request takes besides its events.
func limitsOf(told *api.LoadLimits, rest int) limits {
	if told == nil {
		return limits{value: events.MaxValueBytes, skew: events.MaxClockSkew, batch: batchBytes, request: math.MaxInt}
	}
	most := int(told.MaxBodyBytes) - rest
	return limits{
		value: told.MaxValueBytes, skew: time.Duration(told.MaxClockSkewSeconds * float64(time.Second)), batch: min(batchBytes, most), request: most,
	}
}

// suit reports whether a node takes all items of its region.
func (l limits) suit(n *needs) bool {
	return int64(n.value) <= l.value && n.request <= l.request && !events.TooFarAhead(n.clock, l.skew)
}

// refuse says why a node would not take an item; empty: it would.
func (l limits) refuse(item Item) string {
	e := item.Event
	switch {
	case int64(len(e.Value)) > l.value:
		return fmt.Sprintf("value of %d bytes: the node takes at most %d (limits.max_value_bytes)", len(e.Value), l.value)
	case e.Clock != nil && events.TooFarAhead(*e.Clock, l.skew):
		return fmt.Sprintf("clock %s is more than %s ahead (limits.max_clock_skew of the node)", e.Clock, l.skew)
	case jsonSize(item) > l.request && exactSize(item) > l.request:
		return fmt.Sprintf("the event has %d bytes in a request: the node takes at most %d (api.max_body_bytes, less what else is in it)", exactSize(item), l.request)
	}
	return ""
}

// exactSize is what an item takes in a request.
func exactSize(item Item) int {
	item.Event.ID = strconv.Itoa(item.Place)
	var n counter
	e := json.NewEncoder(&n)
	e.SetEscapeHTML(false) // as the client has it
	if e.Encode(item.Event) != nil {
		return math.MaxInt
	}
	return int(n)
}

// counter counts what is written.
type counter int

func (n *counter) Write(p []byte) (int, error) {
	*n += counter(len(p))
	return len(p), nil
}

// checkLimits tells of all items that their nodes would refuse. What nodes take is known only
// once they have answered, so the input is read again if there are any.
func (l *loader) checkLimits(senders map[events.Region]*sender, asked map[events.Region]*needs) error {
	suit, begun := true, false
	for region, s := range senders {
		suit = suit && s.limits.suit(asked[region])
		begun = begun || l.state.Regions[region].Place > 0 || len(s.landed) > 0
	}
	if suit {
		return nil
	}
	var faults faults
	for item, err := range l.input.Items() {
		if err != nil {
			return l.changed(err)
		}
		s := senders[l.regionOf(item)]
		if s == nil {
			return errChanged(l.input.Name)
		}
		if item.Place <= l.state.Regions[s.region].Place || s.landed[strconv.Itoa(item.Place)] {
			continue // it was taken
		}
		if reason := s.limits.refuse(item); reason != "" {
			faults.add(&ItemError{Input: l.input.Name, Place: item.Place, Reason: fmt.Sprintf("region %s: %s", s.region, reason)})
		}
	}
	if begun {
		return faults.error(events.KindInvalid, "nothing more was loaded; raise the limits: another input is another load, and writes once more what this one has written")
	}
	return faults.error(events.KindInvalid, nothingLoaded)
}
