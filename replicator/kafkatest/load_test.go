//go:build kafka

package kafkatest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// load is independent producers, one for each codec, that write to the world's
// topic until they are stopped.
type load struct {
	w       *world
	cancel  context.CancelFunc
	running sync.WaitGroup
	acked   atomic.Int64 // records of runs of kcat that ended well
	failed  atomic.Int64 // runs that did not: their records may or may not be there
	reason  atomic.Value // error of the last that did not
}

const (
	runRecordsMost = 200                    // of one run of kcat
	runPause       = 300 * time.Millisecond // a producer's pace
	failedPause    = time.Second            // while there is no broker
)

func (w *world) load(seed uint64) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{w: w, cancel: cancel}
	for i, codec := range codecs {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		l.running.Go(func() {
			for run := 0; ctx.Err() == nil; run++ {
				if l.run(codec, run, random) {
					time.Sleep(runPause)
				} else {
					time.Sleep(failedPause)
				}
			}
		})
	}
	w.Cleanup(l.stop)
	return l
}

// transactionalLoad is one producer of transactions, of which some abort, beside
// plain ones.
func (w *world) transactionalLoad(seed uint64) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{w: w, cancel: cancel}
	l.running.Go(func() {
		random := rand.New(rand.NewPCG(seed, 100))
		for ctx.Err() == nil {
			if !l.transact(ctx, random) {
				l.failed.Add(1)
				time.Sleep(failedPause)
			}
		}
	})
	l.running.Go(func() {
		random := rand.New(rand.NewPCG(seed, 101))
		for run := 0; ctx.Err() == nil; run++ {
			l.run(codecs[run%len(codecs)], run, random)
			time.Sleep(runPause)
		}
	})
	w.Cleanup(l.stop)
	return l
}

// transact makes transactions until the context ends or one is in doubt: then the
// next producer of this name has the broker end it.
func (l *load) transact(ctx context.Context, random *rand.Rand) (fine bool) {
	client, err := kgo.NewClient(append(l.w.source.reach(), kgo.TransactionalID(l.w.topic), kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(transactionTimeout))...)
	if err != nil {
		return false
	}
	defer client.Close()
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(context.Background(), transactionTimeout)
		n, err := l.transaction(bounded, client, random)
		cancel()
		if err != nil {
			return false
		}
		l.acked.Add(n)
		time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond) // a producer's pace
	}
	return true
}

const transactionTimeout = 10 * time.Second

// transaction writes a few records to a few partitions and commits or aborts. It
// tells how many were committed.
func (l *load) transaction(ctx context.Context, client *kgo.Client, random *rand.Rand) (committed int64, err error) {
	if err := client.BeginTransaction(); err != nil {
		return 0, err
	}
	for num := range int32(partitions) {
		if random.IntN(3) == 0 {
			continue
		}
		n := 1 + random.IntN(20)
		if err := client.ProduceSync(ctx, l.w.source.records(l.w.topic, num, n)...).FirstErr(); err != nil {
			return 0, err
		}
		committed += int64(n)
	}
	commit := random.IntN(4) > 0
	if !commit {
		committed = 0
	}
	return committed, client.EndTransaction(ctx, kgo.TransactionEndTry(commit))
}

// run produces numbered records of one run of kcat. Sizes of batches are drawn:
// from one record each to all in one. It reports whether all were acknowledged.
func (l *load) run(codec string, run int, random *rand.Rand) (acked bool) {
	n := 1 + random.IntN(runRecordsMost)
	var input bytes.Buffer
	for i := range n {
		fmt.Fprintf(&input, "key-%d\t%s %d %d %x\n", random.IntN(50), codec, run, i, bytes.Repeat([]byte{byte(i)}, random.IntN(300)))
	}
	lingerMillis := []int{0, 1, 20}[random.IntN(3)]
	_, err := l.w.source.kcat(&input, "-P", "-t", l.w.topic, "-K", "\t", "-z", codec, "-H", "codec="+codec,
		"-X", "acks=all", "-X", "enable.idempotence=true", "-X", "message.timeout.ms=30000", "-X", fmt.Sprintf("linger.ms=%d", lingerMillis))
	if err != nil {
		l.failed.Add(1) // its broker was killed; the log is the truth
		l.reason.Store(err)
		return false
	}
	l.acked.Add(int64(n))
	return true
}

// stop ends the load and waits for what is under way; a second time it does
// nothing.
func (l *load) stop() {
	l.cancel()
	l.running.Wait()
}
