package events_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// fuzz seeds a target with the texts of the tables and checks what must hold of
// any text.
func (f form[T]) fuzz(target *testing.F) {
	for _, text := range append(f.good, f.bad...) {
		target.Add(text)
	}
	target.Fuzz(func(t *testing.T, text string) { f.check(t, text) })
}

func FuzzRegion(f *testing.F)   { regions.fuzz(f) }
func FuzzStream(f *testing.F)   { streams.fuzz(f) }
func FuzzOrigin(f *testing.F)   { origins.fuzz(f) }
func FuzzLog(f *testing.F)      { logs.fuzz(f) }
func FuzzPosition(f *testing.F) { positions.fuzz(f) }
func FuzzVector(f *testing.F)   { vectors.fuzz(f) }
func FuzzHLC(f *testing.F)      { clocks.fuzz(f) }
func FuzzEpoch(f *testing.F)    { epochs.fuzz(f) }
func FuzzContext(f *testing.F)  { contexts.fuzz(f) }
func FuzzDigest(f *testing.F)   { digests.fuzz(f) }

func FuzzMirrorTopic(f *testing.F) {
	for _, name := range []string{"us-east-1.session", "us_2.a.b", "us.", ".", "us_1.a", "session"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		o, topic, ok := events.ParseMirrorTopic(name)
		if ok && (o.MirrorTopic(topic) != name || o.Validate() != nil || topic == "") {
			t.Errorf("%q is read as %q of %s", name, topic, o)
		}
	})
}

// FuzzDecode takes a record's headers as lines of "name: value".
func FuzzDecode(f *testing.F) {
	all, err := goldens()
	if err != nil {
		f.Fatal(err)
	}
	for _, g := range all {
		r := g.record()
		f.Add(r.Key, r.Value, false, int64(0), headerLines(r.Headers))
	}
	f.Add([]byte("k"), []byte("v"), false, int64(1750774237000), "")
	f.Add([]byte("k"), []byte(nil), true, int64(-1), "content-type: a/b")
	f.Add([]byte(""), []byte("v"), false, int64(0), "ce_id: 1")
	for _, more := range []string{"ce_deps: eu@1,us@2", "ce_epoch: 7", "ce_time: 9999-12-31T23:59:59-01:00", "ce_hlc: 1.2", "ce_id: 1"} {
		f.Add([]byte("k"), []byte(""), false, int64(1), headerLines(required())+more)
	}
	f.Fuzz(func(t *testing.T, key, value []byte, null bool, millis int64, lines string) {
		r := &kgo.Record{Key: key, Value: value, Timestamp: time.UnixMilli(millis)}
		if null {
			r.Value = nil
		}
		for line := range strings.Lines(lines) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			r.Headers = append(r.Headers, headers(name, value)...)
		}
		checkDecode(t, r)
	})
}

func headerLines(hs []kgo.RecordHeader) string {
	var b strings.Builder
	for _, h := range hs {
		b.WriteString(h.Key + ": " + string(h.Value) + "\n")
	}
	return b.String()
}

// checkDecode: a record is refused with a DecodeError, or it is a valid event
// that can be written again and is then read as the same.
func checkDecode(t *testing.T, r *kgo.Record) {
	e, err := events.Decode(r)
	var de *events.DecodeError
	switch {
	case err == nil:
	case !errors.As(err, &de) || de.Field == "" || de.Reason == "" || len(err.Error()) > 1000:
		t.Fatalf("error %#v", err)
	default:
		return
	}
	if e.Key != string(r.Key) || (e.Value == nil) != (r.Value == nil) || string(e.Value) != string(r.Value) {
		t.Fatalf("key %q with value %#v is read as %q, %#v", r.Key, r.Value, e.Key, e.Value)
	}
	again, err := events.Encode(e)
	if err != nil {
		t.Fatalf("%+v was read but cannot be written: %v", e, err)
	}
	if got, err := events.Decode(again); err != nil || !same(got, e) {
		t.Fatalf("%+v\nis read again as\n%+v, %v", e, got, err)
	}
}
