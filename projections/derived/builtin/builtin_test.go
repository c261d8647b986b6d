package builtin_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/derived/builtin"
	"github.com/evenkeel/evenkeel/projections/derived/derivedtest"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	registryv1 "github.com/evenkeel/evenkeel/schemas/registry/v1"
	sessionv1 "github.com/evenkeel/evenkeel/schemas/session/v1"
)

const week = 7 * 24 * time.Hour

// noon is a minute; what is written a week later has its place.
var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func session(user string) []byte {
	return marshal(&sessionv1.SessionStarted{
		SessionId: "s", Client: &sessionv1.ClientInfo{Name: "c"}, ProtocolVersion: "2025-06-18", UserId: user, Node: "n",
		Transport: sessionv1.Transport_TRANSPORT_STDIO, State: sessionv1.State_STATE_ACTIVE, StartedAtMs: 1, LastActiveAtMs: 1,
	})
}

func registered(capabilities ...string) []byte {
	return marshal(&registryv1.Registered{
		Kind: registryv1.Kind_KIND_TOOL, Name: "t", Node: "n", Capabilities: capabilities, RegisteredAtMs: 1,
	})
}

func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// record makes a record; typ may be empty.
func record(key, typ string, value []byte, at time.Time) *kgo.Record {
	r := &kgo.Record{Key: []byte(key), Value: value, Timestamp: at}
	if typ != "" {
		for _, h := range []string{"ce_specversion=1.0", "ce_id=1", "ce_source=/t", "ce_type=" + typ} {
			name, text, _ := strings.Cut(h, "=")
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(text)})
		}
	}
	return r
}

func genRecords(values map[string][][]byte) *rapid.Generator[*kgo.Record] {
	return rapid.Custom(func(t *rapid.T) *kgo.Record {
		types := []string{"", events.TypePut, events.TypeDelete}
		for typ := range values {
			if typ != "" {
				types = append(types, typ)
			}
		}
		typ := rapid.SampledFrom(sorted(types)).Draw(t, "type")
		var value []byte
		if list := values[typ]; len(list) > 0 && rapid.IntRange(0, 9).Draw(t, "delete") > 1 {
			value = rapid.SampledFrom(list).Draw(t, "value")
		} else if rapid.Bool().Draw(t, "anything") {
			value = rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "bytes")
		}
		at := noon.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "weeks"))*week + time.Duration(rapid.IntRange(0, 2).Draw(t, "minutes"))*time.Minute)
		return record(rapid.SampledFrom([]string{"a", "b", "a\x00", "\xff"}).Draw(t, "key"), typ, value, at)
	})
}

func sorted(types []string) []string {
	seen := map[string]bool{}
	var list []string
	for _, typ := range types {
		if !seen[typ] {
			list, seen[typ] = append(list, typ), true
		}
	}
	for i := range list { // few
		for j := range list[:i] {
			if list[i] < list[j] {
				list[i], list[j] = list[j], list[i]
			}
		}
	}
	return list
}

func TestLaws(t *testing.T) {
	t.Parallel()
	json := [][]byte{
		[]byte(`{"user":"ada"}`), []byte(`{"user_id":"bob","capabilities":["x","y","x"]}`), []byte(`{"user":7,"capabilities":[1,"y",""]}`),
		[]byte(`{"user":"a\u0000b","capabilities":["x"]}`), []byte(`[]`), []byte(`{`),
	}
	values := map[string][][]byte{
		"":                              json,
		events.TypePut:                  json,
		"erlmcp.session.started.v1":     {session("ada"), session(""), session("eve")},
		"erlmcp.registry.registered.v1": {registered("x"), registered("y", "z"), registered()},
	}
	for _, m := range projections.Models() {
		t.Run(m.Name, derivedtest.Suite{Model: m, Records: genRecords(values)}.Run)
	}
}

