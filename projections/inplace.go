package projections

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/remote"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
)

// Layer is a set of sorted tables that lie outside, all of one backup, in order and
// disjoint.
type Layer struct {
	Backup string       `json:"backup"`
	Tables []LayerTable `json:"tables"`
}

// LayerTable is one of them.
type LayerTable struct {
	Name  string `json:"name"`
	Size  int64  `json:"size"`
	First []byte `json:"first"` // its first key
}

// InPlace says that tables of a shard still lie outside.
type InPlace struct {
	Backup string // whose state the shard began with
	Bytes  int64  // of all tables that were outside then
	Left   int64  // of those that are still
}

// inPlaceMark is what a database remembers of its tables outside.
type inPlaceMark struct {
	Backup string  `json:"backup"`
	Bytes  int64   `json:"bytes"`
	Layers []Layer `json:"layers,omitempty"` // none: an earlier version made it, nothing is opened ahead
}

// InPlaceFile is the file in a database's directory that says so. It is there before
// the first table is referred to, and goes when all of them are here and the
// state is proved.
const InPlaceFile = "IN-PLACE"

// parallelDownloads is how many tables of a shard are fetched at a time.
const parallelDownloads = 2

// pastState comes after every key of a shard's state. What is derived from it comes
// behind: nobody proves that, so nothing of it is taken over.
var pastState = []byte{prefixDerived}

// headBatchBytes is how much of a head is written at a time.
const headBatchBytes = 4 << 20

// RestoreInPlace makes a new database at cfg.Dir of sorted tables that stay where they
// are (cfg.Outside); later layers cover earlier ones. Only what says where the logs stand is
// read and brought here, which must be what is in want. A shard that is opened on it can do everything at once,
// and needs what is outside only for what is asked of it; Hydrate brings the tables here and proves them.
// On error the directory is not to be used.
func RestoreInPlace(ctx context.Context, cfg Config, backup string, layers []Layer, want []events.LogState) (err error) {
	cfg.Models = nil // they are made of what is restored, when it is opened
	cfg.setDefaults()
	if names, err := cfg.FS.List(cfg.Dir); err == nil && len(names) > 0 {
		return events.Errorf(events.KindRefused, "state directory %s is not empty; a restore needs an empty one", cfg.Dir)
	}
	mark := inPlaceMark{Backup: backup, Layers: layers}
	for _, l := range layers {
		for _, t := range l.Tables {
			mark.Bytes += t.Size
		}
	}
	if err := mark.write(cfg.FS, cfg.Dir); err != nil {
		return fmt.Errorf("shard %d: state directory %s: %w", cfg.Partition, cfg.Dir, err)
	}
	if err := assembleInPlace(ctx, cfg, layers); err != nil {
		return fmt.Errorf("shard %d: tables cannot be taken in where they are: %w", cfg.Partition, err)
	}
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return CompareStates(cfg.Partition, want, s.Logs())
}

// assembleInPlace makes a database that has the layers' head, and refers to their tables for
// what comes behind it.
func assembleInPlace(ctx context.Context, cfg Config, layers []Layer) (err error) {
	head, err := readHead(ctx, cfg.Outside, layers)
	if err != nil {
		return err
	}
	under := &reading{}
	opts := cfg.PebbleOptions()
	readOutside(cfg.Outside, under, opts)
	db, err := pebble.Open(cfg.Dir, opts)
	if err != nil {
		return err
	}
	defer func() {
		under.end()
		err = errors.Join(err, db.Close())
	}()
	for _, l := range layers {
		files, err := l.files()
		if err == nil && len(files) > 0 {
			_, err = db.IngestExternalFiles(ctx, files)
		}
		if err != nil {
			return err
		}
	}
	return writeHead(db, head)
}

// writeHead writes what readHead has read, durably.
func writeHead(db *pebble.DB, head map[string][]byte) (err error) {
	batch := db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	for key, value := range head {
		if err := batch.Set([]byte(key), value, nil); err != nil {
			return err
		}
		if batch.Len() < headBatchBytes {
			continue
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			return err
		}
		batch.Reset()
	}
	return batch.Commit(pebble.Sync)
}

// files are the tables as Pebble wants them, without the head. Each reaches to the first key of the next: bounds may be loose.
func (l Layer) files() (files []pebble.ExternalFile, err error) {
	for i, t := range l.Tables {
		next := pastState
		if i+1 < len(l.Tables) {
			next = l.Tables[i+1].First
		}
		if bytes.Compare(t.First, next) >= 0 || bytes.Compare(next, pastState) > 0 {
			return nil, events.Errorf(events.KindInconsistent, "table %s begins with key %q, and the next one, or what is no state, with %q", t.Name, t.First, next)
		}
		if bytes.Compare(next, pastHead) > 0 {
			files = append(files, pebble.ExternalFile{
				Locator: remote.Locator(l.Backup), ObjName: t.Name, Size: uint64(t.Size), HasPointKey: true,
				StartKey: slices.MaxFunc([][]byte{t.First, pastHead}, bytes.Compare), EndKey: next,
			})
		}
	}
	return files, nil
}

