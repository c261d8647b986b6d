package projections

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
)

// Reduce takes everything out of a database that is not of some streams. What is left is
// as if there had never been anything else. Nobody else may have it open.
func Reduce(cfg Config, streams []events.Stream) (err error) {
	cfg.Models = nil // they are made of what is left, when it is opened
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	batch := s.db.NewBatch()
	defer batch.Close()
	gone := map[events.Stream]bool{}
	for l := range s.logs {
		if slices.Contains(streams, l.Stream) {
			continue
		}
		gone[l.Stream] = true
		if err := batch.Delete(logKey(l), nil); err != nil {
			return err
		}
		for _, prefix := range []byte{prefixBuckets, prefixMark, prefixParked} {
			if err := deleteAll(batch, append([]byte{prefix}, l.String()...)); err != nil {
				return err
			}
		}
	}
	for stream := range gone {
		if err := deleteAll(batch, append([]byte{prefixSlice}, stream...)); err != nil {
			return err
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("state in %s: %w", cfg.Dir, err)
	}
	return nil
}

// deleteAll deletes all keys that begin with a name, which ends with 0x00.
func deleteAll(batch *pebble.Batch, name []byte) error {
	return batch.DeleteRange(append(slices.Clone(name), 0), append(slices.Clone(name), 1), nil)
}
