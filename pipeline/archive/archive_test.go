package archive_test

import (
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

var (
	seedFlag = flag.Uint64("archive.seed", 0, "run this seed alone")
	manyFlag = flag.Int("archive.n", 0, "run so many seeds (default 20, or 4 with -short)")
)

func seeds() (list []uint64) {
	if *seedFlag > 0 {
		return []uint64{*seedFlag}
	}
	n := *manyFlag
	if n == 0 {
		n = 20
		if testing.Short() {
			n = 4
		}
	}
	for i := range n {
		list = append(list, uint64(i+1))
	}
	return list
}

// Whatever fails, is lost, comes late, is killed, and whoever archives at the same
// time: the archive of each log is exactly the log.
func TestArchiveIsTheLog(t *testing.T) {
	for _, seed := range seeds() {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			simulate(t, seed, func(w *world) {
				processes := make([]*process, 3)
				for range 80 {
					w.upset(processes)
					time.Sleep(time.Duration(w.rng.IntN(3_000)) * time.Millisecond)
				}
				w.bucket.SetRules()
				for _, p := range processes {
					if p != nil {
						p.kill()
					}
				}
				w.bucket.Land(w.Context())
				p := w.start(0, 1)
				defer p.end()
				w.archived()
				w.bucket.Land(w.Context())
				w.check()
				if problems := p.Problems(); len(problems) > 0 {
					t.Errorf("problems: %q", problems)
				}
			})
		})
	}
}

// upset does one of the things that happen.
func (w *world) upset(processes []*process) {
	w.Helper()
	i := w.rng.IntN(len(processes))
	p := processes[i]
	switch w.rng.IntN(12) {
	case 0, 1, 2, 3:
		for range 1 + w.rng.IntN(4) {
			stream := events.Stream("session")
			if w.rng.IntN(3) == 0 {
				stream = "secrets"
			}
			w.produce(stream, int32(w.rng.IntN(partitions)), 1+w.rng.IntN(10))
		}
	case 4, 5:
		switch {
		case p == nil:
			processes[i] = w.start(w.someShards()...)
		case w.rng.IntN(3) == 0:
			p.end()
			processes[i] = nil
		case w.rng.IntN(2) == 0:
			p.kill()
			processes[i] = nil
		}
	case 6, 7:
		if p != nil {
			p.node.set(w.someShards()...)
		}
	case 8:
		if p != nil {
			p.node.mu.Lock()
			p.node.unsure = nil
			if w.rng.IntN(2) == 0 {
				p.node.unsure = errors.New("claims cannot be read")
			}
			p.node.mu.Unlock()
		}
	case 9:
		w.bucket.Land(w.Context())
	default:
		w.bucket.SetRules(w.someFaults()...)
	}
}

func (w *world) someShards() []int32 { return [][]int32{{}, {0}, {1}, {0, 1}, {0, 1}}[w.rng.IntN(5)] }

func (w *world) someFaults() (rules []faults.Rule) {
	reads := []string{objstore.OpList, objstore.OpGet, objstore.OpGetRange, objstore.OpStat}
	for _, r := range []faults.Rule{
		{Ops: []string{objstore.OpCreate}, Effect: faults.FailBefore},
		{Ops: []string{objstore.OpCreate}, Effect: faults.FailAfter},
		{Ops: []string{objstore.OpCreate}, Effect: faults.Late},
		{Ops: []string{objstore.OpCreate}, Effect: faults.Conflict},
		{Ops: []string{objstore.OpCreate}, Delay: time.Duration(w.rng.IntN(9_000)) * time.Millisecond},
		{Ops: reads, Effect: faults.FailBefore},
		{Ops: reads, Effect: faults.FailAfter},
		{Effect: faults.TearBody},
		{Effect: faults.TruncateBody},
		{Effect: faults.FlipBit},
		{Effect: faults.Deny},
	} {
		if w.rng.IntN(3) == 0 {
			r.Probability = 0.1 + 0.5*w.rng.Float64()
			rules = append(rules, r)
		}
	}
	return rules
}

