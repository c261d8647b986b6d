package api

import (
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// Refilled says what was written back into a region's Kafka, and proved.
type Refilled struct {
	Region   events.Region `json:"region"`
	Software string        `json:"software"`
	Target   string        `json:"target"` // as it was asked for
	Vector   events.Vector `json:"vector"` // that it meant, of the region's own logs
	Logs     []RefilledLog `json:"logs"`
	Resumed  bool          `json:"resumed"`
	Began    time.Time     `json:"began"`
	Duration float64       `json:"duration_seconds"`
}

// RefilledLog is a log that was written back.
type RefilledLog struct {
	Log     events.Log    `json:"log"`
	Topic   string        `json:"topic"`
	Records int64         `json:"records"`
	Next    int64         `json:"next"`           // offset of the log up to which it was written back
	Chain   events.Digest `json:"chain"`          // of the records, read back from the topic, under the offsets of the log
	Same    bool          `json:"same_offsets"`   // each record has the offset that it had
	Runs    []RefillRun   `json:"runs,omitempty"` // where records have come to lie
}

// RefillRun are records one behind the other, in the log and in the topic.
type RefillRun struct {
	Log     int64          `json:"log"`              // offset of the first
	Topic   int64          `json:"topic"`            // offset of the first
	Records int64          `json:"records"`          // how many
	Before  *events.Digest `json:"before,omitempty"` // the chain that goes on here, if what is before is not archived
}
