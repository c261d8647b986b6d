package events

import (
	"encoding/json"
)

// A collection is an event of TypeCollect under CollectKey. It takes tombstones of
// its own log out of the state: each that is still one, and whose last event is at
// the offset given. As an event it is at one place in the log, so that every region
// collects at the same place; an event behind it folds as if its key had never been.
const (
	TypeCollect = "evenkeel.collect.v1"
	CollectKey  = "evenkeel.collect"

	// MaxCollected bounds the tombstones of one collection.
	MaxCollected = 1000
)

// Tombstone names a deleted key, and the offset of the event that deleted it.
type Tombstone struct {
	Key    string
	Offset int64
}

// collection is the payload in JSON. Keys are bytes there: they may be no text.
type collection struct {
	Tombstones []collected `json:"tombstones"`
}

type collected struct {
	Key    []byte `json:"key"`
	Offset int64  `json:"offset"`
}

// NewCollection makes the event, without identity and clock.
func NewCollection(tombstones []Tombstone) (Event, error) {
	var c collection
	for _, t := range tombstones {
		c.Tombstones = append(c.Tombstones, collected{[]byte(t.Key), t.Offset})
	}
	value, err := json.Marshal(c)
	if err != nil {
		return Event{}, err
	}
	e := Event{Key: CollectKey, Op: OpPut, Type: TypeCollect, ContentType: "application/json", Value: value}
	_, err = e.Collection()
	return e, err
}

// IsCollection reports whether the event collects tombstones.
func (e Event) IsCollection() bool { return e.Type == TypeCollect }

// Collection reads what a collection takes away. A *DecodeError says why it is none;
// that depends on the event alone.
func (e Event) Collection() ([]Tombstone, error) {
	if e.Key != CollectKey || e.Op != OpPut {
		return nil, decodeErrorf("key", "a collection is written under %q", CollectKey)
	}
	var c collection
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return nil, decodeErrorf("value", "no list of tombstones in JSON")
	}
	if n := len(c.Tombstones); n == 0 || n > MaxCollected {
		return nil, decodeErrorf("value", "%d tombstones: want 1 to %d", n, MaxCollected)
	}
	tombstones := make([]Tombstone, len(c.Tombstones))
	for i, t := range c.Tombstones {
		if n := len(t.Key); n == 0 || n > MaxKeyBytes {
			return nil, decodeErrorf("value", "tombstone %d has a key of %d bytes: want 1 to %d", i, n, MaxKeyBytes)
		}
		if t.Offset < 0 {
			return nil, decodeErrorf("value", "tombstone %d is of a negative offset", i)
		}
		tombstones[i] = Tombstone{Key: string(t.Key), Offset: t.Offset}
	}
	return tombstones, nil
}
