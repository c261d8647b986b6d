package ledger

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Kinds of records. They are stored: none may change its meaning.
const (
	kindProducer    = "producer"     // contest: who writes a mirror's partition
	kindRuns        = "runs"         // contest: one chunk of a partition's runs
	kindEpoch       = "epoch"        // contest: where a leader epoch of the log begins
	kindBlock       = "block"        // the chunks of one block
	kindPlan        = "plan"         // a batch that is not as the runs say, before it is appended
	kindReset       = "reset"        // new generation of a partition's runs and epochs, with its first runs
	kindNewProducer = "new-producer" // new generation of a partition's producers
	kindMirror      = "mirror"       // origin of a topic's mirror
	kindReached     = "reached"      // how far a partition was read when the mirror had everything
	kindPause       = "pause"        // an operator's pause
)

// numberMax is past every chunk, block and epoch.
const numberMax = math.MaxInt32

// key is a record's key. Which fields it has depends on the kind.
type key struct {
	Kind       string `json:"kind"`
	Link       string `json:"link"`
	Topic      string `json:"topic,omitempty"`
	Partition  *int32 `json:"partition,omitempty"`
	Generation int64  `json:"generation,omitempty"` // 0 before the first reset
	Number     *int64 `json:"number,omitempty"`     // of a chunk, also one that is planned; of a block; the epoch
	What       string `json:"what,omitempty"`       // is paused
	Writer     string `json:"writer,omitempty"`     // of a contest's record or a plan; unique to the write
}

func (k key) partition() Partition { return Partition{Topic: k.Topic, Partition: *k.Partition} }

// check tells whether the fields that the kind needs are there.
func (k key) check() error {
	var ok bool
	numbered := k.Number != nil && *k.Number >= 0 && *k.Number <= numberMax
	switch k.Kind {
	case kindProducer:
		ok = k.Partition != nil && k.Writer != ""
	case kindRuns, kindPlan, kindEpoch:
		ok = k.Partition != nil && numbered && k.Writer != ""
	case kindBlock:
		ok = k.Partition != nil && numbered
	case kindReset, kindNewProducer, kindReached:
		ok = k.Partition != nil
	case kindMirror:
		ok = k.Topic != ""
	case kindPause:
		ok = k.What != ""
	default:
		return fmt.Errorf("unknown kind %q", k.Kind)
	}
	if !ok {
		return fmt.Errorf("key of a %s lacks a field, or has one that cannot be", k.Kind)
	}
	return nil
}

// Values. A contest's and a fact's value may be written by hand, so nothing in
// them is trusted.
type (
	producerValue struct {
		ID    int64 `json:"id"`
		Epoch int16 `json:"epoch"`
	}
	runsValue struct {
		Keep *int         `json:"keep,omitempty"` // how many of the runs before stay; absent: all
		Runs mapping.Runs `json:"runs"`
	}
	planValue struct {
		Dest  int64  `json:"dest"`
		Count int32  `json:"count"`
		CRC   uint32 `json:"crc"`
		Last  uint32 `json:"last"`
		runsValue
	}
	epochValue struct {
		Start int64 `json:"start"`
	}
	blockValue struct {
		Chunks []blockChunk `json:"chunks"`
	}
	blockChunk struct {
		Writer string `json:"writer"`
		runsValue
	}
	resetValue struct {
		Runs   mapping.Runs `json:"runs"`
		Writer string       `json:"writer"`
	}
	newProducerValue struct {
		Writer string `json:"writer"`
	}
	mirrorValue struct {
		SourceCluster string `json:"sourceCluster"`
		SourceTopicID string `json:"sourceTopicID"`
		MirrorTopicID string `json:"mirrorTopicID"`
		Generation    int    `json:"generation"`
		Writer        string `json:"writer"`
	}
	reachedValue struct {
		Generation int64 `json:"generation"` // of the runs by which it was read
		Source     int64 `json:"source"`
		Dest       int64 `json:"dest"`
	}
	pauseValue struct {
		Paused bool   `json:"paused"`
		Writer string `json:"writer"`
	}
)

// encode is for what always can be.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("ledger: %T has no JSON: %v", v, err))
	}
	return b
}

// unreadable is a bounded list of what made no sense.
type unreadable struct {
	first []string
	more  int
}

const unreadableMax = 20

func (u *unreadable) addf(format string, args ...any) {
	if len(u.first) == unreadableMax {
		u.more++
		return
	}
	u.first = append(u.first, fmt.Sprintf(format, args...))
}

func (u *unreadable) list() []string {
	list := append([]string(nil), u.first...)
	if u.more > 0 {
		list = append(list, fmt.Sprintf("and %d more", u.more))
	}
	return list
}
