package load

// SetBatchEvents lets a test have many batches of few events.
func (c *Config) SetBatchEvents(n int) { c.batchEvents = n }

// Bounds of a request and of a line.
const (
	BatchBytes   = batchBytes
	MaxLineBytes = maxLineBytes
	ShownFaults  = shownFaults
)
