package catalog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// PinFor is how long a pin holds if nobody removes it: longer than any restore
// takes. Whoever dies before removing it keeps the backup from being deleted so long,
// and nothing else.
const PinFor = 7 * 24 * time.Hour

const unpinTimeout = 3 * time.Second

// Pin keeps a backup, and all that it builds on, from being deleted until unpin is called. Without an error the
// backup exists and stays. objstore.ErrAccess means that this bucket may only be
// read. unpin works also when ctx has ended; a pin that it does not get rid of ends
// by itself.
func Pin(ctx context.Context, bucket objstore.Bucket, m *format.Manifest, owner string) (unpin func(), err error) {
	var unique [8]byte
	_, _ = rand.Read(unique[:]) // never fails, by its contract
	name := format.PinName(m.Region, m.ID, hex.EncodeToString(unique[:]))
	now := time.Now().UTC().Truncate(time.Millisecond)
	pin := format.Pin{Format: 1, Region: m.Region, Backup: m.ID, Owner: owner, Created: now, Deadline: now.Add(PinFor)}
	text, err := pin.Encode()
	if err != nil {
		return nil, err
	}
	unpin = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unpinTimeout)
		defer cancel()
		_ = bucket.Delete(ctx, name) // it ends by itself
	}
	if err := bucket.Create(ctx, name, text); err != nil {
		if !errors.Is(err, objstore.ErrAccess) {
			unpin() // it may be there
		}
		return nil, fmt.Errorf("pin of backup %s: %w", m.ID, err)
	}
	// A plan that does not heed the pin was made before the pin was: it is seen now.
	if err := exists(ctx, bucket, m); err != nil {
		unpin()
		return nil, err
	}
	return unpin, nil
}

// Hold keeps a backup from being deleted for PinFor from now on, for an owner that
// may end and come back: it takes the place of what the owner held before. Its
// errors are those of Pin.
func Hold(ctx context.Context, bucket objstore.Bucket, m *format.Manifest, owner string) error {
	before, err := held(ctx, bucket, m.Region, m.ID, owner)
	if err != nil {
		return err
	}
	if _, err := Pin(ctx, bucket, m, owner); err != nil {
		return err
	}
	_ = remove(ctx, bucket, before) // they end by themselves
	return nil
}

// Release ends what Hold did. What cannot be removed ends by itself, later.
func Release(ctx context.Context, bucket objstore.Bucket, r events.Region, id, owner string) error {
	pins, err := held(ctx, bucket, r, id, owner)
	if err != nil {
		return err
	}
	return remove(ctx, bucket, pins)
}

func held(ctx context.Context, bucket objstore.Reader, r events.Region, id, owner string) ([]PinStatus, error) {
	pins, err := Pins(ctx, bucket, r)
	return slices.DeleteFunc(pins, func(p PinStatus) bool { return p.Backup != id || p.Owner != owner }), err
}

func remove(ctx context.Context, bucket objstore.Deleter, pins []PinStatus) error {
	for _, p := range pins {
		if err := bucket.Delete(ctx, p.Object); err != nil {
			return fmt.Errorf("pin of backup %s: %w", p.Backup, err)
		}
	}
	return nil
}

// PinStatus is a pin that is there.
type PinStatus struct {
	Object   string    `json:"object"`
	Backup   string    `json:"backup"`
	Owner    string    `json:"owner,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"` // zero: the pin cannot be read, and holds
}

// Holds says whether the pin keeps its backup at a time.
func (p PinStatus) Holds(now time.Time) bool { return p.Deadline.IsZero() || now.Before(p.Deadline) }

// Pins lists the pins of a region. One that cannot be read holds until somebody
// deletes it.
func Pins(ctx context.Context, bucket objstore.Reader, r events.Region) ([]PinStatus, error) {
	var pins []PinStatus
	for info, err := range bucket.List(ctx, format.PinPrefix(r)) {
		if err != nil {
			return nil, fmt.Errorf("list pins of %s: %w", r, err)
		}
		id, ok := format.ParsePinName(r, info.Name)
		if !ok {
			continue
		}
		status := PinStatus{Object: info.Name, Backup: id}
		text, err := read(ctx, bucket, info.Name)
		switch {
		case errors.Is(err, objstore.ErrNotFound): // removed meanwhile
			continue
		case err != nil && events.KindOf(err) != events.KindInconsistent:
			return nil, err
		}
		if pin, err := format.DecodePin(text); err == nil && pin.Backup == id && pin.Region == r {
			status.Owner, status.Deadline = pin.Owner, pin.Deadline
		}
		pins = append(pins, status)
	}
	return pins, nil
}
