package backupbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	segmentShards    = 4
	segmentRate      = 10_000 // events a second
	segmentValue     = 256    // bytes
	secretsRate      = 100
	secrets          = events.Stream("secrets")
	segmentPatience  = time.Minute
	readerInterval   = 50 * time.Millisecond // between looks of the reader, for each shard
	producerInterval = 10 * time.Millisecond
)

// segments measures how soon an acknowledged event can be read in the bucket: by a
// reader that knows nothing but the bucket, lists what is new, opens it, and decodes
// every record.
func segments(ctx context.Context, e *env) error {
	lasting := time.Minute
	if e.Short {
		lasting = 20 * time.Second
	}
	for _, c := range []struct {
		name    string
		secrets int
	}{{"10,000 events/s", 0}, {"10,000 events/s and 100 secrets/s", secretsRate}} {
		of := *e
		of.dir = filepath.Join(e.dir, fmt.Sprint("secrets-", c.secrets))
		if err := of.segmentCase(ctx, c.name, c.secrets, lasting); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (e *env) segmentCase(ctx context.Context, name string, perSecond int, lasting time.Duration) (err error) {
	s, err := e.newStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return err
	}
	defer kafka.Close()
	counted := &countingBucket{Bucket: s.bucket}
	node, err := startNode(ctx, filepath.Join(e.dir, "node"), kafka, counted, s.recipients)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Stop()) }()

	w := newWaits()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var readers errgroup.Group
	for p := range int32(segmentShards) {
		readers.Go(func() error { return w.follow(reading, s.bucket, s.opener, p) })
	}
	counted.requests.Store(0)
	counted.stored.Store(0)
	_, cpu, err := timed(func() error { return w.produce(ctx, kafka, e.Seed, perSecond, lasting) })
	requests, stored := counted.requests.Load(), counted.stored.Load()
	err = errors.Join(err, w.settle(ctx))
	stop()
	if err = errors.Join(err, readers.Wait()); err != nil {
		return err
	}
	e.addWaits(name, w)
	hours := lasting.Hours()
	e.add(name, "requests to the bucket, by the archive", float64(requests)/hours, "an hour")
	if full, delta := e.report.fullRequests, e.report.deltaRequests; full > 0 && delta > 0 {
		e.add(name, "requests, with a delta a minute and a full backup a day", float64(requests)/hours+60*delta+full/24, "an hour")
	}
	e.add(name, "stored for each byte of keys and values", float64(stored)/float64(w.bytes.Load()), "bytes")
	e.add(name, "processor time of Kafka, node, bucket and reader", cpu.Seconds()/lasting.Seconds(), "s/s")
	return nil
}

// addWaits adds how long events have waited.
func (e *env) addWaits(name string, w *waits) {
	for _, stream := range []events.Stream{stream, secrets} {
		all := w.of(stream)
		if len(all) == 0 {
			continue
		}
		for _, q := range []struct {
			measure string
			part    float64
		}{{"50%", 0.5}, {"99%", 0.99}, {"99.9%", 0.999}, {"100%", 1}} {
			e.add(name, fmt.Sprintf("%s: %s of %d events are in the bucket within", stream, q.measure, len(all)), quantile(all, q.part).Seconds(), "s")
		}
		p999 := quantile(all, 0.999).Seconds()
		if have := e.report.Summary.SegmentP999S; stream != secrets && (have == nil || p999 > *have) {
			e.report.Summary.SegmentP999S = &p999
		}
	}
}

// quantile is the smallest of some sorted durations that so large a part of them does
// not exceed.
func quantile(sorted []time.Duration, part float64) time.Duration {
	i := int(part*float64(len(sorted))+0.999999) - 1
	return sorted[max(0, min(i, len(sorted)-1))]
}

