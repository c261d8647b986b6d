package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// PublishDrill puts the report of a drill into the bucket.
func PublishDrill(ctx context.Context, bucket objstore.Creator, d *format.Drill) error {
	text, err := d.Encode()
	if err != nil {
		return err
	}
	if err := bucket.Create(ctx, format.DrillName(d.Region, d.ID), text); err != nil {
		return fmt.Errorf("report of drill %s: %w", d.ID, err)
	}
	return nil
}

// Drills lists the ids of a region's drills, oldest first.
func Drills(ctx context.Context, bucket objstore.Reader, r events.Region) ([]string, error) {
	var ids []string
	for info, err := range bucket.List(ctx, format.DrillPrefix(r)) {
		if err != nil {
			return nil, fmt.Errorf("list drills of %s: %w", r, err)
		}
		if id, ok := format.ParseDrillName(r, info.Name); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Drill reads the report of a drill. One that there is not is of kind
// events.KindNotFound, a damaged one events.KindInconsistent.
func Drill(ctx context.Context, bucket objstore.Reader, r events.Region, id string) (*format.Drill, error) {
	notFound := events.Errorf(events.KindNotFound, "there is no drill %q of %s; list those that there are with: evenkeel drill list", id, r)
	if !format.ValidID(id) {
		return nil, notFound
	}
	name := format.DrillName(r, id)
	text, err := objstore.ReadAll(ctx, bucket, name, format.MaxLineBytes)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return nil, notFound
	case errors.Is(err, objstore.ErrCorrupt) || errors.Is(err, objstore.ErrInvalid): // the name is valid, so it is too large
		return nil, events.Errorf(events.KindInconsistent, "drill %s: %w", id, err)
	case err != nil:
		return nil, fmt.Errorf("drill %s: %w", id, err)
	}
	d, err := format.DecodeDrill(text)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	if d.Region != r || d.ID != id {
		return nil, events.Errorf(events.KindInconsistent, "object %s is drill %s of %s", name, d.ID, d.Region)
	}
	return d, nil
}
