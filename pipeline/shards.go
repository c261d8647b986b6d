package pipeline

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// blockCacheBytes is shared by all shards of a node.
const blockCacheBytes = 128 << 20

// shardSet are the open shards of a node, by partition.
type shardSet struct {
	cache *pebble.Cache
	all   []*projections.Shard
}

// StateDir is where a node's shards are.
func StateDir(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "state") }

func shardDir(stateDir string, partition int32) string {
	return filepath.Join(stateDir, fmt.Sprintf("shard-%04d", partition))
}

func openShards(cfg *config.Config, fs vfs.FS, log *slog.Logger) (*shardSet, error) {
	s := &shardSet{cache: pebble.NewCache(blockCacheBytes)}
	lineage := newLineage("")
	for p := range cfg.Partitions {
		sc, err := shardConfig(cfg, fs, log, StateDir(cfg), p)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		sc.Cache, sc.Lineage = s.cache, lineage
		shard, err := projections.Open(sc)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.all = append(s.all, shard)
	}
	return s, nil
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
	return projections.Config{
		Partition:    partition,
		Dir:          shardDir(stateDir, partition),
		FS:           fs,
		Rules:        rules,
		Log:          log.With("shard", partition),
		MinFreeBytes: uint64(cfg.Limits.MinFreeBytes),
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

// states is the state of every log of every shard.
func (s *shardSet) states() (states []events.LogState) {
	for _, shard := range s.all {
		states = append(states, shard.Logs()...)
	}
	return states
}
