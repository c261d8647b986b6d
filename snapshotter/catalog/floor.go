package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// NewestFloor reads the floor that holds for a region, nil if there is none. One
// that is damaged is of kind events.KindInconsistent: nothing may be published or
// deleted then.
func NewestFloor(ctx context.Context, bucket objstore.Reader, r events.Region) (*format.Floor, error) {
	number, err := highest(ctx, bucket, r, format.FloorPrefix(r), format.ParseFloorName)
	if err != nil || number == 0 {
		return nil, err
	}
	name := format.FloorName(r, number)
	text, err := read(ctx, bucket, name)
	if err != nil {
		return nil, err
	}
	floor, err := format.DecodeFloor(text)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	if floor.Region != r || floor.Number != number {
		return nil, events.Errorf(events.KindInconsistent, "object %s is floor %d of %s", name, floor.Number, floor.Region)
	}
	return floor, nil
}

// NewestPlan reads the plan that holds for a region, nil if there is none.
func NewestPlan(ctx context.Context, bucket objstore.Reader, r events.Region) (*format.Plan, error) {
	number, err := highest(ctx, bucket, r, format.PlanPrefix(r), format.ParsePlanName)
	if err != nil || number == 0 {
		return nil, err
	}
	name := format.PlanName(r, number)
	text, err := read(ctx, bucket, name)
	if err != nil {
		return nil, err
	}
	plan, err := format.DecodePlan(text)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	if plan.Region != r || plan.Number != number {
		return nil, events.Errorf(events.KindInconsistent, "object %s is plan %d of %s", name, plan.Number, plan.Region)
	}
	return plan, nil
}

// highest lists numbered objects and returns the highest number, 0 if there is none.
func highest(ctx context.Context, bucket objstore.Reader, r events.Region, prefix string, parse func(events.Region, string) (int64, bool)) (int64, error) {
	var most int64
	for info, err := range bucket.List(ctx, prefix) {
		if err != nil {
			return 0, fmt.Errorf("list %s: %w", prefix, err)
		}
		if number, ok := parse(r, info.Name); ok {
			most = max(most, number)
		}
	}
	return most, nil
}

// read reads a small object that is there for sure.
func read(ctx context.Context, bucket objstore.Reader, name string) ([]byte, error) {
	text, err := objstore.ReadAll(ctx, bucket, name, format.MaxLineBytes)
	if errors.Is(err, objstore.ErrCorrupt) {
		return nil, events.Errorf(events.KindInconsistent, "object %s: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name, err)
	}
	return text, nil
}
