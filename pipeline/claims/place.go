package claims

import (
	"encoding/json"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/evenkeel/evenkeel/events"
)

// Place is how far a log was read by a node, and how far its state was by then: nothing that lies between
// the two is to be folded.
type Place struct {
	State int64 `json:"state"`
	Read  int64 `json:"read"`
}

// placeNote goes with the offset of a place that is further than the state. It repeats what the offset is
// of: an offset that somebody has set, or translated for another cluster, says nothing of a state.
type placeNote struct {
	Log events.Log `json:"log"`
	Place
}

// note is what is committed with the offset of a place, nil if there is nothing to say.
func (p Place) note(l events.Log) *string {
	if p.Read <= p.State {
		return nil
	}
	text, err := json.Marshal(placeNote{l, p})
	if err != nil {
		return nil // the offset says less then
	}
	return new(string(text))
}

// Committed is the place of a log that a node has committed as an offset of the group, not ok if what is
// there is nothing but an offset: of a node whose state was as far, of an older program, or of a tool.
func Committed(l events.Log, o kadm.Offset) (p Place, ok bool) {
	var n placeNote
	err := json.Unmarshal([]byte(o.Metadata), &n)
	if err != nil || n.Log != l || n.Read != o.At || n.State < 0 || n.State >= n.Read {
		return Place{}, false
	}
	return n.Place, true
}
