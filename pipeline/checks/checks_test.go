package checks_test

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

const (
	us events.Region = "us-east-1"
	eu events.Region = "eu-central-1"
)

var log = events.Log{Origin: events.FirstOrigin(us), Stream: "session"}

// configOf is the configuration of one of two regions with one shard.
func configOf(region events.Region) *config.Config {
	cfg := config.Default()
	cfg.Region, cfg.Partitions = region, 1
	cfg.Streams = map[events.Stream]config.Stream{"session": {Topic: "session", Merge: "lww"}}
	cfg.Regions = map[events.Region]config.Region{us: {Incarnation: 1}, eu: {Incarnation: 1}}
	return &cfg
}

// world is the cluster of a region, in a bubble, with both topics of attestations.
type world struct {
	*testing.T
	opts []kgo.Opt
}

func run(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		cfg := configOf(eu)
		topics := []string{cfg.AttestationTopic(), log.Origin.MirrorTopic(cfg.AttestationTopic())}
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9001), kfake.ListenFn(network.Listen), kfake.SeedTopics(1, topics...))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		test(&world{T: t, opts: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:9001"), kgo.Dialer(network.DialContext)}})
	})
}

func (w *world) client(more ...kgo.Opt) *kgo.Client {
	w.Helper()
	client, err := kgo.NewClient(append(slices.Clone(w.opts), more...)...)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(client.Close)
	return client
}

// shard has folded so many events of the log; one with another word for each key if it is wrong.
func (w *world) shard(n int, isWrong bool) *projections.Shard {
	w.Helper()
	rule, err := projections.LookupRule("lww")
	if err != nil {
		w.Fatal(err)
	}
	s, err := projections.Open(projections.Config{Dir: "shard", FS: vfs.NewMem(), Rules: map[events.Stream]merge.Rule{"session": rule}, MemTableBytes: 1 << 20})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.Error(err)
		}
	})
	var records []*kgo.Record
	for i := range n {
		records = append(records, &kgo.Record{Offset: int64(i), Key: fmt.Append(nil, i), Value: fmt.Append(nil, "v", isWrong), Timestamp: time.UnixMilli(int64(i))})
	}
	if _, err := s.Apply([]projections.Run{{Log: log, Records: records}}); err != nil {
		w.Fatal(err)
	}
	return s
}

func holding(s *projections.Shard) checks.Holder {
	return func(int32) (*projections.Shard, func()) { return s, func() {} }
}

// attest has the origin attest what a shard of its own has, and a link mirror it.
func (w *world) attest(s *projections.Shard) {
	w.Helper()
	cfg := configOf(us)
	client := w.client(kgo.ConsumeTopics(cfg.AttestationTopic()))
	go checks.NewAttester(cfg, client, holding(s), func(events.Log, int64) bool { return false }, checks.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler)).Run(w.Context())
	records := client.PollFetches(w.Context()).Records()
	if len(records) == 0 {
		w.Fatal("nothing is attested")
	}
	for _, r := range records {
		mirrored := &kgo.Record{Topic: log.Origin.MirrorTopic(r.Topic), Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
		if err := client.ProduceSync(w.Context(), mirrored).FirstErr(); err != nil {
			w.Fatal(err)
		}
	}
}

func (w *world) checker(s *projections.Shard) *checks.Checker {
	w.Helper()
	cfg := configOf(eu)
	client := w.client(kgo.ConsumeTopics(log.Origin.MirrorTopic(cfg.AttestationTopic())), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	c := checks.New(cfg, client, holding(s), checks.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	go c.Read(w.Context())
	go c.Compare(w.Context())
	return c
}

func resultOf(t *testing.T, c *checks.Checker) divergence.Result {
	t.Helper()
	for _, f := range c.Findings(nil) {
		if f.Log == log {
			return f.Result
		}
	}
	t.Fatalf("%s is not compared", log)
	return ""
}

// What an origin attests is compared with the shard, and what is equal, differs and is not there is told apart.
func TestWhatIsAttestedIsCompared(t *testing.T) {
	for name, c := range map[string]struct {
		events int // that the region has folded
		wrong  bool
		want   divergence.Result
	}{
		"equal":   {10, false, divergence.Consistent},
		"differs": {10, true, divergence.Diverged},
		"behind":  {9, false, divergence.Indeterminate},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(w *world) {
				w.attest(w.shard(10, false))
				checker := w.checker(w.shard(c.events, c.wrong))
				time.Sleep(5 * time.Second)
				if got := resultOf(w.T, checker); got != c.want {
					w.Errorf("%s, want %s", got, c.want)
				}
				if err := checker.Acknowledge(log); (err == nil) != (c.want == divergence.Diverged) {
					w.Errorf("acknowledged: %v", err)
				}
			})
		})
	}
}

// The same words are had for states that are not open.
func TestAttestedOfStates(t *testing.T) {
	run(t, func(w *world) {
		good := w.shard(10, false)
		w.attest(good)
		a, err := checks.ReadAttested(w.Context(), configOf(eu), w.opts)
		if err != nil {
			w.Fatal(err)
		}
		if g := a.OfStates(good.Logs()); !slices.Equal(g.Agrees, []events.Region{us}) || g.Err() != nil {
			w.Errorf("%+v", g)
		}
		if g := a.OfStates(w.shard(10, true).Logs()); len(g.Differs) != 1 || g.Err() == nil {
			w.Errorf("%+v", g)
		}
		if g := a.OfStates(w.shard(9, false).Logs()); !slices.Equal(g.Unknown, []events.Region{us}) || len(g.Agrees) != 0 {
			w.Errorf("%+v", g)
		}
	})
}
