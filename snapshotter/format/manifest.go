// Package format says what a backup looks like in a bucket; FORMAT.md beside
// this file says it byte by byte. Decode verifies everything that can be
// verified without reading other objects.
package format

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// Version of the format that this package writes. It reads this one and all
// before it.
const Version = 4

// Kinds of backups.
const (
	Full  = "full"  // holds all slices
	Delta = "delta" // holds what has changed since another; since format 3
)

// MaxParents bounds how many backups another builds on.
const MaxParents = 1000

// MaxManifestBytes bounds what is read as a manifest.
const MaxManifestBytes = 64 << 20

// Manifest makes a backup exist. It is immutable.
type Manifest struct {
	Format   int                      `json:"format"`
	ID       string                   `json:"id"`               // sorts by time, see NewID
	Kind     string                   `json:"kind,omitzero"`    // since format 2
	Parents  []string                 `json:"parents,omitzero"` // of a delta: the full first, last the one whose state its tables change
	Region   events.Region            `json:"region"`           // whose state it is
	Created  time.Time                `json:"created"`          // UTC
	Software string                   `json:"software"`
	Merge    map[events.Stream]string `json:"merge"`           // the rule of each stream
	Shards   []Shard                  `json:"shards"`          // ascending by partition
	Groups   *Groups                  `json:"groups,omitzero"` // nil: none were there, or asked for; since format 4
}

// Shard is one shard of the backup, at its own vector.
type Shard struct {
	Partition int32             `json:"partition"`
	Lineage   string            `json:"lineage"`        // of the state that was copied
	Epoch     events.Epoch      `json:"epoch,omitzero"` // under which it was copied; since format 2
	States    []events.LogState `json:"states"`         // what a restore must come to
	Tables    []Table           `json:"tables"`         // in order, disjoint

	// Firsts are the first keys of the tables (EncodeFirsts), sealed as the first table
	// is; none: they stand in the tables only. Since format 3.
	Firsts []byte `json:"firsts,omitzero"`
}

// Table is one object with a sorted table in Pebble's format, sealed or as it is.
type Table struct {
	Name   string `json:"name"`   // of the object
	Size   int64  `json:"size"`   // of the table, in bytes
	SHA256 string `json:"sha256"` // of the table

	// Since format 2: what the object holds, and the ids of the keys any of which
	// opens it; none: it is the table as it is. See Stored.
	StoredSize   int64    `json:"stored_size,omitzero"`
	StoredSHA256 string   `json:"stored_sha256,omitzero"`
	Keys         []string `json:"keys,omitzero"`
}

// Stored is the size and the SHA-256 of the object, whatever the format.
func (t Table) Stored() (size int64, sum string) {
	if t.StoredSHA256 == "" {
		return t.Size, t.SHA256
	}
	return t.StoredSize, t.StoredSHA256
}

// NewID names a backup that starts at the given time. Names sort by time; the
// random part keeps two backups of one millisecond apart.
func NewID(now time.Time, random [4]byte) string {
	return now.UTC().Format(idStamp) + "-" + hex.EncodeToString(random[:])
}

const idStamp = "20060102T150405.000Z"

// IDTime is when the backup with a valid id began, by the clock of who made it.
func IDTime(id string) (time.Time, error) {
	if !ValidID(id) {
		return time.Time{}, fmt.Errorf("id %q is malformed", id)
	}
	return time.Parse(idStamp, id[:len(idStamp)])
}

const idForm = "00000000T000000.000Z-ffffffff"

// ValidID reports whether id has the form that NewID gives.
func ValidID(id string) bool { return hasForm(id, idForm) }

// hasForm reports whether a text has a form, in which 0 stands for any decimal digit, f for any hexadecimal one in
// lower case, and all else for itself. Listings of thousands of names are read with it, for which regular expressions
// are too slow.
func hasForm(text, form string) bool {
	if len(text) != len(form) {
		return false
	}
	for i := range len(form) {
		digit := text[i] >= '0' && text[i] <= '9'
		switch form[i] {
		case '0':
			if !digit {
				return false
			}
		case 'f':
			if !digit && (text[i] < 'a' || text[i] > 'f') {
				return false
			}
		default:
			if text[i] != form[i] {
				return false
			}
		}
	}
	return true
}

// Parent is the id of the backup whose state a delta's tables change; empty if it is a
// full.
func (m *Manifest) Parent() string {
	if len(m.Parents) == 0 {
		return ""
	}
	return m.Parents[len(m.Parents)-1]
}

// Path are the ids of the backups that together make the state, the full first and
// this one last.
func (m *Manifest) Path() []string { return append(slices.Clone(m.Parents), m.ID) }

