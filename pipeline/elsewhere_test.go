package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// keyPeers is the three nodes of a region, of which each has one shard. The first asks the
// others for keys.
type keyPeers struct {
	*testing.T
	made  *movedShard // makes nodes
	nodes [3]*Region
	logs  [3]events.Log // of three origins, in the partitions of the nodes

	mu      sync.Mutex
	asked   [3][]int // how many keys each node was asked for, by question that it has taken
	refused [3]int   // questions
	most    [3]int   // keys that a node answers for in time; 0: any number
}

// withKeyPeers runs a test in a bubble. The nodes take questions of up to so many bytes.
func withKeyPeers(t *testing.T, maxBody [3]int64, test func(k *keyPeers)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := config.Default()
		cfg.Region, cfg.Partitions = "us-east-1", 3
		cfg.Streams = map[events.Stream]config.Stream{"session": {Topic: "session", Merge: "lww"}}
		cfg.Limits.MinFreeBytes = 0
		cfg.Regions = map[events.Region]config.Region{"us-east-1": {Incarnation: 1}, "eu-central-1": {Incarnation: 1}, "us-west-1": {Incarnation: 1}}
		k := &keyPeers{T: t}
		var network kfake.VirtualNetwork
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9001), kfake.ListenFn(network.Listen), kfake.SeedTopics(cfg.Partitions, claims.Topic(&cfg)))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		k.made = &movedShard{T: t, dial: network.DialContext, opts: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:9001"), kgo.Dialer(network.DialContext)}}
		for i, origin := range []events.Region{"us-east-1", "eu-central-1", "us-west-1"} {
			address := fmt.Sprintf("127.0.0.1:%d", 8001+i)
			r := k.made.nodeAt(&cfg, fmt.Sprint("node-", i), "http://"+address)
			r.keeper = &keeper{places: make([]place, 3)}
			k.nodes[i], k.logs[i] = r, events.Log{Origin: events.FirstOrigin(origin), Stream: "session", Partition: int32(i)}
			rule, err := projections.LookupRule("lww")
			if err != nil {
				t.Fatal(err)
			}
			shard, err := projections.Open(projections.Config{
				Dir: "shard", FS: vfs.NewMem(), Partition: int32(i), Rules: map[events.Stream]merge.Rule{"session": rule}, MemTableBytes: 1 << 20,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = shard.Close() }()
			r.shards.put(int32(i), &openShard{Shard: shard})
			listener, err := network.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: k.counted(i, api.NewHandler(r, maxBody[i], slog.New(slog.DiscardHandler)))}
			go func() { _ = server.Serve(listener) }()
			defer server.Close()
			k.claim(r, int32(i))
		}
		defer k.nodes[0].peers.Close()
		test(k)
	})
}

// claim has a node claim a shard, and the one that asks know it.
func (k *keyPeers) claim(r *Region, shard int32) {
	k.Helper()
	if _, err := r.claims.Take(k.Context(), claims.ShardKey(shard), shard, 0); err != nil {
		k.Fatal(err)
	}
	if err := k.nodes[0].claims.Confirm(k.Context()); err != nil {
		k.Fatal(err)
	}
}

// counted notes what a node was asked for, and what it made of that.
func (k *keyPeers) counted(node int, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var call struct {
			Method string           `json:"method"`
			Params api.SlicesParams `json:"params"`
		}
		if err != nil {
			return // the other node has refused, and this one is not asked any more
		}
		if json.Unmarshal(body, &call) != nil || call.Method != "slices" {
			k.Errorf("%.100q", body)
		}
		if r.Header.Get("Evenkeel-Forwarded-By") != "node-0" {
			k.Errorf("asked by %q", r.Header.Get("Evenkeel-Forwarded-By"))
		}
		if most := k.most[node]; most > 0 && len(call.Params.Keys) > most {
			<-r.Context().Done()
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := &statusWriter{ResponseWriter: w}
		handler.ServeHTTP(answer, r)
		k.mu.Lock()
		defer k.mu.Unlock()
		if answer.status == http.StatusRequestEntityTooLarge {
			k.refused[node]++
		} else {
			k.asked[node] = append(k.asked[node], len(call.Params.Keys))
		}
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// put folds values of keys in a node's shard; an empty value is a delete.
func (k *keyPeers) put(node int, value string, keys ...string) {
	k.Helper()
	shard := k.nodes[node].shards.get(int32(node))
	next := shard.Next(k.logs[node])
	var records []*kgo.Record
	for i, key := range keys {
		r := &kgo.Record{Offset: next + int64(i), Key: []byte(key), Timestamp: time.Now()}
		if value != "" {
			r.Value = []byte(value)
		}
		records = append(records, r)
	}
	if _, err := shard.Apply([]projections.Run{{Log: k.logs[node], Records: records}}); err != nil {
		k.Fatal(err)
	}
}

// collector is one of which all regions have folded everything that the nodes have by now.
func (k *keyPeers) collector() *collector {
	k.Helper()
	jc := divergence.Config{Origin: k.logs[0].Origin, Format: func(events.Stream) uint32 { return 1 }}
	for _, l := range k.logs {
		jc.Origins = append(jc.Origins, l.Origin)
	}
	for _, o := range jc.Origins {
		for p := range int32(3) {
			jc.Logs = append(jc.Logs, events.Log{Origin: o, Stream: "session", Partition: p})
		}
	}
	judge := divergence.NewJudge(jc, nil, time.Now())
	for _, l := range jc.Logs {
		a := divergence.Attestation{Log: l, Format: 1, Made: time.Now()}
		for node, has := range k.logs {
			if next := k.nodes[node].shards.get(int32(node)).Next(has); has.Partition == l.Partition && next > 0 {
				a.Applied = append(a.Applied, events.Seen{Origin: has.Origin, Next: next})
			}
		}
		if err := judge.Attested(l.Origin, a, time.Now()); err != nil {
			k.Fatal(err)
		}
	}
	r := k.nodes[0]
	return &collector{cfg: r.cfg, gather: r.gather, checks: heardNow{judge}, askable: events.MaxCollected}
}

// heardNow asks a judge about now.
type heardNow struct{ *divergence.Judge }

func (h heardNow) Known(stream events.Stream, partition int32) (least, most events.Context, err error) {
	return h.Judge.Known(stream, partition, time.Now())
}

func (h heardNow) Behind() time.Duration { return h.Judge.Behind(time.Now()) }

func deadOf(keys []string) (dead []projections.Dead) {
	for _, key := range keys {
		dead = append(dead, projections.Dead{Tombstone: events.Tombstone{Key: key}})
	}
	return dead
}

// manyKeys are so many keys in order, of 1,000 bytes each.
func manyKeys(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("%04d-%s", i, strings.Repeat("k", 995)))
	}
	return keys
}

