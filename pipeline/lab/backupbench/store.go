package backupbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	"github.com/evenkeel/evenkeel/projections/touched"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

const (
	region = events.Region("us-east-1")
	stream = events.Stream("session")
	bucket = "backups"
)

// store is a bucket on disk behind the embedded S3 server, and the keys that what is
// in it is sealed for.
type store struct {
	server *s3server.Server
	bucket objstore.Bucket
	sealer *seal.Sealer
	opener *seal.Opener

	recipients []string // of the keys
}

// distance is about what a bucket in the cloud takes to answer, instead of nothing.
const distance = 20 * time.Millisecond

// distant is the store as one that is so far away.
func (s *store) distant() *store {
	far := *s
	far.bucket = faults.New(s.bucket, faults.Rule{Ops: []string{objstore.OpGet, objstore.OpGetRange, objstore.OpList}, Effect: faults.Wait, Delay: distance})
	return &far
}

// gigabit is what a network of 1 Gbit/s brings, in bytes a second.
const gigabit = 125e6

// limited is the store as one that is read at so many bytes a second at most, by all together.
func (s *store) limited(bytesPerSecond float64) *store {
	slow := *s
	slow.bucket = &limitedBucket{Bucket: s.bucket, line: rate.NewLimiter(rate.Limit(bytesPerSecond), lineBurst)}
	return &slow
}

const lineBurst = 64 << 10

// limitedBucket is a bucket at the end of a line.
type limitedBucket struct {
	objstore.Bucket
	line *rate.Limiter
}

// Get implements objstore.Bucket.
func (b *limitedBucket) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	body, info, err := b.Bucket.Get(ctx, name)
	if err != nil {
		return nil, info, err
	}
	return &limitedBody{body, ctx, b.line}, info, nil
}

// limitedBody is an object that comes over a line.
type limitedBody struct {
	io.ReadCloser
	ctx  context.Context //nolint:containedctx // io.Reader has none
	line *rate.Limiter
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), lineBurst)])
	if err := b.line.WaitN(b.ctx, n); err != nil {
		return n, err
	}
	return n, err
}

func (e *env) newStore(ctx context.Context) (*store, error) {
	var s store
	for range seal.MinRecipients {
		identity, recipient, err := seal.Generate(false, time.Now())
		if err != nil {
			return nil, err
		}
		if s.opener, err = seal.NewOpener("the benchmark's key", identity); err != nil {
			return nil, err
		}
		s.recipients = append(s.recipients, recipient)
	}
	var err error
	if s.sealer, err = seal.NewSealer(s.recipients); err != nil {
		return nil, err
	}
	s.server, err = s3server.Start(s3server.Config{
		Dir: filepath.Join(e.dir, "s3"), Addr: "127.0.0.1:0", Buckets: []string{bucket}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	s.bucket, err = objstore.NewS3(ctx, objstore.S3Config{
		Bucket: bucket, Endpoint: s.server.URL(), Region: s3server.Region, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s3server.DefaultAccessKey, s3server.DefaultSecretKey, ""),
	})
	if err != nil {
		return nil, errors.Join(err, s.server.Close())
	}
	return &s, nil
}

func (s *store) close() error { return s.server.Close() }

// state is the shards of a region, with events of three origins.
type state struct {
	shards []*projections.Shard
	dir    string
	random *rand.Rand
	next   map[events.Log]int64
	values *payload.Payload

	// note, if not nil, is where it is remembered which keys of a log are written.
	note func(l events.Log) *touched.Set
}

var origins = []events.Region{"eu-central-1", "us-east-1", "us-west-1"}

// newState makes empty shards.
func (e *env) newState(name string, shards int32) (*state, error) {
	st := &state{
		dir: filepath.Join(e.dir, name), random: rand.New(rand.NewPCG(e.Seed, 0)),
		next: map[events.Log]int64{}, values: payload.New(e.Seed),
	}
	for p := range shards {
		shard, err := projections.Open(st.config(st.dir, p))
		if err != nil {
			return nil, errors.Join(err, st.close())
		}
		st.shards = append(st.shards, shard)
	}
	return st, nil
}

func (st *state) config(dir string, p int32) projections.Config {
	return projections.Config{
		Partition: p, Dir: filepath.Join(dir, fmt.Sprintf("shard-%04d", p)), Rules: map[events.Stream]merge.Rule{stream: lww.Rule{}},
		Lineage: projections.Lineage{ID: "bench", Started: time.Now()},
	}
}

// close closes the shards; once is enough, and twice does no harm.
func (st *state) close() (err error) {
	for _, shard := range st.shards {
		err = errors.Join(err, shard.Close())
	}
	st.shards = nil
	return err
}

// cuts freezes all shards. With an error come those that were frozen.
func (st *state) cuts() (cuts []snapshotter.Cut, err error) {
	for _, shard := range st.shards {
		c, err := shard.Freeze()
		if err != nil {
			return cuts, err
		}
		cuts = append(cuts, cut{c})
	}
	return cuts, nil
}

// closeCuts lets go of cuts.
func closeCuts(cuts []snapshotter.Cut) (err error) {
	for _, c := range cuts {
		err = errors.Join(err, c.(io.Closer).Close())
	}
	return err
}

func backupConfig(s *store) snapshotter.Config {
	return snapshotter.Config{Region: region, Software: "bench", Merge: map[events.Stream]string{stream: "lww"}, Sealer: s.sealer}
}

const batchRecords = 2000

func stateKey(k int) []byte { return fmt.Appendf(nil, "key-%010d", k) }

// put folds an event for each of some keys, each in the shard and from the origin that
// the key always has.
func (st *state) put(ctx context.Context, count int, key func(i int) int, valueBytes int) error {
	for done := 0; done < count; {
		if err := ctx.Err(); err != nil {
			return err
		}
		runs := make([]map[events.Log][]*kgo.Record, len(st.shards))
		for n := min(batchRecords*len(st.shards), count-done); n > 0; n, done = n-1, done+1 {
			k := key(done)
			p := k % len(st.shards)
			l := events.Log{Origin: events.FirstOrigin(origins[k/len(st.shards)%len(origins)]), Stream: stream, Partition: int32(p)}
			if runs[p] == nil {
				runs[p] = map[events.Log][]*kgo.Record{}
			}
			r := &kgo.Record{
				Offset: st.next[l], Timestamp: time.Now(), Key: stateKey(k), Value: st.values.Record(valueBytes).Value,
			}
			runs[p][l] = append(runs[p][l], r)
			if st.note != nil {
				st.note(l).Note(l, r)
			}
			st.next[l]++
		}
		for p, logs := range runs {
			var list []projections.Run
			for l, records := range logs {
				list = append(list, projections.Run{Log: l, Records: records})
			}
			if _, err := st.shards[p].Apply(list); err != nil {
				return err
			}
		}
	}
	return nil
}
