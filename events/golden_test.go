package events_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/schemas"
)

// golden is one file of schemas/testdata; the README there says what is in it.
type golden struct {
	Key     string `json:"key"`
	Headers []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	} `json:"headers"`
	Value []byte `json:"value_base64"`
}

func (g golden) record() *kgo.Record {
	r := &kgo.Record{Key: []byte(g.Key), Value: g.Value}
	for _, h := range g.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: []byte(h.Value)})
	}
	return r
}

func (g golden) header(name string) string {
	for _, h := range g.Headers {
		if h.Key == name {
			return h.Value
		}
	}
	return ""
}

// goldens reads every golden event, by type.
func goldens() (map[string]golden, error) {
	paths, err := filepath.Glob("../schemas/testdata/*.golden")
	if err != nil {
		return nil, err
	}
	all := map[string]golden{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var g golden
		if err := json.Unmarshal(text, &g); err != nil {
			return nil, err
		}
		all[strings.TrimSuffix(filepath.Base(path), ".golden")] = g
	}
	return all, nil
}

// goldenEvents are the golden events, decoded; for generators.
var goldenEvents = sync.OnceValue(func() []events.Event {
	all, err := goldens()
	if err != nil {
		panic(err)
	}
	var decoded []events.Event
	for _, typ := range schemas.All() {
		e, err := events.Decode(all[typ.Name].record())
		if err != nil {
			panic(err)
		}
		decoded = append(decoded, e)
	}
	return decoded
})

func TestGoldenEventsDecodeAndEncode(t *testing.T) {
	all, err := goldens()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(schemas.All()) {
		t.Fatalf("%d golden events of %d types", len(all), len(schemas.All()))
	}
	for name, g := range all {
		t.Run(name, func(t *testing.T) {
			typ, _ := schemas.Lookup(name)
			e, err := events.Decode(g.record())
			if err != nil {
				t.Fatal(err)
			}
			when, err := time.Parse(time.RFC3339Nano, g.header("ce_time"))
			if err != nil {
				t.Fatal(err)
			}
			want := events.Event{
				Key: g.Key, Op: typ.Op, Clock: events.HLCAt(when), Value: g.Value, ContentType: "application/protobuf",
				ID: g.header("ce_id"), Source: g.header("ce_source"), Type: name, Subject: g.Key, Time: when,
			}
			if !reflect.DeepEqual(e, want) {
				t.Errorf("decodes to %+v, want %+v", e, want)
			}
			r, err := events.Encode(e)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(r.Headers, g.record().Headers) {
				t.Errorf("encodes with headers\n%q, want\n%q", r.Headers, g.record().Headers)
			}
			if string(r.Key) != g.Key || !bytes.Equal(r.Value, g.Value) {
				t.Errorf("encodes as key %q with value %x", r.Key, r.Value)
			}
		})
	}
}

// A payload that is not what its type says is no event, and the error does not
// quote it.
func TestPayloadOfAKnownTypeIsChecked(t *testing.T) {
	all, err := goldens()
	if err != nil {
		t.Fatal(err)
	}
	const secret = "hunter2hunter2"
	for name, g := range all {
		r := g.record()
		r.Value = []byte(secret)
		if _, err := events.Decode(r); err == nil || strings.Contains(err.Error(), secret) || !strings.HasPrefix(err.Error(), "value: ") {
			t.Errorf("%s: error %v", name, err)
		}
		r.Value = nil
		if e, err := events.Decode(r); err != nil || e.Op != events.OpDelete {
			t.Errorf("%s with a null value: a %s, %v", name, e.Op, err)
		}
	}
}
