package api

import "golang.org/x/sync/semaphore"

// SetMaxResponseBytes lets a test come to the bound without sending as much.
func (c *Client) SetMaxResponseBytes(n int64) { c.maxResponseBytes = n }

// SetBodyBytes lets a test come to the bound of all bodies without sending as much.
func (h *Handler) SetBodyBytes(n int64) { h.calls.bodies = semaphore.NewWeighted(n) }
