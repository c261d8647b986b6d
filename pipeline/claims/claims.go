package claims

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/pause"
)

// Topic is where the nodes of a region say what they own; nodes of another
// group, of another deployment on the same cluster, have another one. It has as many
// partitions as there are shards: partition i holds the claims of shard i, and
// whoever the region's consumer group assigns it to is to claim the shard.
func Topic(cfg *config.Config) string {
	const topic = "evenkeel.shards"
	if cfg.Group == config.DefaultGroup {
		return topic
	}
	return topic + "." + cfg.Group
}

// TopicConfigs keep the newest claim of each shard for ever.
var TopicConfigs = map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}

const (
	claimTimeout    = 10 * time.Second // for a claim to be written and read back
	leaveTimeout    = 1 * time.Second
	errorPause      = 200 * time.Millisecond
	confirmInterval = 2 * time.Second
	confirmTimeout  = 5 * time.Second
)

// Claim says who owns something: the newest in the log wins. One that is read is
// never changed.
type Claim struct {
	Node    string    `json:"node"`
	Address string    `json:"address"` // of its API; empty: other nodes cannot reach it
	At      time.Time `json:"at"`

	// Floor is added to the offset to make the epoch. It is 0, unless the topic was
	// made anew under a state that had been claimed before.
	Floor events.Epoch `json:"floor,omitempty"`

	// Stopped ends the record of a node.
	Stopped bool `json:"stopped,omitempty"`

	// Epoch is that of the owner: by its place in the log, and so no part of the record.
	Epoch events.Epoch `json:"-"`
}

// ShardKey is the key of the claims of a shard.
func ShardKey(p int32) string { return strconv.Itoa(int(p)) }

// LinkKey is the key of the claims of the link from an origin.
func LinkKey(origin events.Origin) string { return "link/" + origin.String() }

func nodeKey(node string) string { return nodePrefix + node }

const nodePrefix = "node/"

// Node is what is known of a node of the region.
type Node struct {
	Address string
	Seen    time.Time // when it last claimed something, or lost it to another
	Stopped bool
}

// Config is whose claims these are.
type Config struct {
	Topic      string
	Partitions int32
	Node       string // that claims
	Address    string // of its API; empty: other nodes cannot reach it
}

// Log follows the claims topic, and adds to it.
type Log struct {
	client  *kgo.Client
	cfg     Config
	onClaim func(key string, c Claim)
	log     *slog.Logger

	mu        sync.Mutex
	newest    map[string]Claim
	nodes     map[string]Node
	next      []int64       // offset that is read next, by partition
	progress  chan struct{} // closed when more has been read
	confirmed time.Time     // all claims up to this moment are known
	trouble   error         // why the last try to confirm has failed
}

// New makes a Log of a cluster that the options reach. onClaim is called for each claim, in the order
// of the log, by Follow.
func New(opts []kgo.Opt, cfg Config, onClaim func(key string, c Claim), log *slog.Logger) (*Log, error) {
	from := map[int32]kgo.Offset{}
	for p := range cfg.Partitions {
		from[p] = kgo.NewOffset().AtStart()
	}
	client, err := kgo.NewClient(append(opts,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{cfg.Topic: from}),
		kgo.FetchMaxWait(time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(claimTimeout),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client for topic %s: %w", cfg.Topic, err)
	}
	return &Log{
		client: client, cfg: cfg, onClaim: onClaim, log: log,
		newest: map[string]Claim{}, nodes: map[string]Node{}, next: make([]int64, cfg.Partitions), progress: make(chan struct{}),
	}, nil
}

// Close ends the client, and Follow with it.
func (c *Log) Close() { c.client.Close() }

// Admin asks the same cluster for other things; it ends with the Log.
func (c *Log) Admin() *kadm.Client { return kadm.NewClient(c.client) }

// IsOwn reports whether a claim is this node's.
func (c *Log) IsOwn(cl Claim) bool { return cl.Node == c.cfg.Node }

// Follow reads claims until the context ends.
func (c *Log) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := c.client.PollFetches(ctx)
		fetches.EachRecord(c.read)
		if fetches.Err() != nil { // told by Confirm, which fails too
			pause.For(ctx, errorPause)
		}
		c.mu.Lock()
		close(c.progress)
		c.progress = make(chan struct{})
		c.mu.Unlock()
	}
}

// read takes in one record of the topic. What is no claim is passed over.
func (c *Log) read(r *kgo.Record) {
	var cl Claim
	key := string(r.Key)
	isClaim := json.Unmarshal(r.Value, &cl) == nil && cl.Node != ""
	if !isClaim {
		c.log.Warn("a record in the claims topic is no claim", "topic", c.cfg.Topic, "partition", r.Partition, "offset", r.Offset)
	}
	cl.Epoch = cl.Floor + events.Epoch(r.Offset) + 1
	c.mu.Lock()
	c.next[r.Partition] = r.Offset + 1
	node, isNode := strings.CutPrefix(key, nodePrefix)
	switch {
	case !isClaim:
	case isNode:
		c.nodes[node] = Node{cl.Address, r.Timestamp, cl.Stopped}
	default:
		if was, ok := c.newest[key]; ok && was.Node != cl.Node {
			c.see(was.Node, "", r.Timestamp)
		}
		c.see(cl.Node, cl.Address, r.Timestamp)
		c.newest[key] = cl
	}
	c.mu.Unlock()
	if isClaim && !isNode {
		c.onClaim(key, cl)
	}
}

