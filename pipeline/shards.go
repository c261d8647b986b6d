package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// openShard is a shard that is open on this node. Whoever uses it says so, so
// that it is not closed under him.
type openShard struct {
	*projections.Shard

	mu      sync.Mutex
	users   sync.WaitGroup
	outside int // of the users, those that may wait for the bucket
	closing bool

	stops      map[int]context.CancelFunc // of long work that uses it
	last       int                        // number of the last of them
	hydrateErr error                      // why the shard is not brought here at present
}

// use keeps the shard open until done is called; not ok if it is being closed.
func (s *openShard) use() (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.users.Add(1)
	return true
}

func (s *openShard) done() { s.users.Done() }

// useWhile uses the shard for work that may take long, under a context that ends when the
// shard is to be closed; not ok if it is being closed already.
func (s *openShard) useWhile(ctx context.Context) (while context.Context, done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ctx, nil, false
	}
	s.users.Add(1)
	while, cancel := context.WithCancel(ctx)
	s.last++
	number := s.last
	if s.stops == nil {
		s.stops = map[int]context.CancelFunc{}
	}
	s.stops[number] = cancel
	return while, func() {
		s.mu.Lock()
		delete(s.stops, number)
		s.mu.Unlock()
		cancel()
		s.users.Done()
	}, true
}

func (s *openShard) setHydrating(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hydrateErr = err
}

func (s *openShard) hydrating() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hydrateErr
}

// fence ends all applies; what was read can still be.
func (s *openShard) fence(reason error) {
	s.mu.Lock()
	s.closing = true
	for _, stop := range s.stops {
		stop()
	}
	s.mu.Unlock()
	s.Fence(reason)
}

func (s *openShard) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// close waits for the users and closes the database.
func (s *openShard) close(reason error) error {
	s.fence(reason)
	s.users.Wait()
	return s.Close()
}

// shardSet are the shards that are open on a node, by partition. It is safe for
// concurrent use.
type shardSet struct {
	cache *pebble.Cache

	mu   sync.Mutex
	open map[int32]*openShard
}

func newShardSet() *shardSet {
	return &shardSet{cache: pebble.NewCache(cacheBytes), open: map[int32]*openShard{}}
}

func (s *shardSet) put(partition int32, shard *openShard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[partition] = shard
}

func (s *shardSet) drop(partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, partition)
}

// get is the shard of a partition, nil if it is not open here.
func (s *shardSet) get(partition int32) *openShard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[partition]
}

// use takes the open ones of some partitions; the caller calls release.
func (s *shardSet) use(partitions []int32) (used map[int32]*projections.Shard, release func()) {
	var all []*openShard
	used = map[int32]*projections.Shard{}
	for _, p := range partitions {
		if shard := s.get(p); shard != nil && shard.use() {
			used[p] = shard.Shard
			all = append(all, shard)
		}
	}
	return used, func() {
		for _, shard := range all {
			shard.done()
		}
	}
}

// numbers are the partitions whose shards are open, in order.
func (s *shardSet) numbers() []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.open))
}

// states is the state of every log of every open shard.
func (s *shardSet) states() (states []events.LogState) {
	for _, p := range s.numbers() {
		if shard := s.get(p); shard != nil {
			states = append(states, shard.Logs()...)
		}
	}
	return states
}

// StateDir is where a node's shards are.
func StateDir(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "state") }

const shardName = "shard-%04d"

func shardDir(stateDir string, partition int32) string {
	return filepath.Join(stateDir, fmt.Sprintf(shardName, partition))
}

// checkShards refuses a state that was folded with more partitions: what is in
// the rest of its shards would not be looked at any more.
func checkShards(cfg *config.Config, fs vfs.FS) error {
	names, err := fs.List(StateDir(cfg))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state directory %s: %w", StateDir(cfg), err)
	}
	for _, name := range names {
		var p int32
		if n, _ := fmt.Sscanf(name, shardName, &p); n == 1 && p >= cfg.Partitions {
			return events.Errorf(events.KindRefused, "state in %s has %s, the configuration says %d partitions: keys would be looked for in the wrong shard; "+
				"set partitions as before, or delete the state and let it be rebuilt", StateDir(cfg), name, cfg.Partitions)
		}
	}
	return nil
}

// shardConfig is how a node opens a shard below a directory.
func shardConfig(cfg *config.Config, fs vfs.FS, log *slog.Logger, stateDir string, partition int32) (projections.Config, error) {
	rules := map[events.Stream]merge.Rule{}
	for name, s := range cfg.Streams {
		rule, err := projections.LookupRule(s.Merge)
		if err != nil {
			return projections.Config{}, fmt.Errorf("streams.%s.merge: %w", name, err)
		}
		rules[name] = rule
	}
	var models []derived.Model
	for i, name := range cfg.Models {
		model, err := projections.LookupModel(name)
		if err != nil {
			return projections.Config{}, fmt.Errorf("models[%d]: %w", i, err)
		}
		models = append(models, model)
	}
	return projections.Config{
		Partition:    partition,
		Dir:          shardDir(stateDir, partition),
		FS:           fs,
		Rules:        rules,
		Models:       models,
		Log:          log.With("shard", partition),
		MinFreeBytes: uint64(cfg.Limits.MinFreeBytes),
		ClockLimit:   func() events.HLC { return clockLimit(cfg) },

		MemTableBytes: memTableBytes(cfg.Partitions),
	}, nil
}

// newLineage starts a line of descent, from a backup or from nothing.
func newLineage(parent string) projections.Lineage {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails, by its contract
	return projections.Lineage{ID: hex.EncodeToString(id[:]), Parent: parent, Started: time.Now().UTC()}
}

// openState opens a shard's database.
func openState(sc projections.Config) (*projections.Shard, error) {
	shard, err := projections.Open(sc)
	if errors.Is(err, syscall.EAGAIN) { // of the lock
		return nil, events.Errorf(events.KindRefused, "%w: it is in use by another process", err)
	}
	return shard, err
}
