package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/evenkeel/evenkeel/events"
)

// Groups are the offsets that consumer groups had committed when a backup was begun, in a
// manifest. Since format 4.
type Groups struct {
	Offsets int64    `json:"offsets"` // how many
	Keys    []string `json:"keys"`    // ids of the keys any of which opens the data; none: it is as it is
	Data    []byte   `json:"data"`    // EncodeGroups, sealed as tables are
}

// MaxGroupsBytes bounds Groups.Data.
const MaxGroupsBytes = 8 << 20

// GroupOffset is the offset that a group had committed for a log.
type GroupOffset struct {
	Group    string     `json:"group"`
	Log      events.Log `json:"log"`
	Next     int64      `json:"next"`              // of the log, whatever it was in a mirror: the first record to read
	Metadata string     `json:"metadata,omitzero"` // as it was committed
}

func (o GroupOffset) compare(other GroupOffset) int {
	if by := strings.Compare(o.Group, other.Group); by != 0 {
		return by
	}
	return o.Log.Compare(other.Log)
}

// maxGroupsText bounds what Groups.Data is when it is not compressed.
const maxGroupsText = 256 << 20

// EncodeGroups writes offsets, which ascend by group and log, as lines of JSON, compressed.
func EncodeGroups(offsets []GroupOffset) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	for i, o := range offsets {
		if err := checkGroup(offsets, i); err != nil {
			return nil, err
		}
		if err := e.Encode(o); err != nil {
			return nil, err
		}
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return encoder.EncodeAll(text.Bytes(), nil), encoder.Close()
}

// DecodeGroups reads what EncodeGroups wrote. Anything else is of kind
// events.KindInconsistent.
func DecodeGroups(b []byte, count int64) ([]GroupOffset, error) {
	offsets, err := decodeGroups(b)
	if err == nil && int64(len(offsets)) != count {
		err = fmt.Errorf("there are %d", len(offsets))
	}
	if err != nil {
		return nil, events.Errorf(events.KindInconsistent, "%d offsets of consumer groups: %w", count, err)
	}
	return offsets, nil
}

func decodeGroups(b []byte) (offsets []GroupOffset, err error) {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxGroupsText))
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	text, err := decoder.DecodeAll(b, nil)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	for {
		var o GroupOffset
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return offsets, nil
		}
		if err != nil {
			return nil, err
		}
		offsets = append(offsets, o)
		if err := checkGroup(offsets, len(offsets)-1); err != nil {
			return nil, err
		}
	}
}

func checkGroup(offsets []GroupOffset, i int) error {
	o := offsets[i]
	if err := o.Log.Validate(); err != nil {
		return err
	}
	if o.Group == "" || o.Next < 0 || i > 0 && offsets[i-1].compare(o) >= 0 {
		return fmt.Errorf("group %q at %s, offset %d: malformed, or out of order", o.Group, o.Log, o.Next)
	}
	return nil
}

// validate is about what can be told without opening the data.
func (g *Groups) validate() error {
	if g.Offsets < 1 || len(g.Data) == 0 || len(g.Data) > MaxGroupsBytes || g.Keys == nil {
		return fmt.Errorf("groups: %d offsets in %d bytes: malformed", g.Offsets, len(g.Data))
	}
	return checkKeys(g.Keys)
}