func (c *Log) see(node, address string, at time.Time) {
	n := c.nodes[node]
	if address != "" {
		n.Address = address
	}
	n.Seen = at
	c.nodes[node] = n
}

// Of is the newest claim of something; not ok if there is none.
func (c *Log) Of(key string) (Claim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl, ok := c.newest[key]
	return cl, ok
}

// Nodes are the nodes that are known of.
func (c *Log) Nodes() map[string]Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.nodes)
}

// write adds a record to a partition and returns its offset.
func (c *Log) write(ctx context.Context, key string, partition int32, cl Claim) (int64, error) {
	cl.Node, cl.Address, cl.At = c.cfg.Node, c.cfg.Address, time.Now().UTC()
	value, err := json.Marshal(cl)
	if err != nil {
		return 0, err
	}
	type answer struct {
		offset int64
		err    error
	}
	answers := make(chan answer, 1)
	record := &kgo.Record{Topic: c.cfg.Topic, Partition: partition, Key: []byte(key), Value: value}
	c.client.Produce(ctx, record, func(r *kgo.Record, err error) { answers <- answer{r.Offset, err} })
	select {
	case a := <-answers:
		if a.err != nil {
			return 0, fmt.Errorf("claim %s in topic %s, partition %d: %w", key, c.cfg.Topic, partition, a.err)
		}
		return a.offset, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("claim %s in topic %s, partition %d: %w", key, c.cfg.Topic, partition, ctx.Err())
	}
}

// Take claims something for this node and returns the epoch of the claim, which
// is later than all before it and than stored, the one in the state. It is an error
// if somebody else has claimed it meanwhile.
func (c *Log) Take(ctx context.Context, key string, partition int32, stored events.Epoch) (events.Epoch, error) {
	if err := c.Confirm(ctx); err != nil {
		return 0, err
	}
	was, _ := c.Of(key)
	floor := was.Floor
	if stored > was.Epoch {
		floor = stored // the topic is younger than the state
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	offset, err := c.write(ctx, key, partition, Claim{Floor: floor})
	if err != nil {
		return 0, err
	}
	if err := c.await(ctx, partition, offset+1); err != nil {
		return 0, fmt.Errorf("claim %s is not read back from topic %s, partition %d: %w", key, c.cfg.Topic, partition, err)
	}
	epoch := floor + events.Epoch(offset) + 1
	if now, _ := c.Of(key); now.Epoch != epoch {
		return 0, events.Errorf(events.KindNotReady, "%s was claimed by node %s at the same time", key, now.Node)
	}
	return epoch, nil
}

// await waits until a partition is read up to an offset.
func (c *Log) await(ctx context.Context, partition int32, offset int64) error {
	for {
		c.mu.Lock()
		next, progress := c.next[partition], c.progress
		c.mu.Unlock()
		if next >= offset {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return fmt.Errorf("it is read up to offset %d of %d: %w", next, offset, ctx.Err())
		}
	}
}

// Confirm makes sure that every claim that was made before this call is known.
func (c *Log) Confirm(ctx context.Context) error {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	err := c.catchUp(ctx)
	if err != nil {
		err = events.Errorf(events.KindNotReady, "claims of shards in topic %s cannot be read: %w", c.cfg.Topic, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble = err
	if err == nil && begun.After(c.confirmed) {
		c.confirmed = begun
	}
	return err
}

func (c *Log) catchUp(ctx context.Context) error {
	admin := kadm.NewClient(c.client)
	starts, err := admin.ListStartOffsets(ctx, c.cfg.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return err
	}
	ends, err := admin.ListEndOffsets(ctx, c.cfg.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	for p := range c.cfg.Partitions {
		start, okStart := starts.Lookup(c.cfg.Topic, p)
		end, okEnd := ends.Lookup(c.cfg.Topic, p)
		if !okStart || !okEnd {
			return fmt.Errorf("there is no partition %d", p)
		}
		if start.Offset == end.Offset {
			continue
		}
		if err := c.await(ctx, p, end.Offset); err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
	}
	return nil
}

// KeepConfirmed confirms again and again until the context ends.
func (c *Log) KeepConfirmed(ctx context.Context) {
	for ctx.Err() == nil {
		if err := c.Confirm(ctx); err != nil {
			pause.For(ctx, errorPause)
			continue
		}
		pause.For(ctx, confirmInterval)
	}
}

// Lapsed says why this node cannot be sure of what it owns: another one may have
// claimed it without its knowledge. It is nil if it can be sure.
func (c *Log) Lapsed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	age := time.Since(c.confirmed)
	switch {
	case age < sessionTimeout:
		return nil
	case c.trouble != nil:
		return c.trouble
	case c.confirmed.IsZero():
		return events.Errorf(events.KindNotReady, "claims of shards are not read yet")
	}
	return events.Errorf(events.KindNotReady, "claims of shards were last confirmed %s ago", age.Round(time.Second))
}

// Enter tells the region that this node is there.
func (c *Log) Enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	_, err := c.write(ctx, nodeKey(c.cfg.Node), HomeOf(c.cfg.Node, c.cfg.Partitions), Claim{})
	return err
}

// Leave tells the region that this node stops.
func (c *Log) Leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_, err := c.write(ctx, nodeKey(c.cfg.Node), HomeOf(c.cfg.Node, c.cfg.Partitions), Claim{Stopped: true})
	return err
}

// HomeOf spreads names over partitions.
func HomeOf(name string, partitions int32) int32 {
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(&kgo.Record{Key: []byte(name)}, int(partitions)))
}
