package claims_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/claims"
)

// What a node has committed of its state counts for the log and the offset that it was of, and nothing else does.
func TestCommitted(t *testing.T) {
	l := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session", Partition: 1}
	const said = `{"log":"us-east-1/session/1","state":9,"read":11}`
	for name, c := range map[string]struct {
		log  events.Log
		at   int64
		said string
		want bool
	}{
		"a node's":                  {l, 11, said, true},
		"an older program's":        {l, 11, "", false},
		"a tool's":                  {l, 11, "m", false},
		"nothing":                   {l, 11, "{}", false},
		"set to another offset":     {l, 12, said, false},
		"of another partition":      {events.Log{Origin: l.Origin, Stream: "session", Partition: 2}, 11, said, false},
		"of another region":         {events.Log{Origin: events.FirstOrigin("us-west-1"), Stream: "session", Partition: 1}, 11, said, false},
		"of an incarnation before":  {events.Log{Origin: events.Origin{Region: "us-east-1", Incarnation: 2}, Stream: "session", Partition: 1}, 11, said, false},
		"with a state as far":       {l, 9, `{"log":"us-east-1/session/1","state":9,"read":9}`, false},
		"without any state":         {l, 11, `{"log":"us-east-1/session/1","state":-1,"read":11}`, false},
		"with nothing behind at -1": {l, -1, said, false},
	} {
		p, ok := claims.Committed(c.log, kadm.Offset{At: c.at, Metadata: c.said})
		if ok != c.want || ok && p != (claims.Place{State: 9, Read: 11}) {
			t.Errorf("%s: %+v, %v", name, p, ok)
		}
	}
}
