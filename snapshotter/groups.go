package snapshotter

import (
	"bytes"
	"errors"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// SealGroups makes offsets of consumer groups, ascending by group and log, a part of a
// manifest; nil if there are none.
func SealGroups(sealer *seal.Sealer, offsets []format.GroupOffset) (*format.Groups, error) {
	if len(offsets) == 0 {
		return nil, nil
	}
	text, err := format.EncodeGroups(offsets)
	if err != nil {
		return nil, err
	}
	var stored bytes.Buffer
	w, err := sealer.Writer(&stored)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	if stored.Len() > format.MaxGroupsBytes {
		return nil, events.Errorf(events.KindRefused, "%d offsets of consumer groups take %d bytes, at most %d go with a backup; leave some out (backup.groups_exclude)", len(offsets), stored.Len(), format.MaxGroupsBytes)
	}
	return &format.Groups{Offsets: int64(len(offsets)), Keys: append([]string{}, sealer.Keys()...), Data: stored.Bytes()}, nil
}
