package api

import (
	"context"

	"github.com/evenkeel/evenkeel/events"
)

// RestoreKeysParams ask for keys to be brought back to what they were, by events that
// are written now and reach all regions as any others do: of one key, or of those that
// begin with Prefix and come after the key After.
type RestoreKeysParams struct {
	Stream events.Stream `json:"stream"`
	Key    Bytes         `json:"key,omitempty"`
	Prefix Bytes         `json:"prefix,omitempty"`
	After  Bytes         `json:"after,omitempty"`
	Limit  int           `json:"limit,omitempty"` // of keys, 1 to MaxRestoredKeys; 0: that
	Write  bool          `json:"write,omitempty"` // false: only say what would be
	PastTarget
}

// MaxRestoredKeys is how many keys are compared in one call.
const MaxRestoredKeys = 1_000

// RestoredKeys says what keys are, what they were, and what was done about it.
type RestoredKeys struct {
	Stream events.Stream `json:"stream"`
	PastPoint
	Vector events.Vector `json:"vector"` // of what they were
	Keys   []RestoredKey `json:"keys"`   // those that differ, and one that was asked for
	Same   int           `json:"same"`   // how many others are what they were
	More   bool          `json:"more"`   // ask on with After = Last
	Last   Bytes         `json:"last,omitempty"`
}

// RestoredKey is one of them.
type RestoredKey struct {
	Key     Bytes             `json:"key"`
	Now     *KeyValue         `json:"now"`               // before anything was done; null: it does not exist, or Error says that it was not compared
	Then    *KeyValue         `json:"then"`              // null: it did not exist
	Events  []string          `json:"events,omitempty"`  // the types of those that bring it back; none: it is what it was
	Written []events.Position `json:"written,omitempty"` // where they were written
	Error   string            `json:"error,omitzero"`    // why it is not what it was
	Refused bool              `json:"refused,omitempty"` // by the stream's merge rule
}

// KeyValue is what a key has. Values of secret streams are left out.
type KeyValue struct {
	Values   []Bytes         `json:"values,omitempty"` // several if they stand side by side
	Count    int             `json:"count"`            // of values
	Bytes    int             `json:"bytes"`            // of all of them
	Clock    events.HLC      `json:"clock"`
	Position events.Position `json:"position"` // of the newest event
}

// RestoreKeys brings keys back to what they were, or says what would be.
func (c *Client) RestoreKeys(ctx context.Context, p RestoreKeysParams) (*RestoredKeys, error) {
	return call[RestoredKeys](ctx, c, "restore.keys", p)
}
