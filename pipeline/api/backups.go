package api

import (
	"cmp"
	"context"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/copies"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

// BackupsNode is what the API serves of the backups in the region's bucket.
type BackupsNode interface {
	ListBackups(ctx context.Context) (*BackupList, error)
	ShowBackup(ctx context.Context, p ShowBackupParams) (*BackupDetails, error)
	VerifyBackups(ctx context.Context, p VerifyBackupsParams) (*verify.Report, error)
	BackupStatus(ctx context.Context) (*BackupStatus, error)
	PruneBackups(ctx context.Context, p PruneBackupsParams) (*prune.Report, error)
	CopyBackups(ctx context.Context, p CopyBackupsParams) (*CopyResult, error)
	ThawBackup(ctx context.Context, p ThawBackupParams) (*Thawed, error)
	GetAt(ctx context.Context, p GetAtParams) (*EntryAt, error)
	ScanAt(ctx context.Context, p ScanAtParams) (*ScanAtResult, error)
}

// PastTarget is a point in a region's past. At most one field is set; none: the newest backup.
type PastTarget struct {
	Backup string        `json:"backup,omitempty"` // id: where it was made
	Time   *time.Time    `json:"time,omitempty"`   // of each log all that came before the first record that came after it
	Vector events.Vector `json:"vector,omitempty"` // logs of the stream that are not in it are at offset 0
}

// GetAtParams ask for a key as it was.
type GetAtParams struct {
	Stream events.Stream `json:"stream"`
	Key    Bytes         `json:"key"`
	PastTarget
}

// PastPoint says which point in the past something is of, besides its vector, and what it
// was made from.
type PastPoint struct {
	Target  string    `json:"target"`           // as it was asked for
	Backup  string    `json:"backup,omitempty"` // id of the backup at or before the point; empty: it was made of segments alone
	Created time.Time `json:"created,omitzero"` // of that backup
	Backups int       `json:"backups"`          // that it consists of: a full, and the deltas upon it

	// What lies between the backup and the point.
	Segments int64 `json:"segments"`
	Records  int64 `json:"records"` // of the stream, that were looked at
	Found    int64 `json:"found"`   // of these, that the keys are made of

	Requests int64    `json:"requests"` // to the bucket
	Bytes    int64    `json:"bytes"`    // that were read of it
	Lacks    []string `json:"lacks"`    // what is not there, as far as is known
}

// EntryAt is a key as it was. Its context is the vector of the point: what came later
// is not in it, and everything that came before is.
type EntryAt struct {
	Entry
	PastPoint
}

// ScanAtParams ask for the keys of a stream as they were, in order.
type ScanAtParams struct {
	Stream events.Stream `json:"stream"`
	Prefix Bytes         `json:"prefix"`
	After  Bytes         `json:"after"`
	Limit  int           `json:"limit,omitempty"` // 1 to MaxScanEntries; 0: DefaultScanEntries
	PastTarget
}

// ScanAtResult is one page of them. To go on, ask for its context as the vector.
type ScanAtResult struct {
	ScanResult
	PastPoint
}

// CopyBackupsParams ask for copies of the backups to be brought up to date.
type CopyBackupsParams struct {
	Copy string `json:"copy,omitempty"` // its name in the configuration; empty: all
}

// CopyResult tells of each copy.
type CopyResult struct {
	Copies []CopyStatus `json:"copies"`
}

// CopyStatus is how a copy was brought up to date.
type CopyStatus struct {
	Copy     string         `json:"copy"`
	Began    time.Time      `json:"began"`
	Duration float64        `json:"duration_seconds"`
	Report   *copies.Report `json:"report"`            // what was copied; null: nothing was, the copy was only looked at
	Error    string         `json:"error,omitzero"`    // why not all was
	Newest   *time.Time     `json:"newest,omitempty"`  // of when the newest backup is that can be restored from the copy; nil: none, or not known (Checked)
	Damaged  int            `json:"damaged"`           // backups of which the copy lacks objects, or has them in another size
	Checked  *time.Time     `json:"checked,omitempty"` // when the copy was read for Newest and Damaged; nil: it could not be

	Drill      *DrillStatus     `json:"drill,omitempty"`      // the newest restore drill of the copy; nil: there was none, or its reports could not be read yet
	Recipients []RecipientProof `json:"recipients,omitempty"` // the keys that the copy's newest backup is sealed for, and what drills of the copy have proved with each
	DrillEvery float64          `json:"drill_every_seconds"`  // how often its turn comes to be drilled by schedule; 0: it is not
	Undrilled  string           `json:"undrilled,omitzero"`   // why it is not drilled by schedule, though others are
	DrillError string           `json:"drill_error,omitzero"` // why the last drill by schedule could not be made, or made no report

	// Archived is up to when the copy has all that was archived, as far as the node knows; nil:
	// it does not.
	Archived *time.Time `json:"archived,omitempty"`
}

// Err is of kind events.KindFailed if a copy is not up to date.
func (r *CopyResult) Err() error {
	for _, c := range r.Copies {
		if c.Error != "" {
			return events.Errorf(events.KindFailed, "copy %s: %s", c.Copy, c.Error)
		}
	}
	return nil
}

// ThawBackupParams ask for the objects of a backup to be readable for some days.
type ThawBackupParams struct {
	Backup string `json:"backup,omitempty"` // id; empty: the newest
	Days   int    `json:"days"`             // 1 or more
}

// Thawed is how far a backup's objects are.
type Thawed struct {
	Backup  string `json:"backup"`
	Objects int    `json:"objects"`
	Ready   int    `json:"ready"` // that can be read now
}

// Err is of kind events.KindNotReady until all can be read.
func (t *Thawed) Err() error {
	if t.Ready == t.Objects {
		return nil
	}
	return events.Errorf(events.KindNotReady, "%d of the %d objects of backup %s are not readable yet, which takes hours; ask again later", t.Objects-t.Ready, t.Objects, t.Backup)
}

// Backup is a backup that exists.
type Backup struct {
	ID      string            `json:"id"`
	Kind    string            `json:"kind"`    // full or delta
	Parents []string          `json:"parents"` // ids of what a delta builds on, the full first
	Region  events.Region     `json:"region"`
	Created time.Time         `json:"created"`
	Shards  int               `json:"shards"`
	Tables  int               `json:"tables"`
	Bytes   int64             `json:"bytes"`        // of all tables
	Stored  int64             `json:"stored_bytes"` // of the objects that hold them
	Keys    []string          `json:"keys"`         // ids of the keys that open it, each by itself; none: it is not encrypted
	States  []events.LogState `json:"states"`
}

// BackupOf sums up the manifest of a backup.
func BackupOf(m *format.Manifest) Backup {
	b := Backup{
		ID: m.ID, Kind: cmp.Or(m.Kind, format.Full), Parents: append([]string{}, m.Parents...), Region: m.Region, Created: m.Created, Shards: len(m.Shards),
		Bytes: m.Bytes(), Stored: m.StoredBytes(), Keys: append([]string{}, m.Keys()...), States: m.States(),
	}
	for _, s := range m.Shards {
		b.Tables += len(s.Tables)
	}
	return b
}

// BackupList lists backups, oldest first, and what there is of the archive, by shard.
type BackupList struct {
	Backups []Backup       `json:"backups"`
	Archive []ArchiveRange `json:"archive"`
}

// ArchiveRange is what the bucket has of the archive of a shard: the run of segments that
// ends with the newest.
type ArchiveRange struct {
	Shard    int32           `json:"shard"`
	From     int64           `json:"from"` // numbers of segments
	To       int64           `json:"to"`
	Segments int             `json:"segments"`
	Bytes    int64           `json:"bytes"`  // in the bucket
	Oldest   time.Time       `json:"oldest"` // when the first was closed, and the last
	Newest   time.Time       `json:"newest"`
	Ends     []format.LogEnd `json:"ends"` // how far the logs are archived
}

// ShowBackupParams name a backup.
type ShowBackupParams struct {
	Backup string `json:"backup,omitempty"` // id; empty: the newest
}

// BackupDetails is all there is to know about a backup.
type BackupDetails struct {
	Manifest *format.Manifest `json:"manifest"`
}

// VerifyBackupsParams ask for backups to be verified.
type VerifyBackupsParams struct {
	Backup string `json:"backup,omitempty"` // id; empty: the newest
	All    bool   `json:"all,omitempty"`    // all that exist; without Backup
	Level  string `json:"level,omitempty"`  // one of verify.Levels; empty: hashes
}

// PruneBackupsParams ask for old backups to be deleted.
type PruneBackupsParams struct {
	Run bool `json:"run,omitempty"` // false: only say what would be done
}

// BackupStatus is how far back a region would be thrown by the loss of everything
// but its bucket, by reading the bucket.
type BackupStatus struct {
	Encryption string            `json:"encryption"`     // age or none
	Keys       []string          `json:"keys"`           // that backups are encrypted for from now on
	Checked    time.Time         `json:"checked"`        // when the bucket was read
	Error      string            `json:"error,omitzero"` // why it could not be read, last
	Backups    int               `json:"backups"`        // that exist
	Damaged    []string          `json:"damaged"`        // ids of those of which objects are missing or have another size
	Clock      time.Time         `json:"clock,omitzero"` // the latest time that has come by the clock of who made a backup and by the bucket's; zero: there is none
	Ahead      []string          `json:"ahead"`          // objects whose time is still to come: backups, drills and plans that a wrong clock has dated, unless it is the node's
	Points     []inventory.Point `json:"points"`         // by stream
	Every      float64           `json:"every_seconds"`  // the schedule; 0: only on demand
	Last       *BackupRun        `json:"last,omitempty"` // made by this node; nil: none since it schedules (it owns shard 0)

	// Copies are as this node has last made them; none while it does not schedule. Without a
	// node they are as they are.
	Copies []CopyStatus `json:"copies,omitempty"`

	NewestFull time.Time  `json:"newest_full,omitzero"` // the newest full one that can be restored; zero: none
	DeltaEvery float64    `json:"delta_every_seconds"`  // the schedule of deltas; 0: none
	LastDelta  *BackupRun `json:"last_delta,omitempty"` // as Last

	Pruned     *time.Time `json:"pruned,omitempty"`    // when something was last decided to go; nil: never
	PruneEvery float64    `json:"prune_every_seconds"` // the schedule; 0: only on demand
	Prunes     []PruneRun `json:"prunes,omitempty"`    // the node's last ones, of the bucket and of its copies; none while it does not schedule

	Drill      *DrillStatus `json:"drill,omitempty"`     // the newest restore drill; nil: there was none
	DrillEvery float64      `json:"drill_every_seconds"` // the schedule; 0: only on demand, also since no identity opens the backups

	Recipients []RecipientProof `json:"recipients"` // the keys that the newest backup is sealed for; none: it is not, or there is none

	Sample *SampleStatus `json:"sample,omitempty"` // how objects are looked at between drills; nil: they are not, or not by this node

	DrillsUnread []string `json:"drills_unread,omitempty"` // why reports of the last drills cannot be read, which are passed over

	// Archive is the continuous backup, by stream; empty: there is none. Without a node it is not
	// known what the bucket lacks.
	Archive []ArchivePoint `json:"archive"`
}

// DrillStatus is what is known of restore drills.
type DrillStatus struct {
	ID      string     `json:"id"`
	Created time.Time  `json:"created"`
	Error   string     `json:"error,omitzero"`   // why restores of the newest drill failed
	Anew    bool       `json:"anew,omitzero"`    // not only by what failed in the one before as well: another is made soon
	Proved  *time.Time `json:"proved,omitempty"` // of when the newest state is that a drill has proved; nil: none of the last ones has
}

// RecipientProof is what restore drills have proved with one key alone: without the identities of any other.
type RecipientProof struct {
	Key    string     `json:"key"`              // id
	Proved *time.Time `json:"proved,omitempty"` // of when the newest state is that was proved so; nil: never
	Drill  string     `json:"drill,omitempty"`  // id of the drill that has proved it
}

// SampleStatus is how a node looks at objects of its bucket between drills: at their hashes, and at what they hold if it
// can open them.
type SampleStatus struct {
	BytesPerDay int64               `json:"bytes_per_day"`     // its budget
	Objects     *int                `json:"objects,omitempty"` // in the bucket, of backups that exist and of the archive; nil: not known yet
	Never       *int                `json:"never,omitempty"`   // of these, that were not looked at, as far as the node remembers
	Oldest      *time.Time          `json:"oldest,omitempty"`  // when that one was looked at that was the longest ago; nil: none was
	Newest      *time.Time          `json:"newest,omitempty"`  // when one was last looked at
	Listed      *time.Time          `json:"listed,omitempty"`  // when it was last looked whether any that should be there are missing; nil: not yet
	Damaged     []inventory.Problem `json:"damaged"`           // objects that were damaged when they were last looked at, or are missing
	Error       string              `json:"error,omitzero"`    // why the last pass could not go on
}

// ArchivePoint is what the loss of everything but the bucket would cost a stream, by
// reading the bucket and asking where the logs end.
type ArchivePoint struct {
	Stream  events.Stream `json:"stream"`
	Limit   float64       `json:"limit_seconds"`   // how long an event waits for its segment to be closed
	Records *int64        `json:"records"`         // that the logs have and the bucket does not; null: not known
	Age     *float64      `json:"age_seconds"`     // for how long the oldest of them has been there, at most; null: not known
	Newest  time.Time     `json:"newest,omitzero"` // when the newest segment that is known to have an event of the stream was closed
	Error   string        `json:"error,omitempty"` // why something is not known
}

// PruneRun is how a prune went.
type PruneRun struct {
	Copy     string    `json:"copy,omitempty"` // of this copy; empty: of the bucket
	Began    time.Time `json:"began"`
	Duration float64   `json:"duration_seconds"`
	Plan     int64     `json:"plan,omitempty"` // number of the plan that was carried out; 0: nothing was to go
	Deleted  int       `json:"deleted"`        // objects
	Left     int       `json:"left"`           // that could not be deleted
	Held     int       `json:"held,omitempty"` // that Object Lock holds: they stay, and what belongs to them
	Error    string    `json:"error,omitempty"`
}

// BackupRun is how a backup went.
type BackupRun struct {
	Began    time.Time `json:"began"`
	Duration float64   `json:"duration_seconds"`
	Backup   string    `json:"backup,omitempty"`
	Bytes    int64     `json:"bytes,omitempty"` // in the bucket
	Error    string    `json:"error,omitempty"`
}

// ListBackups lists the backups of the node's region.
func (c *Client) ListBackups(ctx context.Context) (*BackupList, error) {
	return call[BackupList](ctx, c, "backup.list", nil)
}

// ShowBackup asks for everything about a backup.
func (c *Client) ShowBackup(ctx context.Context, p ShowBackupParams) (*BackupDetails, error) {
	return call[BackupDetails](ctx, c, "backup.show", p)
}

// GetAt reads a key as it was.
func (c *Client) GetAt(ctx context.Context, p GetAtParams) (*EntryAt, error) {
	return call[EntryAt](ctx, c, "backup.get", p)
}

// ScanAt lists keys as they were.
func (c *Client) ScanAt(ctx context.Context, p ScanAtParams) (*ScanAtResult, error) {
	return call[ScanAtResult](ctx, c, "backup.scan", p)
}

// VerifyBackups has the node verify backups.
func (c *Client) VerifyBackups(ctx context.Context, p VerifyBackupsParams) (*verify.Report, error) {
	return call[verify.Report](ctx, c, "backup.verify", p)
}

// BackupStatus has the node read its bucket.
func (c *Client) BackupStatus(ctx context.Context) (*BackupStatus, error) {
	return call[BackupStatus](ctx, c, "backup.status", nil)
}

// PruneBackups has the node delete old backups, or say which it would.
func (c *Client) PruneBackups(ctx context.Context, p PruneBackupsParams) (*prune.Report, error) {
	return call[prune.Report](ctx, c, "backup.prune", p)
}

// CopyBackups has the node bring copies of the backups up to date.
func (c *Client) CopyBackups(ctx context.Context, p CopyBackupsParams) (*CopyResult, error) {
	return call[CopyResult](ctx, c, "backup.copy", p)
}

// ThawBackup has the node ask its bucket for a backup's objects to be readable.
func (c *Client) ThawBackup(ctx context.Context, p ThawBackupParams) (*Thawed, error) {
	return call[Thawed](ctx, c, "backup.thaw", p)
}
