package pipeline

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

const nodeIDMarker = "node-id"

// nodeID is the name that a node keeps as long as it keeps its data directory.
// It is made on the first start.
func nodeID(fs vfs.FS, dataDir string) (id string, err error) {
	marker, id, err := atomicfs.LocateMarker(fs, dataDir, nodeIDMarker)
	if err != nil {
		return "", fmt.Errorf("name of the node in %s: %w", dataDir, err)
	}
	defer func() { err = errors.Join(err, marker.Close()) }()
	if id != "" {
		return id, nil
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, by its contract
	id = "evenkeel-" + hex.EncodeToString(random[:])
	if err := marker.Move(id); err != nil {
		return "", fmt.Errorf("name of the node in %s: %w", dataDir, err)
	}
	return id, nil
}
