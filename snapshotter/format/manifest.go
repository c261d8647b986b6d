// Package format says what a backup looks like in a bucket; FORMAT.md beside
// this file says it byte by byte. Decode verifies everything that can be
// verified without reading other objects.
package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// Version of the format that this package writes. It reads this one and all
// before it.
const Version = 1

// MaxManifestBytes bounds what is read as a manifest.
const MaxManifestBytes = 64 << 20

// Manifest makes a backup exist. It is immutable.
type Manifest struct {
	Format   int                      `json:"format"`
	ID       string                   `json:"id"`      // sorts by time
	Region   events.Region            `json:"region"`  // whose state it is
	Created  time.Time                `json:"created"` // UTC
	Software string                   `json:"software"`
	Merge    map[events.Stream]string `json:"merge"`  // the rule of each stream
	Shards   []Shard                  `json:"shards"` // ascending by partition
}

// Shard is one shard of the backup, at its own vector.
type Shard struct {
	Partition int32             `json:"partition"`
	Lineage   string            `json:"lineage"` // of the state that was copied
	States    []events.LogState `json:"states"`  // what a restore must come to
	Tables    []Table           `json:"tables"`  // in order, disjoint
}

// Table is one object with a sorted table in Pebble's format.
type Table struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Bytes is the size of all tables together.
func (m *Manifest) Bytes() (n int64) {
	for _, s := range m.Shards {
		for _, t := range s.Tables {
			n += t.Size
		}
	}
	return n
}

// States is the state of every log in the backup.
func (m *Manifest) States() (states []events.LogState) {
	for _, s := range m.Shards {
		states = append(states, s.States...)
	}
	return states
}

// TableName names the nth table of a shard. The backup's id is in it, so it is
// never used again.
func (m *Manifest) TableName(partition int32, n int, sum [sha256.Size]byte) string {
	return fmt.Sprintf("%s/tables/%s/shard-%04d/%06d-%x.sst", m.Region, m.ID, partition, n, sum[:8])
}

// ManifestPrefix is where a region's manifests are.
func ManifestPrefix(r events.Region) string { return string(r) + "/manifests/" }

const manifestSuffix = ".manifest"

// ManifestName names the manifest of a backup.
func ManifestName(r events.Region, id string) string {
	return ManifestPrefix(r) + id + manifestSuffix
}

// ParseManifestName is the inverse of ManifestName for a known region.
func ParseManifestName(r events.Region, name string) (id string, ok bool) {
	id, ok = strings.CutPrefix(name, ManifestPrefix(r))
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, manifestSuffix)
	return id, ok && id != "" && !strings.Contains(id, "/")
}

// Encode writes the manifest as one line of JSON and a line with the SHA-256 of
// the first.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	return fmt.Appendf(text, "\nsha256:%x\n", sum), nil
}

// Decode reads and verifies what Encode wrote.
func Decode(b []byte) (*Manifest, error) {
	text, rest, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(text)
	if string(rest) != fmt.Sprintf("sha256:%x\n", sum) {
		return nil, events.Errorf(events.KindInconsistent, "manifest is damaged: its hash does not fit")
	}
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return nil, events.Errorf(events.KindInconsistent, "manifest is no JSON: %w", err)
	}
	if version.Format < 1 || version.Format > Version {
		return nil, events.Errorf(events.KindRefused, "manifest has format %d; this program reads 1 to %d; use a newer one", version.Format, Version)
	}
	m := &Manifest{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, events.Errorf(events.KindInconsistent, "manifest: %w", err)
	}
	return m, m.Validate()
}

// Validate reports whether the manifest is well formed.
func (m *Manifest) Validate() error {
	if err := m.Region.Validate(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if m.Format != Version || m.ID == "" || strings.ContainsAny(m.ID, "/ ") || len(m.Shards) == 0 {
		return events.Errorf(events.KindInconsistent, "manifest %q of format %d with %d shards: want an id, format %d and shards", m.ID, m.Format, len(m.Shards), Version)
	}
	for i, s := range m.Shards {
		if int(s.Partition) != i {
			return events.Errorf(events.KindInconsistent, "manifest %s: shard %d stands at place %d: a backup holds every shard of its region, in order", m.ID, s.Partition, i)
		}
		if err := s.validate(); err != nil {
			return events.Errorf(events.KindInconsistent, "manifest %s: shard %d: %w", m.ID, s.Partition, err)
		}
	}
	return nil
}

func (s Shard) validate() error {
	if s.Lineage == "" {
		return fmt.Errorf("no lineage")
	}
	for _, st := range s.States {
		if err := st.Log.Validate(); err != nil {
			return err
		}
		if st.Log.Partition != s.Partition || st.Next < 0 {
			return fmt.Errorf("state of %s at %d does not belong here", st.Log, st.Next)
		}
	}
	for _, t := range s.Tables {
		if sum, err := hex.DecodeString(t.SHA256); err != nil || len(sum) != sha256.Size || t.Name == "" || t.Size <= 0 {
			return fmt.Errorf("table %q of %d bytes: malformed", t.Name, t.Size)
		}
	}
	return nil
}