// Each write of the archive fails once, in each way, with the process killed right
// afterwards or not.
func TestEveryWrite(t *testing.T) {
	for _, effect := range []faults.Effect{faults.FailBefore, faults.FailAfter, faults.Late, faults.Torn} {
		for nth := 1; nth <= 4; nth++ {
			for _, killed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/killed=%t", effect, nth, killed), func(t *testing.T) {
					simulate(t, uint64(nth), func(w *world) {
						w.bucket.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Nth: nth, Effect: effect})
						p := w.start(0, 1)
						for range 3 {
							for shard := range int32(partitions) {
								w.produce("session", shard, 5)
								w.produce("secrets", shard, 1)
							}
							w.await("struck, or done", func() error {
								if killed && len(w.bucket.Log()) > 0 || p.Held() == 0 {
									return nil
								}
								return errors.New("neither")
							})
							if killed && len(w.bucket.Log()) > 0 {
								p.kill()
								p = w.start(0, 1)
							}
						}
						w.bucket.Land(w.Context())
						w.archived()
						p.end()
					})
				})
			}
		}
	}
}

// An event waits no longer than its stream's limit, and a secret takes the others along.
func TestLimits(t *testing.T) {
	simulate(t, 1, func(w *world) {
		p := w.start(0, 1)
		defer p.end()
		w.produce("session", 0, 1)
		w.archived()
		took := func(what string, want time.Duration, shards ...int32) {
			t.Helper()
			begun := time.Now()
			w.archived()
			if got := time.Since(begun); got < want/2 || got > want+100*time.Millisecond {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		for range 3 {
			time.Sleep(time.Duration(w.rng.IntN(10_000)) * time.Millisecond)
			w.produce("session", 0, 1)
			took("an event", limit)
			w.produce("session", 1, 1)
			time.Sleep(limit / 2)
			w.produce("session", 1, 1)
			took("the oldest counts", limit/2)
			w.produce("session", 1, 3)
			w.produce("secrets", 1, 1)
			took("with a secret", time.Second)
		}
		n := p.counter(t, "evenkeel_archive_segments_total")
		time.Sleep(time.Hour)
		if got := p.counter(t, "evenkeel_archive_segments_total"); got != n || p.Held() != 0 {
			t.Errorf("%f segments of nothing, %d bytes held", got-n, p.Held())
		}
	})
}

// A stop closes what was gathered.
func TestStopArchives(t *testing.T) {
	simulate(t, 1, func(w *world) {
		p := w.start(0, 1)
		w.produce("session", 0, 1)
		w.archived()
		w.produce("session", 0, 5)
		w.produce("session", 1, 5)
		w.await("read", func() error {
			if p.Held() == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		time.Sleep(100 * time.Millisecond)
		begun := time.Now()
		p.end()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the stop took %s", took)
		}
		w.archived()
	})
}

// A bucket that is away is told, nothing is lost, and memory is bounded.
func TestBucketAway(t *testing.T) {
	simulate(t, 1, func(w *world) {
		p := w.start(0)
		w.produce("session", 0, 1)
		w.await("archived", func() error { _, err := segment.Header(w.Context(), w.memory, us, 0, 1); return err })
		w.bucket.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.FailBefore})
		value := make([]byte, 900_000)
		for i := range value {
			value[i] = byte(w.rng.Uint32())
		}
		most := int64(0)
		for range 60 {
			if err := w.client.ProduceSync(w.Context(), &kgo.Record{Topic: "session", Partition: 0, Key: []byte("large"), Value: value}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			most = max(most, p.Held())
		}
		if most < 16<<20 || most > 40<<20 {
			t.Errorf("%d bytes of %d were held", most, 60*len(value))
		}
		w.says(p, "the archive of shard 0 does not go on", "nothing is lost")
		w.bucket.SetRules()
		w.await("archived", func() error {
			if p.Held() > 0 || len(p.Problems()) > 0 {
				return fmt.Errorf("%d bytes are held; %q", p.Held(), p.Problems())
			}
			return nil
		})
		p.node.set(0, 1)
		w.archived()
		p.end()
	})
}

// While it is not sure that the shard is the node's nothing is appended.
func TestUnsure(t *testing.T) {
	simulate(t, 1, func(w *world) {
		p := w.start(0, 1)
		w.produce("session", 0, 1)
		w.archived()
		unsure := func(err error) {
			p.node.mu.Lock()
			defer p.node.mu.Unlock()
			p.node.unsure = err
		}
		unsure(errors.New("claims were not confirmed"))
		w.produce("session", 0, 1)
		w.says(p, "claims were not confirmed")
		time.Sleep(time.Minute)
		if s, err := segment.Newest(w.Context(), w.memory, us, 0); err != nil || s.Number != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		unsure(nil)
		w.archived()
		p.end()
	})
}

// What a log has lost is a gap: in the archive, in the metrics, in the status. What
// follows is archived.
func TestGap(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			simulate(t, 1, func(w *world) {
				l := logOf("session", 0)
				p := w.start(0, 1)
				w.produce("session", 0, 5)
				w.archived()
				if running { // and held back by the bucket
					w.bucket.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.FailBefore})
				} else {
					p.end()
				}
				w.produce("session", 0, 10)
				if running {
					time.Sleep(time.Minute)
					w.cutOff(l, 12)
					w.bucket.SetRules()
					w.await("archived, since it had been read", func() error {
						if p.Held() > 0 {
							return errors.New("not yet")
						}
						return nil
					})
					p.end()
					w.produce("session", 0, 10)
					w.cutOff(l, 20)
				} else {
					w.cutOff(l, 12)
				}
				p = w.start(0, 1)
				from, to := int64(5), int64(12)
				if running {
					from, to = 15, 20
				}
				w.says(p, fmt.Sprintf("offsets %d to %d", from, to-1))
				w.produce("session", 0, 3)
				w.await("archived", func() error {
					s, err := segment.Newest(w.Context(), w.memory, us, 0)
					if err != nil {
						return err
					}
					if end, _ := s.End(l); end.Next < w.end(l) {
						return fmt.Errorf("up to %d", end.Next)
					}
					return nil
				})
				if got := p.counter(t, "evenkeel_archive_gap_records_total"); got != float64(to-from) {
					t.Errorf("%f records in gaps", got)
				}
				var gaps []string
				var got []*kgo.Record
				for s, err := range segment.Walk(w.Context(), w.memory, nil, us, 0, 0) {
					if err != nil {
						t.Fatal(err)
					}
					if part := s.Part(l); part != nil && part.Gap != nil {
						gaps = append(gaps, fmt.Sprintf("%d-%d %s", part.Gap.From, part.From, part.Gap.Reason))
						got = nil
					}
					for r, err := range s.Records(l, 0) {
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, r)
					}
				}
				if len(gaps) != 1 {
					t.Errorf("gaps: %q", gaps)
				}
				w.same(l, w.read(l, to), got)
				p.end()
			})
		})
	}
}