// Tables yields the tables of all shards, in order.
func (m *Manifest) Tables() iter.Seq[Table] {
	return func(yield func(Table) bool) {
		for _, s := range m.Shards {
			for _, t := range s.Tables {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// Bytes is the size of all tables together.
func (m *Manifest) Bytes() (n int64) {
	for t := range m.Tables() {
		n += t.Size
	}
	return n
}

// StoredBytes is the size of all objects with tables together.
func (m *Manifest) StoredBytes() (n int64) {
	for t := range m.Tables() {
		size, _ := t.Stored()
		n += size
	}
	return n
}

// Keys are the ids of all keys that tables are sealed for, sorted. None: nothing
// is sealed.
func (m *Manifest) Keys() []string {
	ids := map[string]bool{}
	for t := range m.Tables() {
		for _, k := range t.Keys {
			ids[k] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// States is the state of every log in the backup.
func (m *Manifest) States() (states []events.LogState) {
	for _, s := range m.Shards {
		states = append(states, s.States...)
	}
	return states
}

// TableName names the nth table of a shard by the SHA-256 of what the object
// holds. The backup's id is in it, so it is never used again.
func (m *Manifest) TableName(partition int32, n int, stored [sha256.Size]byte, sealed bool) string {
	name := fmt.Sprintf("%s%s/shard-%04d/%06d-%x.sst", TablePrefix(m.Region), m.ID, partition, n, stored[:8])
	if sealed {
		name += sealedSuffix
	}
	return name
}

const sealedSuffix = ".age"

// TablePrefix is where the tables of a region's backups are.
func TablePrefix(r events.Region) string { return string(r) + "/tables/" }

// ParseTableName tells which backup of a region an object with a table belongs
// to. Any name that TableName does not give is that of somebody else's object.
func ParseTableName(r events.Region, name string) (id string, ok bool) {
	rest, inside := strings.CutPrefix(name, TablePrefix(r))
	id, rest, _ = strings.Cut(rest, "/")
	if !inside || !ValidID(id) || !tableForm.MatchString(rest) {
		return "", false
	}
	return id, true
}

// IsTable says whether an object is one with a table, by its name.
func IsTable(name string) bool {
	region, _, _ := strings.Cut(name, "/")
	_, ok := ParseTableName(events.Region(region), name)
	return ok
}

var tableForm = regexp.MustCompile(`^shard-[0-9]{4,}/[0-9]{6,}-[0-9a-f]{16}\.sst(\.age)?$`)

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
	text, err := encodeLine(m)
	if err == nil && len(text) > MaxManifestBytes {
		return nil, events.Errorf(events.KindRefused, "manifest %s: %d bytes, nothing reads more than %d", m.ID, len(text), MaxManifestBytes)
	}
	return text, err
}

// Decode reads and verifies what Encode wrote.
func Decode(b []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := decodeLine("manifest", Version, b, m); err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manifest) version() int { return m.Format }

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
	case m.Format < 1 || m.Format > Version:
		return fmt.Errorf("format %d, want 1 to %d", m.Format, Version)
	case m.Format == 1 && m.Kind != "", m.Format > 1 && m.Kind != Full && (m.Format == 2 || m.Kind != Delta):
		return fmt.Errorf("kind %q is unknown in format %d", m.Kind, m.Format)
	case m.Kind != Delta && m.Parents != nil, m.Kind == Delta && (len(m.Parents) == 0 || len(m.Parents) > MaxParents):
		return fmt.Errorf("kind %q with %d parents: a delta has 1 to %d, nothing else has any", m.Kind, len(m.Parents), MaxParents)
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
	for i, id := range m.Parents {
		if !ValidID(id) || id >= m.ID || i > 0 && id <= m.Parents[i-1] {
			return fmt.Errorf("parent %q does not belong at place %d", id, i)
		}
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
	return m.validateGroups()
}

func (m *Manifest) validateGroups() error {
	switch {
	case m.Groups == nil:
		return nil
	case m.Format < 4:
		return fmt.Errorf("groups: unknown in format %d", m.Format)
	}
	return m.Groups.validate()
}

func (m *Manifest) validateShard(s Shard) error {
	if s.Lineage == "" || s.States == nil || s.Tables == nil {
		return errors.New("lineage, states or tables are missing")
	}
	if m.Format == 1 && s.Epoch != 0 {
		return errors.New("epoch: unknown in format 1")
	}
	if m.Format < 3 && s.Firsts != nil {
		return fmt.Errorf("firsts: unknown in format %d", m.Format)
	}
	if s.Firsts != nil && (len(s.Firsts) == 0 || len(s.Tables) == 0) {
		return errors.New("firsts: empty, or those of no table")
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
		if err := m.validateTable(s.Partition, n, t); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) validateTable(partition int32, n int, t Table) error {
	if m.Format == 1 && (t.StoredSize != 0 || t.StoredSHA256 != "" || t.Keys != nil) {
		return fmt.Errorf("table %q: stored size, hash and keys are unknown in format 1", t.Name)
	}
	if m.Format > 1 && (t.StoredSHA256 == "" || t.Keys == nil) {
		return fmt.Errorf("table %q: stored hash or keys are missing: malformed", t.Name)
	}
	size, stored := t.Stored()
	sum, ok := parseSum(stored)
	if _, plain := parseSum(t.SHA256); !plain || !ok || t.Size <= 0 || size <= 0 {
		return fmt.Errorf("table %q of %d bytes: malformed", t.Name, t.Size)
	}
	if len(t.Keys) == 0 && (size != t.Size || stored != t.SHA256) {
		return fmt.Errorf("table %q is not sealed, and yet stored with other bytes: malformed", t.Name)
	}
	if err := checkKeys(t.Keys); err != nil {
		return fmt.Errorf("table %q: %w", t.Name, err)
	}
	if t.Name != m.TableName(partition, n, sum, len(t.Keys) > 0) {
		return fmt.Errorf("table %q with SHA-256 %q stands at place %d: malformed", t.Name, stored, n)
	}
	return nil
}

func checkKeys(keys []string) error {
	for i, k := range keys {
		if !hasForm(k, keyForm) || slices.Contains(keys[:i], k) {
			return fmt.Errorf("key id %q: malformed", k)
		}
	}
	return nil
}

const keyForm = "ffffffffffffffff"

// parseSum reads a SHA-256 in lower-case hexadecimal digits.
func parseSum(text string) (sum [sha256.Size]byte, ok bool) {
	if len(text) != hex.EncodedLen(len(sum)) || text != strings.ToLower(text) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(text))
	return sum, err == nil
}
