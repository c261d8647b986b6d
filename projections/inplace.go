package projections

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	Backup string
	Tables []LayerTable
}

// LayerTable is one of them.
type LayerTable struct {
	Name  string
	Size  int64
	First []byte // its first key
}

// InPlace says that tables of a shard still lie outside.
type InPlace struct {
	Backup string `json:"backup"` // whose state the shard began with
	Bytes  int64  `json:"bytes"`  // of all tables that were outside then
	Left   int64  `json:"-"`      // of those that are still
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

// RestoreInPlace makes a new database at cfg.Dir of sorted tables that stay where they
// are (cfg.Outside); later layers cover earlier ones. No table is read but those that say
// where the logs stand, which must be what is in want. A shard that is opened on it can do everything at once;
// Hydrate brings the tables here and proves them. On error the directory is not to be
// used.
func RestoreInPlace(ctx context.Context, cfg Config, backup string, layers []Layer, want []events.LogState) (err error) {
	cfg.Models = nil // they are made of what is restored, when it is opened
	cfg.setDefaults()
	if names, err := cfg.FS.List(cfg.Dir); err == nil && len(names) > 0 {
		return events.Errorf(events.KindRefused, "state directory %s is not empty; a restore needs an empty one", cfg.Dir)
	}
	mark := InPlace{Backup: backup}
	for _, l := range layers {
		for _, t := range l.Tables {
			mark.Bytes += t.Size
		}
	}
	if err := mark.write(cfg.FS, cfg.Dir); err != nil {
		return fmt.Errorf("shard %d: state directory %s: %w", cfg.Partition, cfg.Dir, err)
	}
	if err := ingestInPlace(ctx, cfg, layers); err != nil {
		return fmt.Errorf("shard %d: tables cannot be taken in where they are: %w", cfg.Partition, err)
	}
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return CompareStates(cfg.Partition, want, s.Logs())
}

// ingestInPlace makes a database that refers to the tables.
func ingestInPlace(ctx context.Context, cfg Config, layers []Layer) (err error) {
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
		if err != nil {
			return err
		}
		if len(files) == 0 {
			continue
		}
		if _, err := db.IngestExternalFiles(ctx, files); err != nil {
			return err
		}
	}
	return nil
}

// files are the tables as Pebble wants them. Each reaches to the first key of the next:
// bounds may be loose.
func (l Layer) files() ([]pebble.ExternalFile, error) {
	var files []pebble.ExternalFile
	for i, t := range l.Tables {
		end := pastState
		if i+1 < len(l.Tables) {
			end = l.Tables[i+1].First
		}
		if bytes.Compare(t.First, end) >= 0 || bytes.Compare(end, pastState) > 0 {
			return nil, events.Errorf(events.KindInconsistent, "table %s begins with key %q, and the next one, or what is no state, with %q", t.Name, t.First, end)
		}
		files = append(files, t.files(l.Backup, end)...)
	}
	return files, nil
}

// files are the parts of a table before and behind the place of the database's own
// facts, which are written soon: no compaction has to read the table for their sake.
func (t LayerTable) files(backup string, end []byte) []pebble.ExternalFile {
	part := pebble.ExternalFile{
		Locator: remote.Locator(backup), ObjName: t.Name, Size: uint64(t.Size), StartKey: t.First, EndKey: end, HasPointKey: true,
	}
	facts, pastFacts := []byte{prefixFact}, []byte{prefixFact + 1}
	if bytes.Compare(end, facts) <= 0 || bytes.Compare(t.First, pastFacts) >= 0 {
		return []pebble.ExternalFile{part}
	}
	parts := []pebble.ExternalFile{part, part}
	parts[0].EndKey, parts[1].StartKey = facts, pastFacts
	parts[0].Size = max(part.Size/2, 1) // nobody knows where it lies
	parts[1].Size = max(part.Size-parts[0].Size, 1)
	return slices.DeleteFunc(parts, func(f pebble.ExternalFile) bool { return bytes.Compare(f.StartKey, f.EndKey) >= 0 })
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

// openOutside prepares opts for tables that lie outside, if there are any. The caller calls opened once it has
// opened the database, or could not.
func (s *Shard) openOutside(opts *pebble.Options) (opened func(), err error) {
	opened = func() {}
	if s.inPlace, err = readInPlace(s.cfg.FS, s.cfg.Dir); err != nil || s.inPlace == nil {
		return opened, err
	}
	if s.cfg.Outside == nil {
		return opened, events.Errorf(events.KindRefused, "a part of it is still in backup %s; configure backup.bucket as it was", s.inPlace.Backup)
	}
	outside, opened := s.cfg.Outside.Ahead(s.inPlace.Backup, s.cfg.Partition)
	readOutside(outside, &s.reading, opts)
	return opened, nil
}

// InPlace says which tables of the shard still lie outside; nil: none, and its state
// is proved.
func (s *Shard) InPlace() *InPlace {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.inPlace == nil {
		return nil
	}
	mark := *s.inPlace
	if _, _, left, err := s.db.EstimateDiskUsageByBackingType([]byte{0}, pastState); err == nil {
		mark.Left = int64(left)
	}
	return &mark
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
	// What says where the logs stand comes first: with it the shard can be opened
	// again without the bucket.
	for _, span := range []pebble.DownloadSpan{
		{StartKey: []byte{0}, EndKey: []byte{prefixFact}, ViaBackingFileDownload: true},
		{StartKey: []byte{0}, EndKey: pastState, ViaBackingFileDownload: true},
	} {
		if err := s.db.Download(ctx, []pebble.DownloadSpan{span}); err != nil {
			return s.hydrateError(err)
		}
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
func (m InPlace) write(fs vfs.FS, dir string) (err error) {
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
func readInPlace(fs vfs.FS, dir string) (*InPlace, error) {
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
	mark := &InPlace{}
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
