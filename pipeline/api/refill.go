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
	Vector   events.Vector `json:"vector"` // up to where each log was written back
	Logs     []RefilledLog `json:"logs"`
	Resumed  bool          `json:"resumed"`

	GroupsOf   string          `json:"groups_of,omitzero"` // id of the backup whose offsets of consumer groups were given back; empty: none has any
	GroupsTime time.Time       `json:"groups_time,omitzero"`
	Groups     []RefilledGroup `json:"groups"`

	Began    time.Time `json:"began"`
	Duration float64   `json:"duration_seconds"`
}

// RefilledGroup is an offset that a consumer group has back.
type RefilledGroup struct {
	Group   string     `json:"group"`
	Log     events.Log `json:"log"`
	Next    int64      `json:"next"` // that it had, of the log
	Topic   string     `json:"topic"`
	Offset  int64      `json:"offset"`           // that it has in the topic, never behind its end
	Skipped string     `json:"skipped,omitzero"` // why it does not
}

// RefillPlan says what would be written back into a region's Kafka.
type RefillPlan struct {
	Region   events.Region  `json:"region"`
	Target   string         `json:"target"`
	Vector   events.Vector  `json:"vector"`
	Topics   []string       `json:"topics"`
	Segments int64          `json:"segments"`
	Bytes    int64          `json:"bytes"`
	Records  int64          `json:"records"`            // about
	Peers    []PlannedTail  `json:"peers"`              // what would be taken from other regions
	GroupsOf string         `json:"groups_of,omitzero"` // as in Refilled
	Groups   []PlannedGroup `json:"groups"`
}

// PlannedTail is a log of which another region has mirrored more than was archived.
type PlannedTail struct {
	Log      events.Log `json:"log"`
	Archived int64      `json:"archived"` // up to this offset of the log
	Mirrored int64      `json:"mirrored"` // up to this one
}

// PlannedGroup is a consumer group whose offsets would be given back.
type PlannedGroup struct {
	Group   string `json:"group"`
	Offsets int    `json:"offsets"`
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
	Peers   []RefillPeer  `json:"peers,omitempty"`
}

// RefillPeer is another region that has mirrored a log.
type RefillPeer struct {
	Region   events.Region `json:"region"`
	From     int64         `json:"from"`     // it has it from this offset of the log on
	Next     int64         `json:"next"`     // up to this one
	Compared int64         `json:"compared"` // so many of the last archived records with its mirror's, and they are the same
	Took     int64         `json:"took"`     // so many records behind the archive came from it
}

// RefillRun are records one behind the other, in the log and in the topic.
type RefillRun struct {
	Log     int64          `json:"log"`              // offset of the first
	Topic   int64          `json:"topic"`            // offset of the first
	Records int64          `json:"records"`          // how many
	Before  *events.Digest `json:"before,omitempty"` // the chain that goes on here, if what is before is not archived
}
