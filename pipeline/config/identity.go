package config

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// ReadIdentity reads the identities in a file.
func ReadIdentity(path string) (*seal.Opener, error) {
	text, err := readAgain(path)
	if err != nil {
		return nil, events.Errorf(events.KindInvalid, "identity: %w", err)
	}
	return seal.NewOpener("identity file "+path, string(text))
}

// GenerateIdentity makes a key, puts its identity into a new file that only its owner
// may read, and returns its recipient. A file that is there is left alone: its key may
// be the only one to some backup.
func GenerateIdentity(path string, postQuantum bool) (recipient string, err error) {
	text, recipient, err := seal.Generate(postQuantum, time.Now())
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return "", events.Errorf(events.KindRefused, "%w: a key is never overwritten; choose another name", err)
	}
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return recipient, syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
