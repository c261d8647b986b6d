package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
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
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// movedShard is the one shard of a region, which moves from a node to another between
// two calls of a third node, that has none.
type movedShard struct {
	*testing.T
	asks       *Region
	from, to   *Region
	dial       func(ctx context.Context, network, address string) (net.Conn, error)
	opts       []kgo.Opt                   // of a cluster
	owner      func(method string) *Region // who answers a call
	log        events.Log                  // of another region
	asked      []string                    // methods
	isOldNode  bool                        // of before slices had at_least
	oldRefused int
}

const movedKey = "k"

// moving runs a test in a bubble. The shard of the first node has the values v0 to v9 of
// the key, written one after the other, that of the second one v0 to v4.
func moving(t *testing.T, test func(m *movedShard)) {
	t.Helper()
	movingBy(t, "multivalue", func(m *movedShard) {
		m.fold(m.from, 0, 10)
		m.fold(m.to, 0, 5)
		test(m)
	})
}

// movingBy is moving for a merge rule, with shards that have nothing.
func movingBy(t *testing.T, rule string, test func(m *movedShard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := config.Default()
		cfg.Region, cfg.Partitions = "us-east-1", 1
		cfg.Streams = map[events.Stream]config.Stream{"session": {Topic: "session", Merge: rule}}
		cfg.Limits.MinFreeBytes = 0
		cfg.Regions = map[events.Region]config.Region{"us-east-1": {Incarnation: 1}, "eu-central-1": {Incarnation: 1}, "us-west-1": {Incarnation: 1}}
		m := &movedShard{T: t, log: events.Log{Origin: events.FirstOrigin("eu-central-1"), Stream: "session"}}
		var network kfake.VirtualNetwork
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9001), kfake.ListenFn(network.Listen), kfake.SeedTopics(1, claims.Topic(&cfg), "session"))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		m.dial = network.DialContext
		m.opts = []kgo.Opt{kgo.SeedBrokers("127.0.0.1:9001"), kgo.Dialer(network.DialContext)}
		m.from, m.to, m.asks = m.node(&cfg, "from"), m.node(&cfg, "to"), m.node(&cfg, "asks")
		m.open(m.from)
		m.open(m.to)
		m.owner = func(string) *Region { return m.to }
		listener, err := network.Listen("tcp", "127.0.0.1:8001")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: m}
		go func() { _ = server.Serve(listener) }()
		if _, err := m.to.claims.Take(t.Context(), claims.ShardKey(0), 0, 0); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*Region{m.asks, m.from} {
			if err := r.claims.Confirm(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer r.peers.Close()
		}
		defer server.Close()
		test(m)
	})
}

func (m *movedShard) node(cfg *config.Config, name string) *Region {
	return m.nodeAt(cfg, name, "http://127.0.0.1:8001")
}

// nodeAt is a node whose API is to be found at an address.
func (m *movedShard) nodeAt(cfg *config.Config, name, address string) *Region {
	log := slog.New(slog.DiscardHandler)
	claimed := claims.Config{Topic: claims.Topic(cfg), Partitions: cfg.Partitions, Node: name, Address: address}
	owners, err := claims.New(slices.Clip(m.opts), claimed, func(string, claims.Claim) {}, log)
	if err != nil {
		m.Fatal(err)
	}
	go owners.Follow(m.Context())
	m.Cleanup(owners.Close)
	return &Region{
		cfg: cfg, name: name, origin: cfg.Origin(cfg.Region), log: log, shards: &shardSet{open: map[int32]*openShard{}},
		claims: owners, peers: peers.New(name, m.dial), keeper: &keeper{places: make([]place, 1)}, worker: &worker{},
		clock: &nodeClock{DurableClock: events.NewDurableClock(0, time.Minute, func(events.HLC) error { return nil })},
	}
}

func (m *movedShard) open(r *Region) {
	rule, err := projections.LookupRule(r.cfg.Streams["session"].Merge)
	if err != nil {
		m.Fatal(err)
	}
	shard, err := projections.Open(projections.Config{Dir: "shard", FS: vfs.NewMem(), Rules: map[events.Stream]merge.Rule{"session": rule}, MemTableBytes: 1 << 20})
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() {
		if err := shard.Close(); err != nil {
			m.Error(err)
		}
	})
	r.shards.put(0, &openShard{Shard: shard})
}

// fold folds n values of each of two keys.
func (m *movedShard) fold(r *Region, from, n int) {
	var records []*kgo.Record
	for i := from; i < from+n; i++ {
		for j, key := range []string{movedKey, "other"} {
			records = append(records, &kgo.Record{Offset: int64(2*i + j), Key: []byte(key), Value: fmt.Appendf(nil, "v%d", i), Timestamp: time.Now()})
		}
	}
	m.apply(r, m.log, records...)
}

func (m *movedShard) apply(r *Region, log events.Log, records ...*kgo.Record) {
	m.Helper()
	if _, err := r.shards.get(0).Apply([]projections.Run{{Log: log, Records: records}}); err != nil {
		m.Fatal(err)
	}
}