// A log that ends before its archive does was truncated or made anew: its archive stops,
// those of others go on.
func TestTruncated(t *testing.T) {
	simulate(t, 1, func(w *world) {
		p := w.start(0, 1)
		w.produce("session", 0, 5)
		w.produce("secrets", 0, 5)
		w.archived()
		p.end()
		w.recreate("session")
		w.produce("session", 0, 2)
		p = w.start(0, 1)
		defer p.end()
		w.says(p, "session/0", "truncated or made anew")
		w.produce("session", 0, 20)
		w.produce("secrets", 0, 5)
		w.await("archived", func() error {
			s, err := segment.Newest(w.Context(), w.memory, us, 0)
			if err != nil {
				return err
			}
			if end, _ := s.End(logOf("secrets", 0)); end.Next != 10 {
				return fmt.Errorf("up to %d", end.Next)
			}
			if end, _ := s.End(logOf("session", 0)); end.Next != 5 {
				t.Errorf("the other log is archived up to %d", end.Next)
			}
			return nil
		})
	})
}

// The end of a transaction is no record, and what was aborted is none.
func TestTransactions(t *testing.T) {
	simulate(t, 1, func(w *world) {
		p := w.start(0, 1)
		defer p.end()
		producer, err := kgo.NewClient(append(w.opts(), kgo.TransactionalID("tx"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		defer producer.Close()
		for i := range 6 {
			if err := producer.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				r := &kgo.Record{Topic: "session", Partition: 0, Key: []byte("k"), Value: fmt.Append(nil, i)}
				if err := producer.ProduceSync(w.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			if err := producer.EndTransaction(w.Context(), kgo.TransactionEndTry(i%3 != 1)); err != nil {
				t.Fatal(err)
			}
		}
		l := logOf("session", 0)
		w.await("archived", func() error {
			s, err := segment.Newest(w.Context(), w.memory, us, 0)
			if err != nil || s == nil {
				return fmt.Errorf("%+v, %w", s, err)
			}
			end, _ := s.End(l)
			if end.Next < w.end(l)-2 { // those of the transactions' ends that come last
				return fmt.Errorf("up to %d of %d", end.Next, w.end(l))
			}
			return nil
		})
		time.Sleep(time.Minute)
		for _, point := range p.Points() {
			if point.Records == nil || *point.Records != 0 || *point.Age != 0 {
				t.Errorf("%+v", point)
			}
		}
		w.check()
		if n := len(w.read(l, 0)); n != 12 {
			t.Errorf("%d records", n)
		}
	})
}
