package inflate

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/batch"
)

// errNoRoom is one that the client tries again without telling anybody.
var errNoRoom = fmt.Errorf("there is no memory for what was fetched at present: %w", kerr.RequestTimedOut)

// A TooLargeError says that a batch is too large, and can never be read. It stands in each answer
// that has the batch: whoever is told is to pause its partition.
type TooLargeError struct{ Most int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("it is larger than %d MiB decompressed, or has more records than go with that", e.Most>>20)
}

const (
	// workMost is longer than any answer is worked on. Of one that had no records to keep it is
	// not known when that ends, if its broker is not asked again.
	workMost = 30 * time.Second

	// leastAsked is the least that is asked for in one fetch. At a thousandth, the most that
	// compression leaves out, that is 16 MiB.
	leastAsked = 16 << 10
)

// Room is what a client's fetched records have of memory.
type Room struct {
	most      int64 // of what was decompressed and not polled yet; two batches of each broker may come to it
	batchMost int64
	inflaters sync.Pool

	client  *kgo.Client // knows what was fetched and is not polled
	allMost int32       // that the client would ask for in one fetch, without a room
	ofMost  int32       // of one partition
	atOnce  int         // answers that it has at most; 0: one of each broker
	working atomic.Int32

	mu      sync.Mutex
	brokers map[int32]bool      // that have records
	work    map[int32]work      // by broker: what was accepted of an answer that is still worked on
	from    map[partition]int32 // brokers: whose batch was accepted last
	owed    map[int32]bool      // brokers whose answer has come, and nothing of it was accepted yet
	spent   int                 // batches that were accepted although there is no room, as one is owed
	ask     asking
}

type partition struct {
	topic  string
	number int32
}

// work is what has been accepted of an answer so far.
type work struct {
	bytes int64
	begun time.Time
}

var (
	_ kgo.Decompressor            = (*Room)(nil)
	_ kgo.HookNewClient           = (*Room)(nil)
	_ kgo.HookBrokerRead          = (*Room)(nil)
	_ kgo.HookBrokerWrite         = (*Room)(nil)
	_ kgo.HookFetchBatchRead      = (*Room)(nil)
	_ kgo.HookFetchRecordBuffered = (*Room)(nil)
)

// Opts are the options of one client whose fetches take at most so many bytes of
// memory, but for two batches of each broker, and whose batches have at most so many.
func Opts(most, batchMost int64) []kgo.Opt {
	r := newRoom(most, batchMost)
	return []kgo.Opt{kgo.WithDecompressor(r), kgo.WithHooks(r)}
}

func newRoom(most, batchMost int64) *Room {
	return &Room{
		most: most, batchMost: batchMost, brokers: map[int32]bool{}, work: map[int32]work{}, from: map[partition]int32{}, owed: map[int32]bool{},
		inflaters: sync.Pool{New: func() any { return batch.NewInflater(int(batchMost)) }},
	}
}

// OnNewClient implements kgo.HookNewClient.
func (r *Room) OnNewClient(client *kgo.Client) {
	r.client = client
	r.allMost, _ = client.OptValue(kgo.FetchMaxBytes).(int32)
	r.ofMost, _ = client.OptValue(kgo.FetchMaxPartitionBytes).(int32)
	r.atOnce, _ = client.OptValue(kgo.MaxConcurrentFetches).(int)
}

// Decompress implements kgo.Decompressor. It never waits: only a poll makes room, and as long
// as an answer is worked on nothing of it can be polled, nor can the client be told to read
// something else.
func (r *Room) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return src, nil
	}
	if !r.admits() {
		return nil, errNoRoom
	}
	inflater := r.inflaters.Get().(*batch.Inflater)
	plain, err := inflater.Inflate(src, batch.Codec(codec))
	r.inflaters.Put(inflater)
	var large *batch.InflatedError
	if errors.As(err, &large) || err == nil && hasTooMany(plain, overheadFactor*r.batchMost) {
		return nil, &TooLargeError{r.batchMost} // the client's own error would be told once, or not at all
	}
	return plain, err
}

// admits says whether a batch may be decompressed: there is room, or it is the first of an
// answer. So each answer brings the client further, is polled, and only then are there more of
// its broker. It is not known of which answer a batch is: if another one takes what is owed, this
// one ends with nothing and is fetched again. All of the other that does not fit is refused at once,
// so that it ends soon.
func (r *Room) admits() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held() < r.most {
		return true
	}
	if r.spent < len(r.owed) {
		r.spent++
		return true
	}
	return false
}

// held is what has been fetched and was not polled, with what is still worked on.
func (r *Room) held() (bytes int64) {
	if r.client != nil {
		bytes = r.client.BufferedFetchBytes() + r.client.BufferedFetchRecords()*recordBytes
	}
	for broker, w := range r.work {
		if time.Since(w.begun) > workMost {
			r.endWork(broker)
			continue
		}
		bytes += w.bytes
	}
	return bytes
}

// OnBrokerRead implements kgo.HookBrokerRead: an answer has come.
func (r *Room) OnBrokerRead(broker kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if kmsg.Key(key) != kmsg.Fetch || err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owed[broker.NodeID] = true
}

// OnBrokerWrite implements kgo.HookBrokerWrite: a client asks a broker again when it is done
// with what that has answered before.
func (r *Room) OnBrokerWrite(broker kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if kmsg.Key(key) != kmsg.Fetch {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endWork(broker.NodeID)
	delete(r.owed, broker.NodeID)
	r.spent = min(r.spent, len(r.owed))
}

// OnFetchBatchRead implements kgo.HookFetchBatchRead: it is called for each batch, just
// after that was decompressed or refused.
func (r *Room) OnFetchBatchRead(broker kgo.BrokerMetadata, topic string, number int32, m kgo.FetchBatchMetrics) {
	if m.NumRecords == 0 {
		return // and there is nothing to hold
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owed[broker.NodeID] {
		delete(r.owed, broker.NodeID)
		r.spent = max(0, r.spent-1)
	}
	w := r.work[broker.NodeID]
	if w.begun.IsZero() {
		w.begun = time.Now()
	}
	bytes := int64(m.UncompressedBytes) + int64(m.NumRecords)*recordBytes
	w.bytes += bytes
	r.work[broker.NodeID], r.from[partition{topic, number}] = w, broker.NodeID
	r.working.Store(int32(len(r.work)))
	r.brokers[broker.NodeID] = true
	r.ask.compresses(int64(m.CompressedBytes), bytes, r.most)
	if r.client != nil {
		all := r.ask.bytes(r.most, r.answers(), r.allMost)
		r.client.UpdateFetchMaxBytes(all, min(all, r.ofMost))
	}
}

// answers are those that the client has at most.
func (r *Room) answers() int {
	if r.atOnce > 0 {
		return min(r.atOnce, len(r.brokers))
	}
	return len(r.brokers)
}

// OnFetchRecordBuffered implements kgo.HookFetchRecordBuffered: the answer with this record
// is not worked on any more, and the client counts what it holds of it.
func (r *Room) OnFetchRecordBuffered(record *kgo.Record) {
	if r.working.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if broker, known := r.from[partition{record.Topic, record.Partition}]; known {
		r.endWork(broker)
	}
}

func (r *Room) endWork(broker int32) {
	delete(r.work, broker)
	r.working.Store(int32(len(r.work)))
}
