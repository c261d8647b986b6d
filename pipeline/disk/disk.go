// Package disk keeps small files and directories that are there whole, or not at all,
// whenever the machine dies.
package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
)

// MakeDirs makes a directory and those above it that are missing, durably.
func MakeDirs(fs vfs.FS, dir string) error {
	parent := filepath.Dir(dir)
	if _, err := fs.Stat(dir); err == nil || parent == dir {
		return err
	}
	if err := MakeDirs(fs, parent); err != nil {
		return err
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return SyncDir(fs, parent)
}

// SyncDir makes the names in a directory last.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock keeps a second process off a node's data directory.
func Lock(fs vfs.FS, dataDir string) (io.Closer, error) {
	lock, err := fs.Lock(filepath.Join(dataDir, "lock"))
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		err = events.Errorf(events.KindRefused, "%w: it is in use by another process", err)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dataDir, err)
	}
	return lock, nil
}

// ReadNote reads what WriteNote wrote; there is false if nothing was.
func ReadNote(fs vfs.FS, path string, note any) (there bool, err error) {
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, note); err != nil {
		return false, events.Errorf(events.KindInconsistent, "%s: %w", path, err)
	}
	return true, nil
}

// WriteNote writes a value as JSON, as WriteFile does.
func WriteNote(fs vfs.FS, path string, note any) error {
	text, err := json.MarshalIndent(note, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(fs, path, append(text, '\n'))
}

// WriteFile writes a small file: it is there, whole and on disk, or the one before it is.
func WriteFile(fs vfs.FS, path string, text []byte) error {
	fresh := path + ".new"
	f, err := fs.Create(fresh, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, (&SyncedFile{File: f}).Close()); err != nil {
		return err
	}
	if err := fs.Rename(fresh, path); err != nil {
		return err
	}
	return SyncDir(fs, filepath.Dir(path))
}

// SyncedFile is on disk once it is closed.
type SyncedFile struct {
	vfs.File
	scratch []byte
}

// Write keeps the promise of io.Writer to leave p as it is: a vfs.File may change
// it.
func (f *SyncedFile) Write(p []byte) (int, error) {
	f.scratch = append(f.scratch[:0], p...)
	return f.File.Write(f.scratch)
}

// Close writes it to the disk, and closes it.
func (f *SyncedFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

// Replace moves a directory to a place where nothing is that is still wanted.
func Replace(fs vfs.FS, from, to string) error {
	if err := fs.RemoveAll(to); err != nil {
		return err
	}
	if err := fs.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(fs, filepath.Dir(to))
}

// Exists tells whether there is something at a path.
func Exists(fs vfs.FS, path string) bool {
	_, err := fs.Stat(path)
	return err == nil
}

// Move moves a directory to where none is.
func Move(fs vfs.FS, from, to string) error {
	if err := MakeDirs(fs, filepath.Dir(to)); err != nil {
		return err
	}
	if err := fs.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(SyncDir(fs, filepath.Dir(to)), SyncDir(fs, filepath.Dir(from)))
}
