package pipeline

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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

// shardSet are the open shards of a node, by partition.
type shardSet struct {
	cache *pebble.Cache
	all   []*projections.Shard
}

// StateDir is where a node's shards are.
func StateDir(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "state") }

const shardName = "shard-%04d"

func shardDir(stateDir string, partition int32) string {
	return filepath.Join(stateDir, fmt.Sprintf(shardName, partition))
}

func openShards(cfg *config.Config, fs vfs.FS, log *slog.Logger) (*shardSet, error) {
	if err := checkShards(cfg, fs); err != nil {
		return nil, err
	}
	s := &shardSet{cache: pebble.NewCache(cacheBytes)}
	lineage := newLineage("")
	for p := range cfg.Partitions {
		sc, err := shardConfig(cfg, fs, log, StateDir(cfg), p)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		sc.Cache, sc.Lineage = s.cache, lineage
		shard, err := projections.Open(sc)
		if errors.Is(err, syscall.EAGAIN) { // of the lock
			err = events.Errorf(events.KindRefused, "%w: it is in use by another process", err)
		}
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.all = append(s.all, shard)
	}
	return s, nil
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

		MemTableBytes: memTableBytes(cfg.Partitions),
	}, nil
}

// newLineage starts a line of descent, from a backup or from nothing.
func newLineage(parent string) projections.Lineage {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails, by its contract
	return projections.Lineage{ID: hex.EncodeToString(id[:]), Parent: parent, Started: time.Now().UTC()}
}

func (s *shardSet) close() error {
	var err error
	for _, shard := range s.all {
		err = errors.Join(err, shard.Close())
	}
	s.cache.Unref()
	return err
}

// numbers are the partitions whose shards are open.
func (s *shardSet) numbers() []int32 {
	numbers := make([]int32, len(s.all))
	for i := range s.all {
		numbers[i] = int32(i)
	}
	return numbers
}

// states is the state of every log of every shard.
func (s *shardSet) states() (states []events.LogState) {
	for _, shard := range s.all {
		states = append(states, shard.Logs()...)
	}
	return states
}