// ServeHTTP answers as the owner of the moment does.
func (m *movedShard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var call struct {
		Method string `json:"method"`
	}
	if err != nil || json.Unmarshal(body, &call) != nil {
		m.Errorf("%q, %v", body, err)
	}
	if m.isOldNode && call.Method == "slices" && bytes.Contains(body, []byte("at_least")) {
		m.oldRefused++
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"slices: parameters: json: unknown field \"at_least\""}}`)
		return
	}
	m.asked = append(m.asked, call.Method)
	r.Body = io.NopCloser(bytes.NewReader(body))
	api.NewHandler(m.owner(call.Method), 1<<20, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
}

// moves has the shard move before the first call of a method.
func (m *movedShard) moves(before string) {
	moved := false
	m.owner = func(method string) *Region {
		if moved = moved || method == before; moved {
			return m.to
		}
		return m.from
	}
}

func (m *movedShard) wantBehind(err error) {
	m.Helper()
	if kind := events.KindOf(err); kind != events.KindNotReady || !strings.Contains(fmt.Sprint(err), "has moved") || !strings.Contains(fmt.Sprint(err), m.log.String()) {
		m.Errorf("%v (%s), want that the shard has moved and is behind", err, kind)
	}
}

// A read that a shard's move cuts in two does not go back in time: what is told of how far
// the shard is and what is read of it are one state, also if two nodes tell them.
func TestReadAcrossAMove(t *testing.T) {
	for name, read := range map[string]func(ctx context.Context, m *movedShard) (value string, seen events.Vector, err error){
		"get": func(ctx context.Context, m *movedShard) (string, events.Vector, error) {
			e, err := m.asks.Get(ctx, api.GetParams{Stream: "session", Key: api.Bytes(movedKey)})
			if err != nil {
				return "", nil, err
			}
			return string(e.Value), e.Context, nil
		},
		"scan": func(ctx context.Context, m *movedShard) (string, events.Vector, error) {
			page, err := m.asks.Scan(ctx, api.ScanParams{Stream: "session"})
			if err != nil {
				return "", nil, err
			}
			return string(page.Entries[0].Value), page.Context, nil
		},
		"what keys go back from": func(ctx context.Context, m *movedShard) (string, events.Vector, error) {
			rule, err := projections.LookupRule("multivalue")
			if err != nil {
				return "", nil, err
			}
			k, key := &keysBack{region: m.asks, p: api.RestoreKeysParams{Stream: "session"}, rule: rule}, &keyBack{key: movedKey}
			if err := k.compare(ctx, key); err != nil {
				return "", nil, err
			}
			view, err := rule.Join(key.now)
			return string(view.Value), key.seen, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			moving(t, func(m *movedShard) {
				m.moves("slices")
				_, _, err := read(m.Context(), m)
				m.wantBehind(err)

				m.moves("slices")
				time.AfterFunc(time.Second, func() { m.fold(m.to, 5, 5) })
				if value, seen, err := read(m.Context(), m); err != nil || value != "v9" || seen[m.log] != 20 {
					m.Errorf("%s at %s, %v", value, seen, err)
				}
			})
		})
	}
}

// What a read asks for at least it gets, or an error, wherever the shard is by then.
func TestAtLeastAcrossAMove(t *testing.T) {
	moving(t, func(m *movedShard) {
		fresh := api.Freshness{AtLeast: events.Vector{m.log: 19}, TimeoutSeconds: 1}
		get := func() (*api.Entry, error) {
			waited := false
			m.owner = func(method string) *Region {
				defer func() { waited = true }()
				if waited {
					return m.to
				}
				return m.from
			}
			return m.asks.Get(m.Context(), api.GetParams{Stream: "session", Key: api.Bytes(movedKey), Freshness: fresh})
		}
		_, err := get()
		m.wantBehind(err)
		time.AfterFunc(time.Second, func() { m.fold(m.to, 5, 5) })
		if e, err := get(); err != nil || string(e.Value) != "v9" {
			m.Errorf("%+v, %v", e, err)
		}
	})
}

// A watch tells nothing that is older than the context that comes with it: whoever goes on
// from there would never be told what it has missed.
func TestWatchAcrossAMove(t *testing.T) {
	for name, caughtUp := range map[string]bool{"the new owner comes so far": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			moving(t, func(m *movedShard) {
				told := map[string]string{}
				var last events.Vector
				ended := make(chan error, 1)
				go func() {
					ended <- m.from.Watch(m.Context(), api.WatchParams{Stream: "session"}, func(c api.Change) error {
						if c.Key != nil {
							told[string(c.Key)] = string(c.Entry.Value)
						}
						if c.Context != nil {
							last = *c.Context
						}
						if string(c.Key) == movedKey { // and the view of the other key is still to be read
							m.from.shards.get(0).fence(errStopped)
						}
						return nil
					})
				}()
				synctest.Wait()
				if caughtUp {
					time.AfterFunc(time.Second, func() { m.fold(m.to, 5, 6) })
				}
				m.fold(m.from, 10, 1)
				err := <-ended
				if kind := events.KindOf(err); kind != events.KindNotReady {
					m.Errorf("it ends by %v", err)
				}
				if told[movedKey] != "v10" {
					m.Errorf("told %v", told)
				}
				other, covers := told["other"], last[m.log] == 22
				if caughtUp && (other != "v10" || !covers) || !caughtUp && (other != "" || covers) {
					m.Errorf("told %v, at %s", told, last)
				}
			})
		})
	}
}

// Nodes of an earlier version, which do not know what at_least means, are asked as before.
func TestSlicesOfAnOldNode(t *testing.T) {
	moving(t, func(m *movedShard) {
		m.isOldNode = true
		e, err := m.asks.Get(m.Context(), api.GetParams{Stream: "session", Key: api.Bytes(movedKey)})
		if err != nil || string(e.Value) != "v4" || e.Context[m.log] != 10 || m.oldRefused != 1 {
			m.Errorf("%+v, %v; it has refused %d", e, err, m.oldRefused)
		}
		if want := []string{"applied", "slices"}; !slices.Equal(m.asked, want) {
			m.Errorf("asked %v, want %v", m.asked, want)
		}
	})
}
