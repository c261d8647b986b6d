package divergence

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/schemas"
	controlv1 "github.com/evenkeel/evenkeel/schemas/control/v1"
)

// Topic is where a region attests its own logs: one partition, mirrored like a
// log's, and compacted, because of each log only the newest attestation has to stay. A
// deployment with a name has one of its own, named after both.
const Topic = "evenkeel.attestations"

const (
	typeAttested = "evenkeel.control.attested.v1"
	contentType  = "application/protobuf"
)

// Attestation is what an origin says of one of its own logs.
type Attestation struct {
	Log    events.Log
	Mark   events.Mark  // of the log's fold at the origin
	Format uint32       // of chain, digest and slices; unequal ones are not compared
	Epoch  events.Epoch // under which the origin's shard was open

	// Applied is, for the log's stream and partition, the next offset of each
	// origin's log that the region had folded, its own included.
	Applied events.Context

	Made time.Time // by the origin's clock; decides nothing but whether it is silent

	// Lagging says that the region has not folded all that the log has had for a while: it ended further on when the shard was
	// opened, or minutes ago, or its fold has stopped. It may have had more of it before, and tells nothing of that.
	Lagging bool

	// Held is how long the origin's region holds tombstones of keys that several regions have written; 0: it does not say.
	Held time.Duration

	// Group and Topic tell deployments apart that use one cluster: the consumer group of
	// the origin's nodes, and the topic that the log is. Empty if it does not say.
	Group, Topic string
}

// subjectSeparator is between group and topic, neither of which has one.
const subjectSeparator = "/"

// Record writes the attestation as a record of Topic.
func (a Attestation) Record() (*kgo.Record, error) {
	payload, err := proto.Marshal(&controlv1.Attested{
		Region: a.Log.Origin.Region.String(), Incarnation: a.Log.Origin.Incarnation,
		Stream: a.Log.Stream.String(), Partition: uint32(a.Log.Partition),
		Offset: a.Mark.Next, Chain: a.Mark.Chain[:], Digest: a.Mark.Digest[:],
		Keys: uint64(a.Mark.Keys), SliceBytes: uint64(a.Mark.Bytes),
		FormatVersion: a.Format, AttestedAtMs: a.Made.UnixMilli(),
	})
	if err != nil {
		return nil, err
	}
	r, err := events.Encode(events.Event{
		Key: a.Log.String(), Op: events.OpPut, Value: payload, ContentType: contentType,
		ID: fmt.Sprintf("%s/%s/%d", a.Log.At(a.Mark.Next), a.Epoch, a.Made.UnixMilli()), Source: "evenkeel/" + a.Log.Origin.String(),
		Type: typeAttested, Time: a.Made, Clock: events.HLCAt(a.Made), Deps: a.Applied, Epoch: a.Epoch,
		Subject: a.Group + subjectSeparator + a.Topic,
	})
	if err != nil {
		return nil, err
	}
	if a.Held > 0 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headerHeld, Value: strconv.AppendInt(nil, a.Held.Milliseconds(), 10)})
	}
	if a.Lagging {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headerLagging, Value: []byte(lagging)})
	}
	r.Topic = Topic
	return r, nil
}

// Extension attributes: the payload's contract is older.
const (
	headerHeld    = "ce_heldms" // in milliseconds
	headerLagging = "ce_lagging"

	lagging = "true" // else there is no such header
)

// readExtensions takes in what extension attributes say.
func (a *Attestation) readExtensions(r *kgo.Record) error {
	for _, h := range r.Headers {
		switch h.Key {
		case headerHeld:
			ms, err := strconv.ParseInt(string(h.Value), 10, 64)
			if err != nil || ms < 0 || ms > math.MaxInt64/int64(time.Millisecond) {
				return fmt.Errorf("header %s: %q is no number of milliseconds", h.Key, h.Value)
			}
			a.Held = time.Duration(ms) * time.Millisecond
		case headerLagging:
			if string(h.Value) != lagging {
				return fmt.Errorf("header %s: %q is not %q", h.Key, h.Value, lagging)
			}
			a.Lagging = true
		}
	}
	return nil
}

// Read reads what Record wrote, or says in a *RefusedError why the record is no
// attestation.
func Read(r *kgo.Record) (Attestation, error) {
	e, err := events.Decode(r)
	if err != nil {
		return Attestation{}, refuse(Corrupt, "%w", err)
	}
	typ, _ := schemas.Lookup(e.Type)
	if e.Type != typeAttested || e.Op != events.OpPut {
		return Attestation{}, refuse(Corrupt, "a %s of type %q is no attestation", e.Op, e.Type)
	}
	payload, err := schemas.Decode(typ, e.ContentType, e.Value)
	if err != nil {
		return Attestation{}, refuse(Corrupt, "%w", err)
	}
	m, ok := payload.(*controlv1.Attested)
	if !ok || m.GetKeys() > math.MaxInt64 || m.GetSliceBytes() > math.MaxInt64 {
		return Attestation{}, refuse(Corrupt, "its counts are out of range")
	}
	a := Attestation{
		Log: events.Log{
			Origin: events.Origin{Region: events.Region(m.GetRegion()), Incarnation: m.GetIncarnation()},
			Stream: events.Stream(m.GetStream()), Partition: int32(m.GetPartition()),
		},
		Mark:   events.Mark{Next: m.GetOffset(), Keys: int64(m.GetKeys()), Bytes: int64(m.GetSliceBytes())},
		Format: m.GetFormatVersion(), Epoch: e.Epoch, Applied: e.Deps, Made: time.UnixMilli(m.GetAttestedAtMs()).UTC(),
	}
	a.Group, a.Topic, _ = strings.Cut(e.Subject, subjectSeparator)
	if err := a.readExtensions(r); err != nil {
		return Attestation{}, refuse(Corrupt, "%w", err)
	}
	copy(a.Mark.Chain[:], m.GetChain())
	copy(a.Mark.Digest[:], m.GetDigest())
	if key := a.Log.String(); key != e.Key {
		return Attestation{}, refuse(Corrupt, "it is of %s, under the key %q", key, e.Key)
	}
	return a, nil
}

// Refusal is why an attestation is not heeded.
type Refusal string

// The reasons.
const (
	Corrupt    Refusal = "corrupt"     // the record is no attestation
	NotTheirs  Refusal = "not-theirs"  // an origin speaks only of its own logs
	UnknownLog Refusal = "unknown-log" // the configuration does not have it
	OldEpoch   Refusal = "old-epoch"   // somebody else has had the shard since

	// OtherDeployment is of a deployment that uses the same cluster and the same names.
	OtherDeployment Refusal = "other-deployment"
)

// Refusals are all of them.
func Refusals() []Refusal {
	return []Refusal{Corrupt, NotTheirs, UnknownLog, OldEpoch, OtherDeployment}
}

// RefusedError says why an attestation is not heeded.
type RefusedError struct {
	Reason Refusal
	err    error
}

func refuse(reason Refusal, format string, args ...any) error {
	return &RefusedError{Reason: reason, err: fmt.Errorf("attestation refused: "+format, args...)}
}

func (e *RefusedError) Error() string { return e.err.Error() }
func (e *RefusedError) Unwrap() error { return e.err }
