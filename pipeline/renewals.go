package pipeline

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// renewal is a shard that is restored while its node runs, as it is noted on disk before
// anything is done. The new state is made aside, and the old one kept until the new one is
// proved.
type renewal struct {
	Request  timeline.Request    `json:"request"` // of this shard alone
	Backup   string              `json:"backup"`  // that it begins with; empty: that is not known yet
	Damaged  []string            `json:"damaged"` // backups that could not be used
	Lineage  projections.Lineage `json:"lineage"`
	Began    time.Time           `json:"began"`
	Compared bool                `json:"compared,omitempty"` // with what other regions have attested
	Moved    bool                `json:"moved"`              // the new state is in the place of the old one
	Until    events.Vector       `json:"until"`              // where the old one was
	Proved   bool                `json:"proved"`             // and it has come to there; the old one is deleted

	AcceptDiverged bool `json:"accept_diverged,omitempty"`
}

// renewals are those of a node. They are safe for concurrent use.
//
// A note stays, proved, until a backup has the new state. Until then no delta is made: it
// would lie on backups of the old state, which are perhaps wrong where nothing has changed
// since. And no newer backup is preferred to the directory.
type renewals struct {
	cfg  *config.Config
	fs   vfs.FS
	work []chan struct{} // full while the new state of a shard is made

	mu    sync.Mutex
	notes map[int32]renewal
	tells map[int32]renewalProgress
}

// renewalProgress is what is known of a renewal besides.
type renewalProgress struct {
	bytes, fetched int64
	agrees         *api.Agreement
	err            error
	failed         bool
	last           renewal // of one that has failed
}

func newRenewals(cfg *config.Config, fs vfs.FS) *renewals {
	n := &renewals{cfg: cfg, fs: fs, notes: map[int32]renewal{}, tells: map[int32]renewalProgress{}}
	for range cfg.Partitions {
		n.work = append(n.work, make(chan struct{}, 1))
	}
	return n
}

func (n *renewals) dir() string { return filepath.Join(n.cfg.DataDir, "renewing") }

func (n *renewals) notePath(p int32) string {
	return filepath.Join(n.dir(), fmt.Sprintf(shardName+".json", p))
}

// aside is the directory that a new state is made in, below it the shard's own.
func (n *renewals) aside(p int32) string { return filepath.Join(n.dir(), fmt.Sprintf(shardName, p)) }

// old is where the old state is kept.
func (n *renewals) old(p int32) string { return filepath.Join(n.dir(), fmt.Sprintf("old-%04d", p)) }

// load reads the notes of an earlier process.
func (n *renewals) load() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.cfg.Partitions {
		var note renewal
		there, err := disk.ReadNote(n.fs, n.notePath(p), &note)
		if err != nil {
			return fmt.Errorf("restore of shard %d: %w", p, err)
		}
		if there {
			n.notes[p] = note
		}
	}
	return nil
}

// of is the renewal of a shard, if there is one.
func (n *renewals) of(p int32) (note renewal, is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	note, is = n.notes[p]
	return note, is
}

// begin notes that a shard is to be restored. One that is restored to the same already
// goes on.
func (n *renewals) begin(p int32, req timeline.Request, acceptDiverged bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if was, is := n.notes[p]; is && !was.Proved {
		if was.Request.Same(req) {
			return nil
		}
		return events.Errorf(events.KindRefused, "shard %d is being restored to %s since %s; wait until that is done (evenkeel shards)", p, was.Request.Target, was.Began.Format(time.RFC3339))
	}
	if err := n.sweep(p); err != nil {
		return err
	}
	note := renewal{Request: req, Damaged: []string{}, Lineage: newLineage(""), Began: time.Now().UTC(), Until: events.Vector{}, AcceptDiverged: acceptDiverged}
	if err := n.write(p, note); err != nil {
		return err
	}
	delete(n.tells, p)
	return nil
}