// readOutside has Pebble read tables that lie outside, until that ends.
func readOutside(outside Outside, under *reading, opts *pebble.Options) {
	opts.Experimental.RemoteStorage = &outsideFactory{outside: outside, reading: under}
	opts.MaxConcurrentDownloads = func() int { return parallelDownloads }
	// Its statistics are read out of every table, one by one: thousands of requests to
	// the bucket while others wait for theirs. They help to pick compactions, which can wait.
	opts.DisableTableStats = true
	// An opening waits for the compactions that it starts, and these for the bucket if a
	// table is outside, as all layers of deltas are. So there are none before it is over.
	opts.CompactionConcurrencyRange = under.compactions
	opts.Experimental.L0CompactionConcurrency, opts.Experimental.CompactionDebtConcurrency = math.MaxInt32, math.MaxInt64
}

// openOutside prepares opts for tables that lie outside, if there are any.
func (s *Shard) openOutside(opts *pebble.Options) error {
	mark, err := readInPlace(s.cfg.FS, s.cfg.Dir)
	if err != nil || mark == nil {
		return err
	}
	s.inPlace = &InPlace{Backup: mark.Backup, Bytes: mark.Bytes}
	if s.cfg.Outside == nil {
		return events.Errorf(events.KindRefused, "a part of it is still in backup %s; configure backup.bucket as it was", mark.Backup)
	}
	s.ahead = newAhead(s.cfg.Outside, mark.Layers)
	readOutside(s.ahead, &s.reading, opts)
	return nil
}

// lookAhead makes what lies outside of some keys ready for whoever reads them next, and calls done then.
func (s *Shard) lookAhead(spans iter.Seq[keySpan]) (done func()) {
	if !s.IsInPlace() {
		return func() {}
	}
	return s.ahead.look(&s.reading, spans)
}

// InPlace says which tables of the shard still lie outside; nil: none, and its state
// is proved.
func (s *Shard) InPlace() *InPlace {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.inPlace == nil {
		return nil
	}
	at := *s.inPlace
	if _, _, left, err := s.db.EstimateDiskUsageByBackingType([]byte{0}, pastState); err == nil {
		at.Left = int64(left)
	}
	return &at
}

// IsInPlace reports whether tables of the shard still lie outside.
func (s *Shard) IsInPlace() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.inPlace != nil
}

// Hydrate brings the tables of the shard here that lie outside, and then proves the
// state by what is at rest, as Verify does; damage is of kind events.KindInconsistent, and then
// the shard is not to be used any more. Reading and applying go on meanwhile. After any
// other error it can be called again: what is here stays. It must have returned before
// Close is called.
func (s *Shard) Hydrate(ctx context.Context) error {
	return s.HydrateThen(ctx, func([]events.LogState) error { return nil })
}

// HydrateThen is Hydrate that tells the states which are proved, before it forgets that tables
// were outside: whoever notes them has noted them if all is here. An error of proved is
// returned, and then everything can be done again.
func (s *Shard) HydrateThen(ctx context.Context, proved func([]events.LogState) error) error {
	if s.InPlace() == nil {
		return nil
	}
	if err := s.db.Download(ctx, []pebble.DownloadSpan{{StartKey: []byte{0}, EndKey: pastState, ViaBackingFileDownload: true}}); err != nil {
		return s.hydrateError(err)
	}
	states, err := s.verifyWhile(ctx, 1)
	if err != nil {
		return s.hydrateError(err)
	}
	if err := proved(states); err != nil {
		return err
	}
	if err := removeInPlace(s.cfg.FS, s.cfg.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	s.inPlace = nil
	s.mu.Unlock()
	s.wakeBuilders() // which has waited for this
	return nil
}

// InPlaceError judges an error of reading or applying: nil if it does not come from
// tables that lie outside, else an error of kind events.KindNotReady if they are out of reach at present,
// or events.KindInconsistent if they are damaged or missing and the shard has to be
// restored again.
func (s *Shard) InPlaceError(err error) error {
	if s.InPlace() == nil {
		return nil
	}
	err = s.hydrateError(err)
	if kind := events.KindOf(err); kind != events.KindNotReady && kind != events.KindInconsistent {
		return nil
	}
	return err
}

// hydrateError gives an error the kind that says whether it lasts.
func (s *Shard) hydrateError(err error) error {
	var outside *OutsideError
	var drift *DriftError
	switch {
	case errors.As(err, &drift), errors.As(err, &outside) && outside.Lasts(), pebble.IsCorruptionError(err):
		return events.Errorf(events.KindInconsistent, "shard %d: %w", s.cfg.Partition, err)
	}
	return fmt.Errorf("shard %d: %w", s.cfg.Partition, err)
}

// write makes the file that says that tables lie outside, durably.
func (m inPlaceMark) write(fs vfs.FS, dir string) (err error) {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := fs.Create(fs.PathJoin(dir, InPlaceFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

// readInPlace reads what write wrote; nil if there is none.
func readInPlace(fs vfs.FS, dir string) (*inPlaceMark, error) {
	f, err := fs.Open(fs.PathJoin(dir, InPlaceFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	mark := &inPlaceMark{}
	if err := json.Unmarshal(text, mark); err != nil {
		return nil, events.Errorf(events.KindInconsistent, "file %s: %w", InPlaceFile, err)
	}
	return mark, nil
}

func removeInPlace(fs vfs.FS, dir string) error {
	if err := fs.Remove(fs.PathJoin(dir, InPlaceFile)); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
