package divergence

import (
	"fmt"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// Result is how a region's fold of a log compares with what the log's origin
// attests.
type Result string

// The results.
const (
	Consistent    Result = "consistent"    // compared a moment ago, and equal
	Diverged      Result = "diverged"      // compared, and not equal; stays until it is repaired or acknowledged
	Indeterminate Result = "indeterminate" // not compared for a while
	Skipped       Result = "skipped"       // made by different rules, so not compared
)

// Results are all of them.
func Results() []Result { return []Result{Consistent, Diverged, Indeterminate, Skipped} }

// Layer is where regions differ.
type Layer string

// The layers.
const (
	LayerLog  Layer = "log"  // the records differ: a mirror is wrong, or a log was changed behind its readers
	LayerFold Layer = "fold" // the records are the same, what was made of them is not
)

// Layers are all of them.
func Layers() []Layer { return []Layer{LayerLog, LayerFold} }

// RecentFor is how long a comparison says something of the present.
const RecentFor = time.Minute

// Finding is how one log stands. What is not known is nil, never zero.
type Finding struct {
	Log    events.Log `json:"log"`
	Result Result     `json:"result"`
	Layer  Layer      `json:"layer,omitempty"` // of a divergence

	At       *int64     `json:"at"`       // offset compared: the last one, or where the divergence was found
	Compared *time.Time `json:"compared"` // when that was
	Attested *int64     `json:"attested"` // offset attested last
	Heard    *time.Time `json:"heard"`    // when that came
	Stable   int64      `json:"stable"`   // every region has folded the log up to here, as they attest

	Blocked string     `json:"blocked,omitempty"` // why it is indeterminate
	Since   *time.Time `json:"since,omitempty"`   // how long it has been that

	Theirs *events.Mark `json:"theirs,omitempty"` // of a divergence: what the origin attested
	Ours   *events.Mark `json:"ours,omitempty"`   // and what is here
	// EqualAgain is the offset at which a divergence of folds was not there any
	// more: later events covered it up, and what caused it is still unknown.
	EqualAgain *int64 `json:"equal_again,omitempty"`

	Formats *Skew `json:"formats,omitempty"` // of what was skipped
}

// Skew is two versions that are not compared.
type Skew struct {
	Theirs uint32 `json:"theirs"`
	Ours   uint32 `json:"ours"`
}

func (s Skew) String() string { return fmt.Sprintf("format %08x there, %08x here", s.Theirs, s.Ours) }

// Describe says in one sentence how the log stands in a region.
func (f Finding) Describe(region events.Region) string {
	switch f.Result {
	case Diverged:
		return f.describeDivergence(region)
	case Skipped:
		return fmt.Sprintf("%s in %s is not compared: %s", f.Log, region, f.Formats)
	case Indeterminate:
		return fmt.Sprintf("%s in %s was not compared for a while: %s", f.Log, region, f.Blocked)
	}
	return fmt.Sprintf("%s in %s is consistent", f.Log, region)
}

func (f Finding) describeDivergence(region events.Region) string {
	with := "what " + f.Log.Origin.String() + " attests"
	if f.Log.Origin.Region == region {
		with = "what it attested before"
	}
	what := "the records differ: the mirror is wrong, or the log was changed behind its readers"
	if f.Layer == LayerFold {
		what = "the records are the same, the state made of them is not"
		if f.EqualAgain != nil {
			what += fmt.Sprintf(" (equal again from offset %d on)", *f.EqualAgain)
		}
	}
	return fmt.Sprintf("%s in %s differs from %s at offset %d, layer %s: %s", f.Log, region, with, *f.At, f.Layer, what)
}
