package replicator

import (
	"fmt"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
	"github.com/evenkeel/evenkeel/replicator/wire"
)

// State is what the mirroring of one partition is doing.
type State string

// States from which a link goes on by itself, and then those from which it does not.
const (
	Starting  State = "starting"  // where to go on is being found out
	Mirroring State = "mirroring" // everything that is acknowledged at the source gets mirrored
	Waiting   State = "waiting"   // for a topic, a leader or a cluster; goes on by itself
	Paused    State = "paused"    // by an operator

	// Only an operator's explicit choice goes on from these.

	LostRecords     State = "lost-records"     // expired at the source before they were mirrored
	Truncated       State = "truncated"        // the mirror has records that the source has lost
	SourceRecreated State = "source-recreated" // the log is another one than that mirrored so far
	MirrorRecreated State = "mirror-recreated" // the mirror was deleted
	MirrorTruncated State = "mirror-truncated" // the mirror has lost records that nobody can tell any more where they came from
	ForeignWriter   State = "foreign-writer"   // somebody else wrote to the mirror
	Diverged        State = "diverged"         // mirror and source differ in a record that both have
	TooLarge        State = "too-large"        // a record is larger than the mirror takes
	Refused         State = "refused"          // the destination refuses a batch for good
	Corrupt         State = "corrupt"          // the source serves bytes that are no records
)

// Stopped reports whether only an operator goes on from this state.
func (s State) Stopped() bool {
	switch s {
	case Starting, Mirroring, Waiting, Paused:
		return false
	}
	return true
}

// partition names a partition of a log.
type partition struct {
	topic string // of the log, not of the mirror
	num   int32
}

func (p partition) compare(q partition) int {
	if c := strings.Compare(p.topic, q.topic); c != 0 {
		return c
	}
	return int(p.num - q.num)
}

func (p partition) String() string { return fmt.Sprintf("topic %s, partition %d", p.topic, p.num) }

func (p partition) ledger() ledger.Partition {
	return ledger.Partition{Topic: p.topic, Partition: p.num}
}

// part is one partition under way. The mover's lock guards it, but for what a
// flow says of itself.
type part struct {
	partition
	log      string // the topic in the cluster that is read: a log, or a peer's mirror of it
	mirror   string
	sourceID topicID
	mirrorID topicID
	source   leader
	dest     leader
	placed   bool // source and dest are known
	hinted   bool // the next location need not ask for them
	producer ledger.ProducerID

	state  State
	reason error // of any state but Mirroring; nil if there is none to tell
	stop   *StoppedError
	since  time.Time

	flow       *flow // nil: must be located first
	checked    bool  // it has been located once
	doubts     int   // how often something odd has happened, after which the last record is compared
	dispelled  int   // of them; doubts that come while a part is being located stay
	moved      bool  // holes at the source were not where they had been planned to be
	retryAt    time.Time
	pause      time.Duration // before the next try
	limitBytes int           // largest batch that the mirror takes; 0: not known
	refused    int           // bytes of the smallest batch that was too large; 0: none
	largeAt    int64         // offset of the record that was found too large last
	largeSince time.Time     // when that was found first
	corrupt    int           // answers in a row that were no records

	queue       []chunk // to be sent
	queuedBytes int64
	unanswered  int // chunks sent and not answered

	acked     int64 // next offset of the mirror, as acknowledged
	mirrored  int64 // next offset of the source, as acknowledged
	lag       sourceEnd
	heardAt   time.Time // when the source said last where it ends, or that nothing has changed
	fetchedAt time.Time // last good fetch
	ackedAt   time.Time // last good answer of the destination
	lastTime  int64     // largest timestamp mirrored, in ms
	bytes     int64     // mirrored since the start of the link, as produced
	records   int64
}

// sourceEnd is what the source last said about a partition.
type sourceEnd struct {
	known  bool
	start  int64 // first offset that it still has
	stable int64 // last stable offset: everything below is decided
	end    int64 // high watermark

	lastTime   int64     // timestamp of the last record below timeAt, in ms
	timeAt     int64     // the stable offset for which lastTime was read; 0: none yet
	seconds    float64   // the lag between times
	measuredAt time.Time // when that was so; zero: never
}

// flow is one undisturbed stretch of mirroring a partition: from where it was
// located to whatever interrupts it. Its fetcher alone uses it; whoever finds that
// a part has another flow by now drops what it did for this one.
type flow struct {
	*part
	leader leader // of the source, to whom this flow goes

	next  int64        // offset to fetch, of what is read: the log, or a peer's mirror of it
	peer  *mapping.Map // by which the peer's offsets are the log's; nil: it is the log that is read
	end   int64        // mirror offset of the next chunk
	runs  *mapping.Map
	epoch int32          // source's leader epoch of the batch fetched last; -1: not known
	open  map[int64]bool // producers whose aborted transaction is going on

	read int64 // offset up to which it has been handed over, as next counts; the mover's lock guards it

	// What tells whether the broker knows the producer; the mover's lock guards it.
	tookAt    time.Time     // when it took a batch last, by the wall clock
	largest   int           // bytes of the largest one that it took
	sentTime  int64         // largest timestamp of the batch sent last, in ms
	alone     bool          // nothing follows what is under way before that is answered
	failed    *failure      // the first batch that was sent and not acknowledged; nil: none
	misplaced *StoppedError // a batch has landed elsewhere than it was due; nil: none

	compacted bool           // records can vanish from the source at any time
	careful   bool           // so what departs from the runs is planned, and one batch is under way at a time
	version   ledger.Version // of the runs that what is appended goes by
	planned   *ledger.Plan   // written down; its batch may be sent
	landed    *ledger.Plan   // not written down yet that it has; nothing is sent before that
	behind    int64          // source offset to go on from after it

	limit int           // largest batch that the mirror takes
	until int64         // offset behind which a peer's mirror is not to be trusted; of the origin: none
	final *StoppedError // what stops the part once all that was fetched is mirrored; nil: nothing
}

// chunk is one batch ready to be appended.
type chunk struct {
	raw   []byte
	count int32
	first int64 // source offset of its first record
	next  int64 // source offset to go on from after it
	dest  int64 // mirror offset of its first record
	time  int64 // largest timestamp, in ms
	load  *load // memory that raw points into
	flow  *flow
	plan  *ledger.Plan // of a batch that departs from the runs; nil: it is as they say
}

// load is memory that chunks share. The mover's lock guards it.
type load struct {
	buf   *wire.Buffer // nil: made by this process
	bytes int64
	refs  int
}
