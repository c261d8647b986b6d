package api

import (
	"context"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// CheckNode is what the API serves of the comparison of regions.
type CheckNode interface {
	Check(ctx context.Context, p CheckParams) (*Check, error)
	Acknowledge(ctx context.Context, p AcknowledgeParams) (*Acknowledged, error)
}

// CheckParams ask how the node's state compares with what all origins attest.
type CheckParams struct {
	Stream events.Stream `json:"stream,omitempty"` // empty: all of them
}

// Check is how every log stands in a region, in order. Regions compare all the
// time: nothing is compared because somebody asks.
type Check struct {
	Region events.Region        `json:"region"`
	At     time.Time            `json:"at"`
	Logs   []divergence.Finding `json:"logs"`
}

// Count is the number of logs with a result.
func (c *Check) Count(r divergence.Result) (n int) {
	for _, f := range c.Logs {
		if f.Result == r {
			n++
		}
	}
	return n
}

// AcknowledgeParams name a log whose divergence an operator has seen to.
type AcknowledgeParams struct {
	Log events.Log `json:"log"`
}

// Acknowledged is a divergence that is not shown any more. If it lasts it is found
// again by the next comparison.
type Acknowledged struct {
	Region events.Region `json:"region"`
	Log    events.Log    `json:"log"`
}

// Check asks how the node's state compares with what all origins attest.
func (c *Client) Check(ctx context.Context, p CheckParams) (*Check, error) {
	return call[Check](ctx, c, "check", p)
}

// Acknowledge ends a divergence by an operator's word.
func (c *Client) Acknowledge(ctx context.Context, p AcknowledgeParams) (*Acknowledged, error) {
	return call[Acknowledged](ctx, c, "check.acknowledge", p)
}
