package events

import (
	"encoding/json"
)

// Upkeep is events that are about slices of their own log which they name, and not about their
// key: each slice whose last event still is at the offset given. As events they are at one place
// in the log, so that every region does the same at the same place, whatever it has of other logs.
//
// A collection, of TypeCollect under CollectKey, takes tombstones out of the state: an event behind it folds
// as if their keys had never been.
//
// A burial, of TypeBury under BuryKey, makes tombstones of slices that hold something: what they held
// was hidden by other logs, and what they hide stays hidden. The burial is their last event then.
const (
	TypeCollect = "evenkeel.collect.v1"
	CollectKey  = "evenkeel.collect"

	TypeBury = "evenkeel.bury.v1"
	BuryKey  = "evenkeel.bury"

	// MaxCollected bounds what one event of upkeep names.
	MaxCollected = 1000

	// MaxUpkeepBytes bounds the slices that one event of upkeep is written for, if they are several: folding it
	// reads all of them. They may have grown since, so that no reader can hold an event to it.
	MaxUpkeepBytes = 1 << 20
)

// Tombstone names the slice that a log has of a key, by the offset of its last event: of a collection
// the one that deleted the key, of a burial the one behind which there is to be a tombstone.
type Tombstone struct {
	Key    string
	Offset int64
}

// upkeep is the payload in JSON, of which each type of event has one member. Keys are bytes there: they may be no text.
type upkeep struct {
	Tombstones []named `json:"tombstones,omitempty"` // of a collection
	Slices     []named `json:"slices,omitempty"`     // of a burial
}

type named struct {
	Key    []byte `json:"key"`
	Offset int64  `json:"offset"`
}

// NewCollection makes the event, without identity and clock.
func NewCollection(tombstones []Tombstone) (Event, error) {
	return newUpkeep(TypeCollect, CollectKey, upkeep{Tombstones: naming(tombstones)})
}

// NewBurial makes the event, without identity and clock.
func NewBurial(slices []Tombstone) (Event, error) {
	return newUpkeep(TypeBury, BuryKey, upkeep{Slices: naming(slices)})
}

func naming(slices []Tombstone) (all []named) {
	for _, t := range slices {
		all = append(all, named{[]byte(t.Key), t.Offset})
	}
	return all
}

func newUpkeep(typ, key string, payload upkeep) (Event, error) {
	value, err := json.Marshal(payload)
	if err != nil {
		return Event{}, err
	}
	e := Event{Key: key, Op: OpPut, Type: typ, ContentType: "application/json", Value: value}
	_, err = e.Upkeep()
	return e, err
}

// IsUpkeep reports whether the event is about slices that it names.
func (e Event) IsUpkeep() bool { return e.IsCollection() || e.IsBurial() }

// IsCollection reports whether the event collects tombstones.
func (e Event) IsCollection() bool { return e.Type == TypeCollect }

// IsBurial reports whether the event makes tombstones of what is hidden.
func (e Event) IsBurial() bool { return e.Type == TypeBury }

// Upkeep reads which slices an event of upkeep names. A *DecodeError says why it is none;
// that depends on the event alone.
func (e Event) Upkeep() ([]Tombstone, error) {
	kind, what, key := "a collection", "tombstone", CollectKey
	if e.IsBurial() {
		kind, what, key = "a burial", "slice", BuryKey
	}
	if e.Key != key || e.Op != OpPut {
		return nil, decodeErrorf("key", "%s is written under %q", kind, key)
	}
	var u upkeep
	if err := json.Unmarshal(e.Value, &u); err != nil {
		return nil, decodeErrorf("value", "no list of %ss in JSON", what)
	}
	all := u.Tombstones
	if e.IsBurial() {
		all = u.Slices
	}
	return checkNamed(all, what)
}

func checkNamed(all []named, what string) ([]Tombstone, error) {
	if n := len(all); n == 0 || n > MaxCollected {
		return nil, decodeErrorf("value", "%d %ss: want 1 to %d", n, what, MaxCollected)
	}
	tombstones := make([]Tombstone, len(all))
	for i, t := range all {
		if n := len(t.Key); n == 0 || n > MaxKeyBytes {
			return nil, decodeErrorf("value", "%s %d has a key of %d bytes: want 1 to %d", what, i, n, MaxKeyBytes)
		}
		if t.Offset < 0 {
			return nil, decodeErrorf("value", "%s %d is of a negative offset", what, i)
		}
		tombstones[i] = Tombstone{Key: string(t.Key), Offset: t.Offset}
	}
	return tombstones, nil
}
