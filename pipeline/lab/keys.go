package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/evenkeel/evenkeel/pipeline/config"
)

// keys are those of a lab's backups, which all of its regions share.
type keys struct {
	operating  string // file with the identity that nodes have
	recipients []string
}

// loadKeys reads the keys in a directory, and makes those that are missing.
func loadKeys(dir string) (keys, error) {
	k := keys{operating: filepath.Join(dir, "operating.key")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return k, fmt.Errorf("keys of the lab: %w", err)
	}
	for _, path := range []string{k.operating, filepath.Join(dir, "recovery.key")} {
		recipient, err := config.GenerateIdentity(path, false)
		if errors.Is(err, fs.ErrExist) {
			opener, err := config.ReadIdentity(path)
			if err != nil {
				return k, fmt.Errorf("keys of the lab: %w", err)
			}
			recipient = opener.Recipients()[0]
		} else if err != nil {
			return k, fmt.Errorf("keys of the lab: %w", err)
		}
		k.recipients = append(k.recipients, recipient)
	}
	return k, nil
}
