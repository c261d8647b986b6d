package format

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// DrillVersion is the format of the drills that are written. Those of format 1 say nothing of
// attestations, those before format 3 nothing of keys.
const DrillVersion = 3

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

	// Proofs are what this drill and those before it have proved with each key alone, ascending by
	// key. Since format 3.
	Proofs []Proof `json:"proofs,omitzero"`
}

// Proof says that a state was restored and proved with one key alone: whoever has nothing but its identity can
// do that again.
type Proof struct {
	Key       string    `json:"key"`        // id
	Drill     string    `json:"drill"`      // id of the drill that has proved it, whose report tells the rest
	StateTime time.Time `json:"state_time"` // when the state was that of the region, UTC: the newest that this key has opened
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

	// OpenedBy are the ids of the keys whose identities have opened what was sealed, ascending; none: nothing was, or
	// nobody has looked. Since format 3.
	OpenedBy []string `json:"opened_by,omitzero"`
}

// Alone is the key that has opened all that a trial has proved; empty: it has proved nothing, nothing was sealed, or
// it took several.
func (t *Trial) Alone() string {
	if t.Error != "" || len(t.OpenedBy) != 1 {
		return ""
	}
	return t.OpenedBy[0]
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

// Prove sets the drill's proofs: those of other drills, and what its own trials have proved that is
// newer. What is ahead, dated by a wrong clock, is left out: it would hide all that is proved until then.
func (d *Drill) Prove(before []Proof, ahead func(time.Time) bool) {
	newest := map[string]Proof{}
	add := func(p Proof) {
		if was, is := newest[p.Key]; !ahead(p.StateTime) && (!is || p.StateTime.After(was.StateTime)) {
			newest[p.Key] = p
		}
	}
	for _, p := range before {
		add(p)
	}
	for _, t := range d.Trials {
		if key := t.Alone(); key != "" {
			add(Proof{Key: key, Drill: d.ID, StateTime: t.StateTime})
		}
	}
	d.Proofs = nil
	for _, key := range slices.Sorted(maps.Keys(newest)) {
		d.Proofs = append(d.Proofs, newest[key])
	}
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

func (d *Drill) version() int { return d.Format }

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
		case len(t.OpenedBy) > 0 && d.Format < 3:
			return fmt.Errorf("trial %d: format %d knows no keys", i, d.Format)
		case !areKeys(t.OpenedBy):
			return fmt.Errorf("trial %d: its keys are malformed, or not in order", i)
		case t.Error != "" && len(t.States) > 0:
			return fmt.Errorf("trial %d: failed, and yet something is proved", i)
		case !slices.IsSortedFunc(t.States, func(a, b events.LogState) int { return a.Log.Compare(b.Log) }):
			return fmt.Errorf("trial %d: its states are not in order", i)
		}
	}
	return d.validateProofs()
}

func (d *Drill) validateProofs() error {
	if len(d.Proofs) > 0 && d.Format < 3 {
		return fmt.Errorf("format %d knows no proofs", d.Format)
	}
	var keys []string
	for i, p := range d.Proofs {
		if _, offset := p.StateTime.Zone(); !ValidID(p.Drill) || p.StateTime.IsZero() || offset != 0 {
			return fmt.Errorf("proof %d is malformed", i)
		}
		keys = append(keys, p.Key)
	}
	if !areKeys(keys) {
		return errors.New("the keys of the proofs are malformed, or not in order")
	}
	return nil
}

// areKeys says whether these are ids of keys, ascending.
func areKeys(ids []string) bool {
	for i, id := range ids {
		if !hasForm(id, keyForm) || i > 0 && ids[i-1] >= id {
			return false
		}
	}
	return true
}
