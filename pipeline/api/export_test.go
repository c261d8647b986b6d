package api

import (
	"time"

	"golang.org/x/sync/semaphore"
)

// SetPatience has a client ask sooner whether there is a node.
func (c *Client) SetPatience(d time.Duration) { c.patience = d }

// SetMaxResponseBytes lets a test come to the bound without sending as much.
func (c *Client) SetMaxResponseBytes(n int64) { c.maxResponseBytes = n }

// SetBodyBytes lets a test come to the bound of all bodies without sending as much.
func (h *Handler) SetBodyBytes(n int64) { h.calls.bodies = semaphore.NewWeighted(n) }
