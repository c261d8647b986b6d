package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Probe finds out whether a store keeps the contract that everything rests on:
// it creates an object under name, which must be new, tries to overwrite it,
// reads it back and deletes it. A store that ignores If-None-Match fails here
// instead of losing a backup later.
func Probe(ctx context.Context, b Bucket, name string) error {
	first, second := []byte("evenkeel probe 1"), []byte("evenkeel probe 2")
	if err := b.Create(ctx, name, first); err != nil {
		return err
	}
	err := probeOverwrite(ctx, b, name, first, second)
	return errors.Join(err, b.Delete(ctx, name))
}

func probeOverwrite(ctx context.Context, b Bucket, name string, first, second []byte) error {
	unfit := func(what string) error {
		return &Error{Op: "probe", Bucket: b.String(), Object: name, Err: errors.New(what),
			Hint: "use a store with atomic conditional writes (If-None-Match)"}
	}
	switch err := b.Create(ctx, name, second); {
	case err == nil:
		return unfit("the store overwrites existing objects: it cannot hold backups")
	case !errors.Is(err, ErrExists):
		return err
	}
	if err := b.Create(ctx, name, first); err != nil {
		return fmt.Errorf("repeating an upload: %w", err)
	}
	body, err := ReadAll(ctx, b, name, int64(len(first)))
	if err != nil {
		return err
	}
	if !bytes.Equal(body, first) {
		return unfit("the store returns other bytes than it was given")
	}
	return nil
}
