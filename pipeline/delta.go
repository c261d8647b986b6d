package pipeline

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/touched"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// touchedSets are what is remembered of the keys that are written, for each shard of
// which this node reads the logs.
type touchedSets struct {
	mostBytes int64 // of each

	mu   sync.Mutex
	sets map[int32]*touched.Set
}

func newTouchedSets(shards int32) *touchedSets {
	return &touchedSets{mostBytes: touchedBytes / int64(max(shards, 1)), sets: map[int32]*touched.Set{}}
}

func (t *touchedSets) of(partition int32) *touched.Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	set, known := t.sets[partition]
	if !known {
		set = touched.New(t.mostBytes)
		t.sets[partition] = set
	}
	return set
}

// deltaCut is a shardCut of which only what has changed since a vector is copied.
type deltaCut struct {
	shardCut
	since events.Vector
	keys  map[events.Log][]string
}

var _ snapshotter.Cut = deltaCut{}

// WriteTables implements snapshotter.Cut.
func (c deltaCut) WriteTables(ctx context.Context, tableBytes int64, create func(first []byte) (io.WriteCloser, error)) error {
	return c.WriteDelta(ctx, c.since, c.keys, tableBytes, create)
}

// touchedPatience is how long a delta waits until what the fold has taken in has been
// noted as well: two readers of the same logs are seldom far apart.
const touchedPatience = 10 * time.Second

// deltaCut finds what has changed of a shard since a vector. An error of kind not found
// says that it is not remembered.
func (r *Region) deltaCut(ctx context.Context, cut *projections.Cut, since events.Vector) (snapshotter.Cut, error) {
	at := cut.Vector()
	for log, next := range since {
		if at[log] < next {
			return nil, events.Errorf(events.KindNotReady, "shard %d has folded %s up to offset %d, and the last backup holds it up to %d", cut.Partition(), log, at[log], next)
		}
	}
	if note, is := r.renewals.of(cut.Partition()); is && note.Moved {
		return nil, events.Errorf(events.KindNotFound, "shard %d was restored at %s: a delta would lie on backups of the state before", cut.Partition(), note.Began.Format(time.RFC3339))
	}
	set := r.touched.of(cut.Partition())
	wait, cancel := context.WithTimeout(ctx, touchedPatience)
	defer cancel()
	if err := set.Wait(wait, since, at); err != nil {
		return nil, fmt.Errorf("shard %d: %w", cut.Partition(), err)
	}
	keys, err := set.Since(since, at)
	if err != nil {
		return nil, fmt.Errorf("shard %d: %w", cut.Partition(), err)
	}
	return deltaCut{shardCut{cut}, since, keys}, nil
}

// sinceOf are the vectors of some shards of a backup.
func sinceOf(m *format.Manifest, partitions []int32) (since []events.Vector) {
	if m == nil {
		return nil
	}
	for _, p := range partitions {
		since = append(since, vectorOfShard(m, p))
	}
	return since
}

// createDelta makes a delta of what has changed since the backups that are there; nil:
// there is one already that is not older than slot. If none can be made before there
// is a new full backup, whyFull says why.
func (r *Region) createDelta(ctx context.Context, slot time.Time, damaged []string) (m *format.Manifest, whyFull string, err error) {
	newest, parent, err := r.deltaParent(ctx)
	switch kind := events.KindOf(err); {
	case kind == events.KindInconsistent || kind == events.KindRefused: // it stays so
		return nil, err.Error(), nil
	case err != nil || !newest.Created.Before(slot):
		return nil, "", err
	}
	for {
		whyFull, err := r.whyNotOn(ctx, parent, damaged)
		if whyFull != "" || err != nil {
			return nil, whyFull, err
		}
		m, err := r.createBackup(ctx, parent)
		switch {
		case events.KindOf(err) != events.KindNotFound:
			return m, "", err
		case parent == newest:
			return nil, err.Error(), nil
		}
		parent = newest // it is not remembered that far back
	}
}

// deltaParent reads the newest backup, and the one that a delta is to build on. An error of kind
// inconsistent or refused says that one of them cannot be read: nothing can build on it.
func (r *Region) deltaParent(ctx context.Context) (newest, parent *format.Manifest, err error) {
	now := time.Now()
	if newest, err = catalog.NewestPast(ctx, r.parts.Bucket, r.cfg.Region, now); err != nil {
		return nil, nil, err
	}
	id := catalog.ParentFor(now, newest)
	if id == newest.ID {
		return newest, newest, nil
	}
	parent, err = catalog.Manifest(ctx, r.parts.Bucket, r.cfg.Region, id)
	if events.KindOf(err) == events.KindNotFound {
		err = events.Errorf(events.KindInconsistent, "backup %s builds on one that is missing: %w", newest.ID, err)
	}
	return newest, parent, err
}

// whyNotOn says why no delta is to be made on a backup; empty: nothing speaks against it.
func (r *Region) whyNotOn(ctx context.Context, parent *format.Manifest, damaged []string) (string, error) {
	if len(parent.Shards) != int(r.cfg.Partitions) || !maps.Equal(parent.Merge, r.backupConfig().Merge) {
		return fmt.Sprintf("the configuration has other streams, merge rules or partitions than backup %s", parent.ID), nil
	}
	path := parent.Path()
	if most := r.cfg.Backup.MaxChain; len(path) > most {
		return fmt.Sprintf("a delta would build on %d backups, more than backup.max_chain (%d)", len(path), most), nil
	}
	for _, id := range path {
		if slices.Contains(damaged, id) {
			return fmt.Sprintf("backup %s is damaged, on which the next delta would build", id), nil
		}
	}
	return r.sealedForOthers(ctx, parent)
}

// sealedForOthers says whether what a delta would build on is sealed for other keys than the delta would be: then no
// key need open all of it, as after one was replaced. Of a backup without tables, in which nothing has changed, it
// is the full one that tells.
func (r *Region) sealedForOthers(ctx context.Context, m *format.Manifest) (string, error) {
	if m.Kind == format.Delta && m.StoredBytes() == 0 {
		full, err := catalog.Manifest(ctx, r.parts.Bucket, r.cfg.Region, m.Parents[0])
		switch events.KindOf(err) {
		case 0:
			m = full
		case events.KindNotFound, events.KindInconsistent, events.KindRefused: // it stays so
			return err.Error(), nil
		default:
			return "", err
		}
	}
	want := slices.Sorted(slices.Values(r.backups.sealer.Keys()))
	if have := m.Keys(); m.StoredBytes() > 0 && !slices.Equal(have, want) {
		return fmt.Sprintf("backup %s, on which the next delta would build, is sealed for the keys %q, and backup.recipients has %q", m.ID, have, want), nil
	}
	return "", nil
}
