package api

import (
	"context"

	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// DrillsNode is what the API serves of restore drills.
type DrillsNode interface {
	DrillRestore(ctx context.Context) (*format.Drill, error)
	ListDrills(ctx context.Context, p ListDrillsParams) (*DrillList, error)
}

// ListDrillsParams ask for reports of drills.
type ListDrillsParams struct {
	Drill string `json:"drill,omitempty"` // id; empty: the newest ones
	Most  int    `json:"most,omitempty"`  // how many; 0: 1
}

// DrillList lists reports of drills, newest first.
type DrillList struct {
	Drills []format.Drill `json:"drills"`
	Unread []string       `json:"unread"` // why reports cannot be read, which are passed over
}

// DrillRestore has the node restore backups to a scratch place, prove them and delete
// them again.
func (c *Client) DrillRestore(ctx context.Context) (*format.Drill, error) {
	return call[format.Drill](ctx, c, "drill.restore", nil)
}

// ListDrills asks for reports of drills.
func (c *Client) ListDrills(ctx context.Context, p ListDrillsParams) (*DrillList, error) {
	return call[DrillList](ctx, c, "drill.list", p)
}
