package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
)

// Agreement says whether what was restored, or is to be, is what other regions have attested of
// their logs at the same offsets. A region of which nothing could be compared is unknown.
type Agreement struct {
	Agrees  []events.Region `json:"agrees"`
	Unknown []events.Region `json:"unknown"`
	Differs []Disagreement  `json:"differs"`
	Equal   []Match         `json:"equal"` // of each log the last that was compared and is the same
}

// Match is a log whose state is the one that was attested.
type Match struct {
	Log  events.Log  `json:"log"`
	Mark events.Mark `json:"mark"` // attested by the log's origin
}

// Disagreement is a log whose state is not the one that was attested.
type Disagreement struct {
	Log    events.Log  `json:"log"`
	Theirs events.Mark `json:"theirs"` // attested by the log's origin
	Ours   events.Mark `json:"ours"`   // at the same offset
}

func (d Disagreement) String() string {
	if d.Theirs.Chain != d.Ours.Chain {
		return fmt.Sprintf("%s at offset %d: its records have the chain %s there, %s here (layer log)", d.Log, d.Theirs.Next, d.Theirs.Chain, d.Ours.Chain)
	}
	return fmt.Sprintf("%s at offset %d: of the same records the state has the digest %s there, %s here (layer fold)", d.Log, d.Theirs.Next, d.Theirs.Digest, d.Ours.Digest)
}

// Add takes in another part, of other logs.
func (g *Agreement) Add(other *Agreement) {
	g.Differs = append(g.Differs, other.Differs...)
	g.Equal = append(g.Equal, other.Equal...)
	differs := func(r events.Region) bool {
		return slices.ContainsFunc(g.Differs, func(d Disagreement) bool { return d.Log.Origin.Region == r })
	}
	agrees, unknown := slices.Concat(g.Agrees, other.Agrees), slices.Concat(g.Unknown, other.Unknown)
	g.Agrees = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(agrees))), differs)
	g.Unknown = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(unknown))), func(r events.Region) bool { return differs(r) || slices.Contains(g.Agrees, r) })
}

// Differs is what comes before each log that differs, in the text of an Agreement.
const Differs = "DIFFERS: "

// String is one line for people.
func (g *Agreement) String() string {
	differ := map[events.Region]bool{}
	for _, d := range g.Differs {
		differ[d.Log.Origin.Region] = true
	}
	text := fmt.Sprintf("agrees with %d of %d regions", len(g.Agrees), len(g.Agrees)+len(g.Unknown)+len(differ))
	if len(g.Unknown) > 0 {
		names := make([]string, len(g.Unknown))
		for i, r := range g.Unknown {
			names[i] = r.String()
		}
		text += ", unknown: " + strings.Join(names, ", ")
	}
	for _, d := range g.Differs {
		text += "; " + Differs + d.String()
	}
	return text
}

// Err refuses what is not as it was attested.
func (g *Agreement) Err() error {
	if g == nil || len(g.Differs) == 0 {
		return nil
	}
	return events.Errorf(events.KindInconsistent, "the state is not the one that was attested: %s; either it was made while the region had diverged, or the other one is wrong (evenkeel check --all)", g.Differs[0])
}
