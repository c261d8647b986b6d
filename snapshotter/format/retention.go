package format

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// Versions of the formats of floors, plans and pins.
const retentionVersion = 1

// Floor says that no backup with an id at or below Below is published any more. The
// floor with the highest number holds; Below never falls. It is immutable and
// never deleted.
type Floor struct {
	Format   int           `json:"format"`
	Region   events.Region `json:"region"`
	Number   int64         `json:"number"` // from 1
	Below    string        `json:"below"`  // a backup's id, of one that exists or not
	Created  time.Time     `json:"created"`
	Software string        `json:"software"`
	Owner    string        `json:"owner"` // who made it: no two write the same
}

// Plan says what becomes of the backups at or below the floor of the same number:
// those to keep and those to delete. Any other manifest there came too late and
// makes no backup exist. The plan with the highest number holds. It is immutable
// and never deleted.
type Plan struct {
	Format   int           `json:"format"`
	Region   events.Region `json:"region"`
	Number   int64         `json:"number"`
	Below    string        `json:"below"` // as in the floor
	Created  time.Time     `json:"created"`
	Software string        `json:"software"`
	Owner    string        `json:"owner"`
	Keep     []string      `json:"keep"`   // ids, ascending
	Delete   []string      `json:"delete"` // ids, ascending
}

// Pin keeps a backup from being deleted until its deadline, or until it is removed.
type Pin struct {
	Format   int           `json:"format"`
	Region   events.Region `json:"region"`
	Backup   string        `json:"backup"` // id
	Owner    string        `json:"owner"`  // who reads the backup, for people
	Created  time.Time     `json:"created"`
	Deadline time.Time     `json:"deadline"`
}

// FloorPrefix is where a region's floors are.
func FloorPrefix(r events.Region) string { return string(r) + "/floors/" }

// PlanPrefix is where a region's plans are.
func PlanPrefix(r events.Region) string { return string(r) + "/plans/" }

// PinPrefix is where a region's pins are.
func PinPrefix(r events.Region) string { return string(r) + "/pins/" }

// FloorName names a floor.
func FloorName(r events.Region, number int64) string {
	return fmt.Sprintf("%s%010d.floor", FloorPrefix(r), number)
}

// PlanName names a plan.
func PlanName(r events.Region, number int64) string {
	return fmt.Sprintf("%s%010d.plan", PlanPrefix(r), number)
}

// PinName names a pin of a backup; unique is what no other pin has, of 16
// hexadecimal digits.
func PinName(r events.Region, id, unique string) string {
	return PinPrefix(r) + id + "/" + unique + ".pin"
}

const (
	numberForm = "0000000000"
	uniqueForm = "ffffffffffffffff.pin"
)

// ParseFloorName is the inverse of FloorName for a known region.
func ParseFloorName(r events.Region, name string) (number int64, ok bool) {
	return parseNumber(name, FloorPrefix(r), ".floor")
}

// ParsePlanName is the inverse of PlanName for a known region.
func ParsePlanName(r events.Region, name string) (number int64, ok bool) {
	return parseNumber(name, PlanPrefix(r), ".plan")
}

func parseNumber(name, prefix, suffix string) (number int64, ok bool) {
	text, inside := strings.CutPrefix(name, prefix)
	text, suffixed := strings.CutSuffix(text, suffix)
	if !inside || !suffixed || !hasForm(text, numberForm) {
		return 0, false
	}
	_, err := fmt.Sscanf(text, "%d", &number)
	return number, err == nil && number > 0
}

// ParsePinName tells which backup of a region a pin is for.
func ParsePinName(r events.Region, name string) (id string, ok bool) {
	rest, inside := strings.CutPrefix(name, PinPrefix(r))
	id, rest, _ = strings.Cut(rest, "/")
	return id, inside && ValidID(id) && hasForm(rest, uniqueForm)
}

// Encode writes the floor as Manifest.Encode does a manifest.
func (f *Floor) Encode() ([]byte, error) { return encode(f) }

// DecodeFloor reads and verifies what Floor.Encode wrote.
func DecodeFloor(b []byte) (*Floor, error) { return decode[Floor]("floor", retentionVersion, b) }

func (f *Floor) version() int { return f.Format }

func (f *Floor) title() string { return fmt.Sprintf("floor %d", f.Number) }

func (f *Floor) validate() error {
	if err := f.Region.Validate(); err != nil {
		return err
	}
	if f.Format != retentionVersion || f.Number < 1 || !ValidID(f.Below) || f.Owner == "" {
		return errors.New("format, number, id or owner is malformed")
	}
	return nil
}

// Encode writes the plan as Manifest.Encode does a manifest.
func (p *Plan) Encode() ([]byte, error) { return encode(p) }

// DecodePlan reads and verifies what Plan.Encode wrote.
func DecodePlan(b []byte) (*Plan, error) { return decode[Plan]("plan", retentionVersion, b) }

func (p *Plan) version() int { return p.Format }

func (p *Plan) title() string { return fmt.Sprintf("plan %d", p.Number) }

func (p *Plan) validate() error {
	floor := Floor{Format: p.Format, Region: p.Region, Number: p.Number, Below: p.Below, Owner: p.Owner}
	if err := floor.validate(); err != nil {
		return err
	}
	for _, ids := range [][]string{p.Keep, p.Delete} {
		if ids == nil {
			return errors.New("keep or delete is missing")
		}
		for i, id := range ids {
			if !ValidID(id) || id > p.Below || i > 0 && id <= ids[i-1] {
				return fmt.Errorf("backup %q does not belong at place %d", id, i)
			}
		}
	}
	for _, id := range p.Delete {
		if _, both := slices.BinarySearch(p.Keep, id); both {
			return fmt.Errorf("backup %s is to be kept and to be deleted", id)
		}
	}
	return nil
}

// Exists says whether a manifest with this id makes a backup exist, as far as the
// plan can tell; no plan: it does.
func (p *Plan) Exists(id string) bool {
	if p == nil || id > p.Below {
		return true
	}
	_, keep := slices.BinarySearch(p.Keep, id)
	return keep
}

// Has is Exists for a manifest: a delta of which a parent does not exist makes no
// backup exist either.
func (p *Plan) Has(m *Manifest) bool {
	return !slices.ContainsFunc(m.Path(), func(id string) bool { return !p.Exists(id) })
}

// Encode writes the pin as Manifest.Encode does a manifest.
func (p *Pin) Encode() ([]byte, error) { return encode(p) }

// DecodePin reads and verifies what Pin.Encode wrote.
func DecodePin(b []byte) (*Pin, error) { return decode[Pin]("pin", retentionVersion, b) }

func (p *Pin) version() int { return p.Format }

func (p *Pin) title() string { return "pin" }

func (p *Pin) validate() error {
	if err := p.Region.Validate(); err != nil {
		return err
	}
	if p.Format != retentionVersion || !ValidID(p.Backup) || p.Owner == "" || !p.Deadline.After(p.Created) {
		return errors.New("format, backup, owner or deadline is malformed")
	}
	return nil
}
