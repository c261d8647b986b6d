// Package format says what a backup looks like in a bucket; FORMAT.md beside
// this file says it byte by byte. Decode verifies everything that can be
// verified without reading other objects.
package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
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
	ID       string                   `json:"id"`      // sorts by time, see NewID
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

// NewID names a backup that starts at the given time. Names sort by time; the
// random part keeps two backups of one millisecond apart.
func NewID(now time.Time, random [4]byte) string {
	return now.UTC().Format("20060102T150405.000Z") + "-" + hex.EncodeToString(random[:])
}

var idForm = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{8}$`)

// ValidID reports whether id has the form that NewID gives.
func ValidID(id string) bool { return idForm.MatchString(id) }

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

// ParseManifestName is the inverse of ManifestName for a known region. Any other
// name is that of somebody else's object.
func ParseManifestName(r events.Region, name string) (id string, ok bool) {
	id, inside := strings.CutPrefix(name, ManifestPrefix(r))
	id, suffixed := strings.CutSuffix(id, manifestSuffix)
	if !inside || !suffixed || !ValidID(id) {
		return "", false
	}
	return id, true
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
	text = fmt.Appendf(text, "\nsha256:%x\n", sum)
	if len(text) > MaxManifestBytes {
		return nil, events.Errorf(events.KindRefused, "manifest %s: %d bytes, nothing reads more than %d", m.ID, len(text), MaxManifestBytes)
	}
	return text, nil
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
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// Validate reports whether the manifest is well formed: everything that FORMAT.md
// says of it, as far as it can be told without the tables.
func (m *Manifest) Validate() error {
	if err := m.validate(); err != nil {
		return events.Errorf(events.KindInconsistent, "manifest %s: %w", m.ID, err)
	}
	return nil
}

func (m *Manifest) validate() error {
	switch _, offset := m.Created.Zone(); {
	case m.Format != Version:
		return fmt.Errorf("format %d, want %d", m.Format, Version)
	case !ValidID(m.ID):
		return fmt.Errorf("id %q is malformed", m.ID)
	case m.Created.IsZero() || offset != 0:
		return fmt.Errorf("created at %s, want a time in UTC", m.Created)
	case m.Merge == nil || len(m.Shards) == 0:
		return errors.New("merge rules or shards are missing")
	}
	if err := m.Region.Validate(); err != nil {
		return err
	}
	for stream, rule := range m.Merge {
		if err := stream.Validate(); err != nil || rule == "" {
			return fmt.Errorf("stream %q with merge rule %q: malformed", stream, rule)
		}
	}
	for i, s := range m.Shards {
		if int(s.Partition) != i {
			return fmt.Errorf("shard %d stands at place %d: a backup holds every shard of its region, in order", s.Partition, i)
		}
		if err := m.validateShard(s); err != nil {
			return fmt.Errorf("shard %d: %w", s.Partition, err)
		}
	}
	return nil
}

func (m *Manifest) validateShard(s Shard) error {
	if s.Lineage == "" || s.States == nil || s.Tables == nil {
		return errors.New("lineage, states or tables are missing")
	}
	for i, st := range s.States {
		if err := st.Log.Validate(); err != nil {
			return err
		}
		if st.Log.Partition != s.Partition || min(st.Next, st.Keys, st.Bytes, st.Events, st.Parked) < 0 {
			return fmt.Errorf("state of %s at %d does not belong here", st.Log, st.Next)
		}
		if i > 0 && s.States[i-1].Log.Compare(st.Log) >= 0 {
			return fmt.Errorf("state of %s stands after that of %s", st.Log, s.States[i-1].Log)
		}
	}
	for n, t := range s.Tables {
		var sum [sha256.Size]byte
		if len(t.SHA256) != hex.EncodedLen(len(sum)) || t.Size <= 0 {
			return fmt.Errorf("table %q of %d bytes: malformed", t.Name, t.Size)
		}
		_, err := hex.Decode(sum[:], []byte(t.SHA256))
		if err != nil || t.SHA256 != strings.ToLower(t.SHA256) || t.Name != m.TableName(s.Partition, n, sum) {
			return fmt.Errorf("table %q with SHA-256 %q stands at place %d: malformed", t.Name, t.SHA256, n)
		}
	}
	return nil
}