// Keys are asked for at the nodes that have the other shards, each for its own; a question that one of
// them does not take is halved until all do, and none is left out or asked for nothing.
func TestKeysOfOtherNodes(t *testing.T) {
	for name, c := range map[string]struct {
		maxBody [3]int64
		refused bool
	}{
		"in one question":           {maxBody: [3]int64{1 << 20, 1 << 20, 1 << 20}},
		"one node takes less":       {maxBody: [3]int64{1 << 20, 1 << 20, 30_000}, refused: true},
		"each takes another size":   {maxBody: [3]int64{1 << 20, 9_000, 60_000}, refused: true},
		"one takes a key at a time": {maxBody: [3]int64{1 << 20, 1_500, 1 << 20}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			withKeyPeers(t, c.maxBody, func(k *keyPeers) {
				keys := manyKeys(100)
				want := map[string]bool{}
				for i, key := range keys {
					switch i % 10 {
					case 3:
						k.put(1, "live", key)
						want[key] = true
					case 6:
						k.put(2, "live", key)
						want[key] = true
					case 8: // all regions know that it is deleted there
						k.put(1, "", key)
						k.put(2, "", key)
					}
				}
				k.put(0, "live in its own partition, which is looked at elsewhere", keys[0])
				collects := k.collector()
				k.put(1, "", "9999") // which not all regions know
				got, err := collects.neededElsewhere(k.Context(), k.logs[0], deadOf(append(keys, "9999")))
				if err != nil {
					t.Fatal(err)
				}
				want["9999"] = true
				for _, key := range append(keys, "9999") {
					if got[key] != want[key] {
						t.Errorf("%.5s: needed elsewhere %t", key, got[key])
					}
				}
				if len(k.asked[0]) > 0 || k.refused[0] > 0 {
					t.Errorf("the node has asked itself: %v", k.asked[0])
				}
				for node := 1; node < 3; node++ {
					sum := 0
					for _, n := range k.asked[node] {
						sum += n
					}
					if sum < len(keys)+1 || !c.refused && len(k.asked[node]) != 1 {
						t.Errorf("node %d was asked for %v keys", node, k.asked[node])
					}
				}
				if refused := k.refused[1]+k.refused[2] > 0; refused != c.refused {
					t.Errorf("refused %v", k.refused)
				}
			})
		})
	}
}

// A question that is not answered in time is halved, too, and it is remembered how much is.
func TestKeysOfSlowNodes(t *testing.T) {
	withKeyPeers(t, [3]int64{1 << 20, 1 << 20, 1 << 20}, func(k *keyPeers) {
		keys := manyKeys(100)
		k.most[2] = 30
		k.put(2, "live", keys[99])
		c := k.collector()
		begun := time.Now()
		for range 2 {
			needed, err := c.neededElsewhere(k.Context(), k.logs[0], deadOf(keys))
			if err != nil || !needed[keys[99]] || needed[keys[0]] {
				t.Fatal(err, needed)
			}
		}
		if took := time.Since(begun); took > 3*collectWait+time.Second {
			t.Errorf("it took %s: two questions too large at first, and one the second time", took)
		}
		if fmt.Sprint(k.asked[2]) != "[25 25 25 25 25 25 25 25]" {
			t.Errorf("asked for %v", k.asked[2])
		}
	})
}

// A question of which not even one key is taken, and a node that does not answer, are errors: nothing is
// collected then.
func TestKeysThatCannotBeAsked(t *testing.T) {
	withKeyPeers(t, [3]int64{1 << 20, 1_000, 1 << 20}, func(k *keyPeers) {
		if got, err := k.collector().neededElsewhere(k.Context(), k.logs[0], deadOf(manyKeys(4))); events.KindOf(err) != events.KindInvalid {
			t.Errorf("%v, %v", got, err)
		}
	})
	withKeyPeers(t, [3]int64{1 << 20, 1 << 20, 1 << 20}, func(k *keyPeers) {
		k.claim(k.made.nodeAt(k.nodes[0].cfg, "node-3", "http://127.0.0.1:9"), 2)
		if got, err := k.collector().neededElsewhere(k.Context(), k.logs[0], deadOf(manyKeys(4))); events.KindOf(err) != events.KindNotReady {
			t.Errorf("%v, %v", got, err)
		}
	})
}
