package divergence_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

func drawAttestation(t *rapid.T) divergence.Attestation {
	digest := func(name string) (d events.Digest) {
		copy(d[:], rapid.SliceOfN(rapid.Byte(), len(d), len(d)).Draw(t, name))
		return d
	}
	count := rapid.Int64Range(0, 1<<62)
	a := divergence.Attestation{
		Log: events.Log{
			Origin:    events.Origin{Region: "us-east-1", Incarnation: rapid.Uint32Range(1, 9).Draw(t, "incarnation")},
			Stream:    rapid.SampledFrom(testStreams).Draw(t, "stream"),
			Partition: rapid.Int32Range(0, events.MaxPartition-1).Draw(t, "partition"),
		},
		Mark: events.Mark{
			Next: count.Draw(t, "next"), Chain: digest("chain"), Digest: digest("digest"), Keys: count.Draw(t, "keys"), Bytes: count.Draw(t, "bytes"),
		},
		Format: rapid.Uint32Min(1).Draw(t, "format"),
		Epoch:  events.Epoch(rapid.Uint64().Draw(t, "epoch")),
		Made:   time.UnixMilli(rapid.Int64Range(1, 253402300799999).Draw(t, "made")).UTC(),
		Held:   time.Duration(rapid.Int64Range(0, 9e12).Draw(t, "held")) * time.Millisecond,

		Lagging: rapid.Bool().Draw(t, "lagging"),
	}
	for _, o := range []string{"eu-central-1", "us-east-1", "us-west-1_3"} {
		origin, _ := events.ParseOrigin(o)
		if rapid.Bool().Draw(t, o) {
			a.Applied = append(a.Applied, events.Seen{Origin: origin, Next: 1 + count.Draw(t, o)})
		}
	}
	return a
}

func TestAttestationRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAttestation(t)
		r, err := a.Record()
		if err != nil {
			t.Fatal(err)
		}
		if r.Topic != divergence.Topic || string(r.Key) != a.Log.String() {
			t.Fatalf("it goes to %s under %q", r.Topic, r.Key)
		}
		b, err := divergence.Read(r)
		if err != nil {
			t.Fatal(err)
		}
		if b.Applied.String() != a.Applied.String() || !b.Made.Equal(a.Made) || b.Held != a.Held || b.Lagging != a.Lagging {
			t.Fatalf("%+v became %+v", a, b)
		}
		if b.Log != a.Log || b.Mark != a.Mark || b.Format != a.Format || b.Epoch != a.Epoch {
			t.Fatalf("%+v became %+v", a, b)
		}
	})
}

// What is no attestation is refused, and a changed one is refused or another one:
// never a panic.
func TestWhatIsNoAttestation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := drawAttestation(t).Record()
		if err != nil {
			t.Fatal(err)
		}
		switch rapid.IntRange(0, 6).Draw(t, "damage") {
		case 0:
			r.Value = nil
		case 1:
			r.Key = []byte("us-east-1/session/77777")
		case 2:
			r.Headers = nil
		case 3:
			r.Value = rapid.SliceOf(rapid.Byte()).Draw(t, "value")
		case 4:
			*r = kgo.Record{Key: []byte("k"), Value: []byte("v")}
		case 5:
			held := rapid.SampledFrom([]string{"", "-1", "a day", "9223372036855", "9223372036854775808"}).Draw(t, "held")
			r.Headers = append([]kgo.RecordHeader{{Key: "ce_heldms", Value: []byte(held)}}, r.Headers...)
		case 6:
			lagging := rapid.SampledFrom([]string{"", "false", "True", "1"}).Draw(t, "lagging")
			r.Headers = append([]kgo.RecordHeader{{Key: "ce_lagging", Value: []byte(lagging)}}, r.Headers...)
		}
		_, err = divergence.Read(r)
		var refused *divergence.RefusedError
		if !errors.As(err, &refused) || refused.Reason != divergence.Corrupt {
			t.Fatalf("%+v: %v", r, err)
		}
	})
}
