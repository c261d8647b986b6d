package api

import (
	"context"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// LinksNode is what the API serves of a node's links. An origin names a link as
// statuses do ("us-east-1", "us-east-1_2").
type LinksNode interface {
	ListLinks(ctx context.Context) (*LinkList, error)
	ShowLink(ctx context.Context, p ShowLinkParams) (*LinkDetails, error)
	PauseLink(ctx context.Context, p PauseLinkParams) (*LinkPaused, error)
	UnpauseLink(ctx context.Context, p PauseLinkParams) (*LinkPaused, error)
	ResumeLink(ctx context.Context, p ResumeLinkParams) (*LinkResumed, error)
	VerifyLink(ctx context.Context, p VerifyLinkParams) (*replicator.Verified, error)
}

// LinkList lists links, by origin.
type LinkList struct {
	Links []LinkRow `json:"links"`
}

// LinkRow sums up a link.
type LinkRow struct {
	replicator.Status
	Partitions map[replicator.State]int `json:"partitions"` // how many, by state
	Lag        replicator.Lag           `json:"lag"`        // records and bytes of all partitions, seconds of the worst; nil if unknown of any
	Unknown    int                      `json:"unknown"`    // partitions of which the lag is not known
	Failing    []replicator.TaskStatus  `json:"failing"`    // tasks that fail
	Memory     int64                    `json:"memory_bytes"`
}

// ShowLinkParams name a link, or a part of it.
type ShowLinkParams struct {
	Origin    string `json:"origin"`
	Topic     string `json:"topic,omitempty"`     // of the log; empty: all
	Partition *int32 `json:"partition,omitempty"` // nil: all; needs Topic
}

// LinkDetails is all there is to know about a link, or about what was asked for.
type LinkDetails struct {
	replicator.Details

	// Runs map the offsets of the one partition that was asked for; empty if they
	// are the source's. Missing if more than one was asked for.
	Runs *mapping.Runs `json:"runs,omitempty"`
}

// PauseLinkParams say what to pause, or what to let go on. What is "link" (all of
// it, also if empty), a task ("data", "topics", "groups", "acls"), "topic/TOPIC" (every
// partition that it has now) or "topic/TOPIC/PARTITION".
type PauseLinkParams struct {
	Origin string `json:"origin"`
	What   string `json:"what,omitempty"`
}

// LinkPaused says what was paused or let go on. It holds for every node of the
// region, and after restarts.
type LinkPaused struct {
	Origin events.Origin `json:"origin"`
	What   []string      `json:"what"`
	Paused bool          `json:"paused"`

	// Partitions that are concerned: paused now, or still paused by something else
	// although they were let go on, or stopped and in need of a choice.
	Partitions []replicator.PartitionStatus `json:"partitions"`
}

// ResumeLinkParams let stopped partitions of a topic go on.
type ResumeLinkParams struct {
	Origin    string `json:"origin"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"` // replicator.All: all that are stopped
	From      string `json:"from"`      // retry, earliest, latest, next, or an offset of the source
	DryRun    bool   `json:"dry_run,omitempty"`
}

// LinkResumed are the partitions that go on, or would.
type LinkResumed struct {
	Origin     events.Origin      `json:"origin"`
	From       string             `json:"from"`
	DryRun     bool               `json:"dry_run"`
	Partitions []ResumedPartition `json:"partitions"`
}

// ResumedPartition is one partition that was stopped.
type ResumedPartition struct {
	Topic     string                   `json:"topic"`
	Partition int32                    `json:"partition"`
	Stop      *replicator.StoppedError `json:"stop"` // why; its offsets are the missing range

	// Of a dry run, offsets of the source. What is not known is nil.
	SourceStart *int64 `json:"source_start,omitempty"` // first that it has
	SourceEnd   *int64 `json:"source_end,omitempty"`
	Next        *int64 `json:"next,omitempty"`    // where mirroring has come to
	GoesOn      *int64 `json:"goes_on,omitempty"` // nil for retry: found out then
	Skipped     *int64 `json:"skipped,omitempty"` // GoesOn - Next; negative: so many are mirrored once more
	Refused     string `json:"refused,omitempty"` // why the choice is not possible
}

// VerifyLinkParams ask for a stretch of one partition's mirror to be compared with
// the source. From is an offset of the mirror; go on with the answer's Next until it
// is End.
type VerifyLinkParams struct {
	Origin    string `json:"origin"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
}

// LinkLag is how far the mirror of one partition is behind its log, as the link
// says. What is not known is null, never 0, and then Error says why.
type LinkLag struct {
	Log       *events.Log      `json:"log,omitempty"` // nil: the topic is no stream's
	Origin    events.Origin    `json:"origin"`
	Topic     string           `json:"topic"`
	Partition int32            `json:"partition"`
	State     replicator.State `json:"state"` // empty: the link does not know the partition yet

	End  *int64 `json:"end"`  // of the log: the last stable offset
	Next *int64 `json:"next"` // to be mirrored
	replicator.Lag
	FetchAge *float64 `json:"fetch_age_s"` // since the last good fetch of it
	AckAge   *float64 `json:"ack_age_s"`   // since the last batch was acknowledged
	Error    string   `json:"error,omitempty"`
}

// ListLinks asks how the links into the node's region are.
func (c *Client) ListLinks(ctx context.Context) (*LinkList, error) {
	return call[LinkList](ctx, c, "links.list", nil)
}

// ShowLink asks for everything about a link, or about a part of it.
func (c *Client) ShowLink(ctx context.Context, p ShowLinkParams) (*LinkDetails, error) {
	return call[LinkDetails](ctx, c, "links.show", p)
}

// PauseLink pauses a link or a part of it.
func (c *Client) PauseLink(ctx context.Context, p PauseLinkParams) (*LinkPaused, error) {
	return call[LinkPaused](ctx, c, "links.pause", p)
}

// UnpauseLink ends a pause.
func (c *Client) UnpauseLink(ctx context.Context, p PauseLinkParams) (*LinkPaused, error) {
	return call[LinkPaused](ctx, c, "links.unpause", p)
}

// ResumeLink lets stopped partitions go on.
func (c *Client) ResumeLink(ctx context.Context, p ResumeLinkParams) (*LinkResumed, error) {
	return call[LinkResumed](ctx, c, "links.resume", p)
}

// VerifyLink compares a stretch of a mirror with its source.
func (c *Client) VerifyLink(ctx context.Context, p VerifyLinkParams) (*replicator.Verified, error) {
	return call[replicator.Verified](ctx, c, "links.verify", p)
}
