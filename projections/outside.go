package projections

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/objstorage/remote"

	"github.com/evenkeel/evenkeel/events"
)

// Outside is where sorted tables lie that a shard reads in place, see RestoreInPlace.
// It is called from many goroutines.
type Outside interface {
	// OpenTable opens a table of a backup. Errors of it and of the table name
	// the object. Those of kind events.KindInconsistent say that it is damaged or
	// missing, and that trying again will not help.
	OpenTable(ctx context.Context, backup, name string, read Reading) (OutsideTable, error)
}

// Reading says what will be read of a table, which may be fetched together then.
type Reading int

// What is read of a table.
const (
	ReadAnywhere Reading = iota // by Pebble
	ReadStart                   // its first keys
)

// OutsideTable is a sorted table that is read at any place.
type OutsideTable interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, offset int64) error // all of p, or an error
	Close() error
}

// OutsideError says that a table that lies outside could not be read. Its kind is
// events.KindInconsistent if the table is damaged or missing, and else
// events.KindNotReady.
type OutsideError struct {
	Err error
}

func (e *OutsideError) Error() string { return "state that is still in its backup: " + e.Err.Error() }
func (e *OutsideError) Unwrap() error { return e.Err }

// Lasts reports whether the table is damaged or missing, as opposed to out of reach.
func (e *OutsideError) Lasts() bool { return events.KindOf(e.Err) == events.KindInconsistent }

func outsideError(err error) error {
	if events.KindOf(err) != events.KindInconsistent {
		err = events.Errorf(events.KindNotReady, "%w", err)
	}
	return &OutsideError{Err: err}
}

// reading are the readings of tables that lie outside which are under way. Pebble's
// background work reads under no context that ends, so there has to be an end to all.
type reading struct {
	mu      sync.Mutex
	ended   bool
	cancels map[int]context.CancelFunc
	last    int

	opened atomic.Bool // the database is
}

// compactions is how many compactions run at least and at most, in a database of which
// tables lie outside.
func (r *reading) compactions() (least, most int) {
	if r.opened.Load() {
		return 1, 1
	}
	return 0, 1 // with nothing that raises it above the least
}

// begin is the context of a reading; the caller calls done once it is over.
func (r *reading) begin(ctx context.Context) (while context.Context, done func()) {
	while, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		cancel()
		return while, cancel
	}
	if r.cancels == nil {
		r.cancels = map[int]context.CancelFunc{}
	}
	r.last++
	number := r.last
	r.cancels[number] = cancel
	return while, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.cancels, number)
		cancel()
	}
}

// end breaks off all readings; nothing is read any more.
func (r *reading) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for _, cancel := range r.cancels {
		cancel()
	}
}

// outsideStorage lets Pebble read the tables of a backup.
type outsideStorage struct {
	outside Outside
	backup  string
	reading *reading
}

var (
	_ remote.Storage        = (*outsideStorage)(nil)
	_ remote.StorageFactory = (*outsideFactory)(nil)
	_ remote.ObjectReader   = outsideReader{}
)

// outsideFactory makes storages; what Pebble calls locator is the id of a backup.
type outsideFactory struct {
	outside Outside
	reading *reading
}

// CreateStorage implements remote.StorageFactory.
func (f *outsideFactory) CreateStorage(locator remote.Locator) (remote.Storage, error) {
	return &outsideStorage{outside: f.outside, backup: string(locator), reading: f.reading}, nil
}

// ReadObject implements remote.Storage.
func (s *outsideStorage) ReadObject(ctx context.Context, name string) (remote.ObjectReader, int64, error) {
	ctx, done := s.reading.begin(ctx)
	defer done()
	table, err := s.outside.OpenTable(ctx, s.backup, name, ReadAnywhere)
	if err != nil {
		return nil, 0, outsideError(err)
	}
	return outsideReader{table: table, reading: s.reading}, table.Size(), nil
}

// Size implements remote.Storage. Pebble asks for it only of tables that it does not need
// any more, to add them up, and holds its locks meanwhile: so nobody is asked.
func (s *outsideStorage) Size(string) (int64, error) { return 0, nil }

var errReadOnly = errors.New("tables that lie outside are only read")

// CreateObject implements remote.Storage. Nothing is written there.
func (s *outsideStorage) CreateObject(string) (io.WriteCloser, error) { return nil, errReadOnly }

// List implements remote.Storage. Nothing is looked for there.
func (s *outsideStorage) List(string, string) ([]string, error) { return nil, errReadOnly }

// Delete implements remote.Storage. Nothing is deleted there.
func (s *outsideStorage) Delete(string) error { return errReadOnly }

// IsNotExistError implements remote.Storage. That a table is missing is for Outside to
// say.
func (s *outsideStorage) IsNotExistError(error) bool { return false }

// Close implements remote.Storage.
func (s *outsideStorage) Close() error { return nil }

// outsideReader lets Pebble read one table.
type outsideReader struct {
	table   OutsideTable
	reading *reading
}

// ReadAt implements remote.ObjectReader.
func (r outsideReader) ReadAt(ctx context.Context, p []byte, offset int64) error {
	ctx, done := r.reading.begin(ctx)
	defer done()
	if err := r.table.ReadAt(ctx, p, offset); err != nil {
		return outsideError(err)
	}
	return nil
}

// Close implements remote.ObjectReader.
func (r outsideReader) Close() error { return r.table.Close() }