// sweep removes what a renewal that is over has left. The caller holds mu.
func (n *renewals) sweep(p int32) error {
	if err := disk.MakeDirs(n.fs, n.dir()); err != nil {
		return fmt.Errorf("restore of shard %d: %w", p, err)
	}
	var err error
	for _, dir := range []string{n.old(p), n.aside(p), n.aside(p) + ".restoring"} {
		err = errors.Join(err, n.fs.RemoveAll(dir))
	}
	return errors.Join(err, disk.SyncDir(n.fs, n.dir()))
}

// write notes how far a renewal is. The caller holds mu.
func (n *renewals) write(p int32, note renewal) error {
	if err := disk.WriteNote(n.fs, n.notePath(p), note); err != nil {
		return fmt.Errorf("restore of shard %d: %w", p, err)
	}
	n.notes[p] = note
	return nil
}

// change notes something about a renewal that is under way.
func (n *renewals) change(p int32, change func(*renewal)) (renewal, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	note, is := n.notes[p]
	if !is {
		return note, events.Errorf(events.KindNotFound, "shard %d is not being restored", p)
	}
	note.Damaged = slices.Clone(note.Damaged)
	change(&note)
	return note, n.write(p, note)
}

// end forgets a renewal: that of a shard that a backup has, or, with an error, one that has
// failed.
func (n *renewals) end(p int32, failure error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.sweep(p); err != nil {
		return err
	}
	if err := errors.Join(n.fs.RemoveAll(n.notePath(p)), disk.SyncDir(n.fs, n.dir())); err != nil {
		return fmt.Errorf("restore of shard %d: %w", p, err)
	}
	if failure != nil {
		n.tells[p] = renewalProgress{err: failure, failed: true, last: n.notes[p]}
	}
	delete(n.notes, p)
	return nil
}

// tell notes in memory how a renewal gets on.
func (n *renewals) tell(p int32, change func(*renewalProgress)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.tells[p]
	change(&at)
	n.tells[p] = at
}

// status says how far the renewal of a shard is; nil: there is none, or it is over. The
// shard is nil if it is not open.
func (n *renewals) status(p int32, shard *openShard) *api.ShardRestore {
	n.mu.Lock()
	defer n.mu.Unlock()
	note, is := n.notes[p]
	at := n.tells[p]
	if at.failed {
		note = at.last
	} else if !is || note.Proved {
		return nil
	}
	s := &api.ShardRestore{
		Target: describeTarget(note.Request), Backup: note.Backup, Lineage: note.Lineage.ID, Began: note.Began,
		Step: stepOf(note, at, shard), Bytes: at.bytes, Fetched: at.fetched, Until: note.Until, Damaged: note.Damaged, Agrees: at.agrees,
	}
	if at.err != nil {
		s.Error = at.err.Error()
	}
	if note.Moved && shard != nil {
		s.Left = behind(shard, note.Until)
	}
	return s
}

func describeTarget(req timeline.Request) string {
	if req.Target.IsNewest() {
		return "the newest backup that is whole"
	}
	return req.Target.String()
}

func stepOf(note renewal, at renewalProgress, shard *openShard) string {
	switch {
	case at.failed:
		return api.RestoreFailed
	case !note.Moved:
		return api.RestoreFetching
	case shard == nil:
		return api.RestoreOpening
	case shard.InPlace() != nil:
		return api.RestoreProving
	}
	return api.RestoreReplaying
}

// behind is how many records a shard lacks up to a vector.
func behind(shard *openShard, until events.Vector) (records int64) {
	at := events.VectorOf(shard.Logs())
	for l, next := range until {
		records += max(0, next-at[l])
	}
	return records
}

// problems says which renewals do not get on.
func (n *renewals) problems() (problems []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.cfg.Partitions {
		if at := n.tells[p]; at.err != nil {
			problems = append(problems, fmt.Sprintf("shard %d is not restored: %s", p, at.err))
		}
	}
	return problems
}
