package format

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// DrillVersion is the format of the drills that are written. Those of format 1 say nothing of
// attestations.
const DrillVersion = 2

// Drill is the report of a restore drill: backups that were restored to a scratch
// place, proved, and thrown away. It is immutable.
type Drill struct {
	Format   int           `json:"format"`
	Region   events.Region `json:"region"`
	ID       string        `json:"id"`      // as that of a backup; sorts by time
	Created  time.Time     `json:"created"` // when it began, UTC
	Software string        `json:"software"`
	Owner    string        `json:"owner"`  // who drilled, for people
	Trials   []Trial       `json:"trials"` // at least one
}

// Trial is one restore of a drill.
type Trial struct {
	Aim         string            `json:"aim"`             // what was to be restored: "newest", "backup ID" or "time T", by which it is restored again if it failed
	Backup      string            `json:"backup,omitzero"` // id, of the one that it began with; empty: with none
	StateTime   time.Time         `json:"state_time"`      // when the restored state was that of the region, UTC; zero: unknown
	Bytes       int64             `json:"bytes"`           // fetched
	TookSeconds float64           `json:"took_seconds"`
	States      []events.LogState `json:"states"`            // proved; none if it failed
	Attested    string            `json:"attested,omitzero"` // how they compare with what other regions have attested, for people
	Error       string            `json:"error,omitzero"`    // why it failed; empty: it is proved
}

// Proved is when the newest state that the drill has proved was that of the region;
// zero: it has proved none.
func (d *Drill) Proved() (at time.Time) {
	for _, t := range d.Trials {
		if t.Error == "" && t.StateTime.After(at) {
			at = t.StateTime
		}
	}
	return at
}

// Err is of kind events.KindInconsistent if any trial failed.
func (d *Drill) Err() error {
	var failed []string
	for _, t := range d.Trials {
		if t.Error != "" {
			failed = append(failed, fmt.Sprintf("%s: %s", strings.TrimSpace(t.Aim+" "+t.Backup), t.Error))
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return events.Errorf(events.KindInconsistent, "restore drill: %d of %d restores failed: %s", len(failed), len(d.Trials), strings.Join(failed, "; "))
}

// DrillPrefix is where a region's drills are.
func DrillPrefix(r events.Region) string { return string(r) + "/drills/" }

const drillSuffix = ".drill"

// DrillName names a drill.
func DrillName(r events.Region, id string) string { return DrillPrefix(r) + id + drillSuffix }

// ParseDrillName is the inverse of DrillName for a known region.
func ParseDrillName(r events.Region, name string) (id string, ok bool) {
	id, inside := strings.CutPrefix(name, DrillPrefix(r))
	id, suffixed := strings.CutSuffix(id, drillSuffix)
	return id, inside && suffixed && ValidID(id)
}

// Encode writes the drill as Manifest.Encode does a manifest.
func (d *Drill) Encode() ([]byte, error) { return encode(d) }

// DecodeDrill reads and verifies what Drill.Encode wrote.
func DecodeDrill(b []byte) (*Drill, error) { return decode[Drill]("drill", DrillVersion, b) }

func (d *Drill) title() string { return "drill " + d.ID }

var aimForm = regexp.MustCompile(`^[ -~]{1,200}$`)

func (d *Drill) validate() error {
	if err := d.Region.Validate(); err != nil {
		return err
	}
	if _, offset := d.Created.Zone(); d.Format < 1 || d.Format > DrillVersion || !ValidID(d.ID) || d.Created.IsZero() || offset != 0 || d.Owner == "" || len(d.Trials) == 0 {
		return errors.New("format, id, time, owner or trials are malformed")
	}
	for i, t := range d.Trials {
		switch _, offset := t.StateTime.Zone(); {
		case !aimForm.MatchString(t.Aim) || t.Bytes < 0 || t.TookSeconds < 0 || t.States == nil || offset != 0:
			return fmt.Errorf("trial %d is malformed", i)
		case t.Error == "" && t.StateTime.IsZero() || t.Backup != "" && !ValidID(t.Backup):
			return fmt.Errorf("trial %d: proved, and nothing is said of what", i)
		case t.Attested != "" && d.Format < 2:
			return fmt.Errorf("trial %d: format 1 knows no attestations", i)
		case t.Error != "" && len(t.States) > 0:
			return fmt.Errorf("trial %d: failed, and yet something is proved", i)
		case !slices.IsSortedFunc(t.States, func(a, b events.LogState) int { return a.Log.Compare(b.Log) }):
			return fmt.Errorf("trial %d: its states are not in order", i)
		}
	}
	return nil
}
