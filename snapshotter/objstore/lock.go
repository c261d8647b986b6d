package objstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Hold is what keeps an object from being deleted (Object Lock). The zero Hold: nothing
// does.
type Hold struct {
	// Until is when its retention ends; zero: it has none.
	Until time.Time `json:"until,omitzero"`
	// Mode is that of the retention, in the store's words: GOVERNANCE or COMPLIANCE.
	Mode string `json:"mode,omitempty"`
	// Legal is a legal hold, which lasts until somebody lifts it.
	Legal bool `json:"legal,omitempty"`
}

// lockMargin is how much longer than it says a retention is taken to last: retentions end by
// the store's clock, and whoever asks has another.
const lockMargin = time.Hour

// Holds says whether the object is held at a time. For an hour after the end of its
// retention it is still taken to be: the store may have another clock.
func (h Hold) Holds(now time.Time) bool {
	return h.Legal || !h.Until.IsZero() && h.Until.Add(lockMargin).After(now)
}

func (h Hold) String() string {
	switch {
	case h.Legal && h.Until.IsZero():
		return "by a legal hold"
	case h.Legal:
		return fmt.Sprintf("until %s (%s) and by a legal hold", h.Until.UTC().Format(time.RFC3339), h.Mode)
	case h.Until.IsZero():
		return "by nothing"
	}
	return fmt.Sprintf("until %s (%s)", h.Until.UTC().Format(time.RFC3339), h.Mode)
}

// LockNew has every object that is created from now on retained for some time, as the
// default retention of a bucket does; 0: no more.
func (m *Memory) LockNew(retention time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retention = retention
}

// Lock holds an object, or lets it go with the zero Hold: what people do who may.
func (m *Memory) Lock(name string, hold Hold) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	obj, ok := m.objects[name]
	if !ok {
		return m.fail("lock", name, ErrNotFound, nil)
	}
	obj.hold = hold
	m.objects[name] = obj
	return nil
}

// Holds implements [Holder].
func (m *Memory) Holds(ctx context.Context, names []string) ([]Hold, error) {
	holds := make([]Hold, len(names))
	for i, name := range names {
		obj, err := m.find(ctx, OpHolds, name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		holds[i] = obj.hold
	}
	return holds, nil
}