// lines are the entries of a model after a history of one log, each "key value" or
// "key of key".
func lines(t *testing.T, m derived.Model, records ...*kgo.Record) (list []string) {
	t.Helper()
	stream := events.Stream("session")
	if m.Streams != nil {
		stream = m.Streams[0]
	}
	shard, err := projections.Open(projections.Config{
		Dir: "state", FS: vfs.NewMem(), Rules: map[events.Stream]merge.Rule{stream: lww.Rule{}}, Models: []derived.Model{m},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer shard.Close()
	for i, r := range records {
		r.Offset = int64(i)
	}
	l := events.Log{Origin: events.FirstOrigin("us"), Stream: stream}
	if done, err := shard.Apply([]projections.Run{{Log: l, Records: records}}); err != nil || done.Parked > 0 {
		t.Fatal(done, err)
	}
	for _, row := range derivedtest.Rows(t, shard, m.Name) {
		if m.OfEvents() {
			list = append(list, row.Key+" "+string(row.Value))
		} else {
			list = append(list, row.Key+" of "+row.Of)
		}
	}
	return list
}

func TestSessionsByUser(t *testing.T) {
	const started = "erlmcp.session.started.v1"
	got := lines(t, builtin.SessionsByUser(),
		record("s-1", started, session("ada"), noon),
		record("s-2", started, session("ada"), noon),
		record("s-3", started, session("bob"), noon),
		record("s-4", "", []byte(`{"user_id": "ada"}`), noon),
		record("s-5", "", []byte(` {"user": "eve", "user_id": "ada"}`), noon),
		record("s-6", "", []byte(`{"user": {"name": "eve"}}`), noon),
		record("s-7", "", []byte(`"ada"`), noon),
		record("s-8", started, session(""), noon),
		record("s-9", "", fmt.Appendf(nil, `{"user": %q}`, strings.Repeat("x", 5000)), noon),
		record("s-2", "", nil, noon),                          // ended
		record("s-3", started, session("carol"), noon),        // another's now
		record("s-4", "", []byte(`{"user_id": "ada"}`), noon), // written again
	)
	want := "ada of s-1, ada of s-4, carol of s-3, eve of s-5"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("%s, want %s", text, want)
	}
}

func TestRegistryByCapability(t *testing.T) {
	const typ = "erlmcp.registry.registered.v1"
	many := `"m0"`
	for i := 1; i <= 1_000; i++ {
		many += fmt.Sprintf(`,"m%d"`, i)
	}
	got := lines(t, builtin.RegistryByCapability(),
		record("r-1", typ, registered("search", "chat"), noon),
		record("r-2", "", []byte(`{"capabilities": ["chat", 1, null, "", "chat"]}`), noon),
		record("r-3", "", []byte(`{"capabilities": "chat"}`), noon),
		record("r-1", typ, registered("search"), noon),
	)
	want := "chat of r-2, search of r-1"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("%s, want %s", text, want)
	}
	if got := lines(t, builtin.RegistryByCapability(), record("r", "", []byte(`{"capabilities": [`+many+`]}`), noon)); len(got) != 1_000 {
		t.Errorf("%d entries of one key, want 1,000", len(got))
	}
}

func TestEventCounts(t *testing.T) {
	got := lines(t, builtin.EventCounts(),
		record("a", "", []byte("v"), noon),
		record("b", "", []byte("v"), noon.Add(59*time.Second)),
		record("a", "t", []byte("v"), noon.Add(time.Minute)),
		record("a", "", nil, noon.Add(-time.Minute)),
	)
	want := "2026-11-26T11:59Z (bare) 1, 2026-11-26T12:00Z (bare) 2, 2026-11-26T12:01Z t 1"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("%s, want %s", text, want)
	}
}

// Counts do not grow without bound, and a wrong clock costs no more than a minute.
func TestEventCountsAreBounded(t *testing.T) {
	var records []*kgo.Record
	for i := range 3 * 7 * 24 * 60 { // three weeks
		records = append(records, record("a", "", nil, noon.Add(time.Duration(i)*time.Minute)))
	}
	records = append(records, record("a", "", nil, time.UnixMilli(1<<47)))
	for i := range 100 {
		records = append(records, record("a", fmt.Sprintf("t%02d", i), []byte{}, noon.Add(3*week)))
	}
	got := lines(t, builtin.EventCounts(), records...)
	if want := 7*24*60 - 1 + 1 - 1 + 65; len(got) != want {
		t.Errorf("%d entries, want %d: a week of minutes, one of them far ahead, one with 64 types and the rest", len(got), want)
	}
	if last := got[len(got)-2]; !strings.Contains(last, "t63 1") {
		t.Errorf("before the last: %s", last)
	}
	for _, line := range got {
		if strings.Contains(line, "(others)") && !strings.HasSuffix(line, " 36") {
			t.Errorf("%s, want 36", line)
		}
	}
}
