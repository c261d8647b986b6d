package api

// SetMaxResponseBytes lets a test come to the bound without sending as much.
func (c *Client) SetMaxResponseBytes(n int64) { c.maxResponseBytes = n }
