package pipeline

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
)

const clockMarker = "clock"

// nodeClock is the clock of what is written through the node. Its bound is in the
// data directory, beside the node's name.
type nodeClock struct {
	*events.DurableClock
	marker *atomicfs.Marker
	dir    string
}

func openClock(fs vfs.FS, dataDir string, skew time.Duration) (*nodeClock, error) {
	marker, text, err := atomicfs.LocateMarker(fs, dataDir, clockMarker)
	if err != nil {
		return nil, fmt.Errorf("clock of the node in %s: %w", dataDir, err)
	}
	bound := uint64(0)
	if text != "" {
		if bound, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, errors.Join(fmt.Errorf("clock of the node in %s: %w", dataDir, err), marker.Close())
		}
	}
	keep := func(bound events.HLC) error {
		if err := marker.Move(strconv.FormatUint(uint64(bound), 10)); err != nil {
			return fmt.Errorf("clock of the node in %s: %w", dataDir, err)
		}
		return nil
	}
	return &nodeClock{events.NewDurableClock(events.HLC(bound), skew, keep), marker, dataDir}, nil
}

// clockLimit is the largest reading that nodes follow at present.
func clockLimit(cfg *config.Config) events.HLC {
	return events.HLCFromMillis(time.Now().UnixMilli() + cfg.Limits.MaxClockSkew.Milliseconds())
}

// now is a reading and the physical time it was taken at. It is refused as long
// as it is so far ahead that folds would park its event.
func (c *nodeClock) now() (events.HLC, time.Time, error) {
	h, err := c.Now()
	if err != nil {
		return 0, time.Time{}, events.Errorf(events.KindNotReady, "nothing is written: %w", err)
	}
	now := time.Now()
	if h.IsAheadOf(now, events.MaxFoldSkew) {
		return 0, time.Time{}, events.Errorf(events.KindNotReady, "nothing is written: this node's clock says %s, but it has stamped events with %s before; "+
			"set it right, or wait until it is there; or stop the node and delete marker.%s.* in %s, then later writes in other regions may win against newer ones here",
			now.UTC().Format(time.RFC3339), h.Time().Format(time.RFC3339), clockMarker, c.dir)
	}
	return h, now, nil
}

// close lets the next start go on close to physical time.
func (c *nodeClock) close() error { return errors.Join(c.Settle(), c.marker.Close()) }