// startNode starts a node of a region of its own, with the defaults of a configuration.
func startNode(ctx context.Context, dir string, kafka *kfake.Cluster, bucket objstore.Bucket, recipients []string) (*pipeline.Node, error) {
	text := fmt.Sprintf(`
region: %s
data_dir: %s
partitions: %d
api: {listen: "127.0.0.1:0"}
streams: {%s: , %s: }
regions: {%s: {kafka: {seeds: [%q]}}}
backup: {bucket: backups, recipients: [%s, %s], schedule: {full: 0s}}
`, region, dir, segmentShards, stream, secrets, region, kafka.ListenAddrs()[0], recipients[0], recipients[1])
	cfg, err := config.Parse("bench.yaml", []byte(text), nil)
	if err != nil {
		return nil, err
	}
	node, err := pipeline.StartNode(ctx, cfg, pipeline.Parts{Bucket: bucket, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(readerInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(segmentPatience); ; {
		if err = node.Ready(ctx); err == nil {
			return node, nil
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(err, node.Stop())
		}
		<-tick.C
	}
}

// place is where a record is.
type place struct {
	stream events.Stream
	shard  int32
	offset int64
}

// waits are when events were acknowledged, and when they could be read in the bucket.
type waits struct {
	bytes atomic.Int64

	mu    sync.Mutex
	acked map[place]time.Time
	found map[place]time.Time
}

func newWaits() *waits { return &waits{acked: map[place]time.Time{}, found: map[place]time.Time{}} }

// produce writes events at a steady rate, and some secrets.
func (w *waits) produce(ctx context.Context, kafka *kfake.Cluster, seed uint64, perSecond int, lasting time.Duration) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(kafka.ListenAddrs()...), kgo.ProducerLinger(0), kgo.RequiredAcks(kgo.AllISRAcks()))
	if err != nil {
		return err
	}
	defer client.Close()
	values, random := payload.New(seed), rand.New(rand.NewPCG(seed, 0))
	failed := make(chan error, 1)
	written := func(r *kgo.Record, err error) {
		if err != nil {
			select {
			case failed <- err:
			default: // one is enough
			}
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.acked[place{events.Stream(r.Topic), r.Partition, r.Offset}] = time.Now()
	}
	put := func(topic events.Stream) {
		r := &kgo.Record{Topic: string(topic), Key: fmt.Appendf(nil, "key-%06d", random.IntN(100_000)), Value: values.Record(segmentValue).Value}
		w.bytes.Add(int64(len(r.Key) + len(r.Value)))
		client.Produce(ctx, r, written)
	}
	tick := time.NewTicker(producerInterval)
	defer tick.Stop()
	begun := time.Now()
	for sent, hidden := 0, 0; ; {
		since := min(time.Since(begun), lasting).Seconds()
		for ; sent < int(since*segmentRate); sent++ {
			put(stream)
		}
		for ; hidden < int(since*float64(perSecond)); hidden++ {
			put(secrets)
		}
		if time.Since(begun) >= lasting {
			break
		}
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// follow reads the segments of a shard as they come, until the context ends.
func (w *waits) follow(ctx context.Context, b objstore.Reader, opener *seal.Opener, p int32) error {
	tick := time.NewTicker(readerInterval)
	defer tick.Stop()
	for last := int64(0); ; {
		for s, err := range segment.Walk(ctx, b, opener, region, p, last) {
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			if err := w.take(s); err != nil {
				return err
			}
			last = s.Number
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// take notes the records of a segment.
func (w *waits) take(s *segment.Segment) error {
	var places []place
	for _, part := range s.Parts {
		for r, err := range s.Records(part.Log, 0) {
			if err != nil {
				return err
			}
			places = append(places, place{part.Log.Stream, s.Shard, r.Offset})
		}
	}
	now := time.Now() // all of it has been read
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range places {
		w.found[at] = now
	}
	return nil
}

// settle waits until everything that was acknowledged was found.
func (w *waits) settle(ctx context.Context) error {
	tick := time.NewTicker(readerInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(segmentPatience); ; {
		w.mu.Lock()
		acked, found := len(w.acked), len(w.found)
		w.mu.Unlock()
		if found >= acked {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d acknowledged events are in the bucket after %s", found, acked, segmentPatience)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// of are the waits of a stream's events, sorted.
func (w *waits) of(stream events.Stream) (all []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, acked := range w.acked {
		if at.stream == stream {
			all = append(all, max(0, w.found[at].Sub(acked)))
		}
	}
	slices.Sort(all)
	return all
}
