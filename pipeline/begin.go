package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/pipeline/listed"
	"github.com/evenkeel/evenkeel/pipeline/mirrors"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

const (
	// A backup that is this much further than a directory is taken instead of it:
	// to fetch it takes less time than to replay so much.
	worthRestoring = 100_000 // records, of all logs of the shard

	// backupsTried is how many backups are looked at if one is damaged: of a delta next
	// the full that it builds on, else the one before.
	backupsTried = 5

	// bucketPatience is how long a shard waits for a bucket that does not answer
	// before it is folded from the beginning of its logs.
	bucketPatience = time.Minute
)

// beginnings finds out where shards of a node begin, and brings their directories
// there.
type beginnings struct {
	cfg    *config.Config
	fs     vfs.FS
	bucket objstore.Bucket // nil: no backups
	admin  *kadm.Client
	log    *slog.Logger

	mirrors  *mirrors.Offsets // between whose offsets and those of the logs vectors are compared
	renewals *renewals        // of shards of this node

	attested func(context.Context) (*checks.Attested, error) // what other regions say of their logs

	node    string         // which one this is
	outside *outsideTables // the tables of backups, where they are; nil: no backups

	proving sync.Mutex // one shard of a restored state is noted as proved at a time
}

// beginning is where a shard begins.
type beginning struct {
	from  string       // for people
	epoch events.Epoch // that the directory has
}

// held is what the directory of a shard holds.
type held struct {
	there  bool
	vector events.Vector
	epoch  events.Epoch
}

// find brings the directory of a shard to where it begins. Since says for how long
// that has been tried. Damaged says that the directory refers to a backup that is
// damaged: nothing is left there any more.
func (b *beginnings) find(ctx context.Context, partition int32, since time.Time, damaged bool) (beginning, error) {
	began, not, err := b.renewed(ctx, partition, damaged)
	if !not || err != nil {
		return began, err
	}
	if damaged && isInPlace(b.fs, StateDir(b.cfg), partition) {
		if err := b.forget(partition); err != nil {
			return beginning{}, err
		}
	}
	own, err := b.look(partition)
	var outside *projections.OutsideError
	if errors.As(err, &outside) && outside.Lasts() {
		b.log.Error("shard refers to a backup that is damaged or gone, and is restored again", "shard", partition, "error", err)
		own, err = held{}, b.forget(partition)
	}
	if err != nil {
		return beginning{}, err
	}
	starts, err := b.logStarts(ctx, partition, own.vector)
	if err != nil {
		return beginning{}, err
	}
	backups, err := b.backups(ctx)
	if err != nil {
		gone := lacks(own.vector, starts)
		if own.there && !gone || !gone && time.Since(since) > bucketPatience {
			b.log.Warn("backups cannot be looked at; going on without them", "shard", partition, "error", err)
			return beginning{from: describeOwn(own), epoch: own.epoch}, nil
		}
		return beginning{}, err
	}
	began, sealed, err := b.fromBackups(ctx, partition, own, backups, starts, damaged)
	if began.from != "" || err != nil {
		return began, err
	}
	if lacks(own.vector, starts) {
		if from, err := b.fromArchive(ctx, partition, starts); from != "" || err != nil {
			return beginning{from: from}, err
		}
	}
	from := describeOwn(own)
	if sealed != "" {
		from += fmt.Sprintf(" (no identity fits backup %s; see backup.identity_file)", sealed)
	}
	return beginning{from: from, epoch: own.epoch}, nil
}

// fromBackups brings the directory of a shard to what a backup has, the last of some that is worth it and can be used. It
// begins nowhere if none is; sealed is then the first that was tried and that this node has no key of.
func (b *beginnings) fromBackups(
	ctx context.Context, partition int32, own held, backups []string, starts events.Vector, damaged bool,
) (began beginning, sealed string, err error) {
	ends, err := b.logEnds(ctx, partition)
	if err != nil {
		return began, "", err
	}
	now := time.Now()
	for tried := 0; tried < backupsTried && len(backups) > 0; tried++ {
		id := backups[len(backups)-1]
		m, err := b.usable(ctx, id)
		backups = others(backups, m)
		if err == nil {
			err = RefuseAhead(b.cfg, vectorOfShard(m, partition), ends)
		}
		if err == nil && preferBackup(own, vectorOfShard(m, partition), starts) {
			inPlace := !damaged && worthInPlace(b.cfg, m.Shards[partition])
			if err = b.restore(ctx, m, partition, inPlace); err == nil {
				return beginning{from: "backup " + m.ID, epoch: m.Shards[partition].Epoch}, "", nil
			}
		}
		if err == nil { // older ones are no better; how old those are that a wrong clock has dated nobody knows
			backups = slices.DeleteFunc(backups, func(id string) bool { return !isAhead(id, now) })
			continue
		}
		switch kind := events.KindOf(err); {
		case errors.Is(err, seal.ErrNoKey):
			sealed = cmp.Or(sealed, id)
			b.log.Warn("backup cannot be opened; trying another", "shard", partition, "backup", id, "error", err)
		case kind == events.KindNotFound: // pruned meanwhile
		case kind == events.KindInconsistent || kind == events.KindRefused:
			b.log.Error("backup cannot be used; trying another", "shard", partition, "backup", id, "error", err)
		default:
			return began, "", err
		}
	}
	return began, sealed, nil
}

// fromArchive brings the directory of a shard, whose logs do not have what follows it or
// any backup, to the end of what is archived, if they have what follows that. from is
// empty if not.
func (b *beginnings) fromArchive(ctx context.Context, partition int32, starts events.Vector) (from string, err error) {
	if b.bucket == nil {
		return "", nil
	}
	aside := filepath.Join(b.cfg.DataDir, "moving", fmt.Sprintf("archived-"+shardName, partition))
	job := RestoreJob{
		Config: b.cfg, Bucket: b.bucket, FS: b.fs, Log: b.log, Request: timeline.Request{Shards: []int32{partition}}, Dir: aside, Anew: true,
		Planned: func(p *timeline.Plan) {
			b.log.Info("shard is restored from what is archived", "shard", partition, "backup", p.Base, "records", p.Records)
		},
	}
	_, plan, err := job.find(ctx)
	if err == nil && lacks(plan.Vector, starts) {
		return "", nil
	}
	if err == nil {
		_, err = Restore(ctx, job)
	}
	switch events.KindOf(err) {
	case 0:
		return "what is archived", b.take(partition, aside)
	case events.KindNotFound, events.KindInconsistent, events.KindRefused:
		b.log.Error("what is archived cannot be used", "shard", partition, "error", err)
		return "", b.fs.RemoveAll(aside)
	}
	return "", err
}

// take puts a shard that was restored aside in the place of its directory.
func (b *beginnings) take(partition int32, aside string) error {
	dir := shardDir(StateDir(b.cfg), partition)
	if err := b.fs.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := disk.Replace(b.fs, shardDir(aside, partition), dir); err != nil {
		return err
	}
	return b.fs.RemoveAll(aside)
}

func describeOwn(own held) string {
	if own.there {
		return "its directory"
	}
	return "the beginning of its logs"
}

// preferBackup decides between the directory and a backup.
func preferBackup(own held, backup, starts events.Vector) bool {
	if lacks(backup, starts) {
		return false
	}
	ahead := int64(0)
	for log, next := range backup {
		ahead += max(0, next-own.vector[log])
	}
	gone := lacks(own.vector, starts)
	return ahead > worthRestoring || ahead > 0 && (gone || !own.there)
}

// lacks tells whether any log does not have what follows a vector any more.
func lacks(vector, starts events.Vector) bool {
	for log, start := range starts {
		if vector[log] < start {
			return true
		}
	}
	return false
}

func vectorOfShard(m *format.Manifest, partition int32) events.Vector {
	return events.VectorOf(m.Shards[partition].States)
}

// look reads what the directory of a shard holds.
func (b *beginnings) look(partition int32) (h held, err error) {
	names, err := b.fs.List(shardDir(StateDir(b.cfg), partition))
	if err != nil || len(names) == 0 {
		return held{}, nil
	}
	sc, err := shardConfig(b.cfg, b.fs, b.log, StateDir(b.cfg), partition)
	if err != nil {
		return held{}, err
	}
	sc.Lineage = newLineage("") // if it is broken off before it has one
	b.readOutside(&sc)
	shard, err := openState(sc)
	if err != nil {
		return held{}, err
	}
	defer func() { err = errors.Join(err, shard.Close()) }()
	vector := events.VectorOf(shard.Logs())
	return held{there: len(vector) > 0, vector: vector, epoch: shard.Epoch()}, nil
}

// lookAtAll opens every shard that is there, so that what cannot be opened is told
// when the node starts.
func (b *beginnings) lookAtAll() error {
	for p := range b.cfg.Partitions {
		if note, is := b.renewals.of(p); is && !note.Moved {
			continue // it is replaced before it is opened
		}
		_, err := b.look(p)
		var outside *projections.OutsideError
		if errors.As(err, &outside) {
			continue // it may pass, and another backup may do as well
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// logStarts asks the cluster where the logs of a shard begin, as the logs count: of a mirror, the
// offset in the log of its first record, if it has any. A log that begins behind a vector begins before that,
// as long as what is gone is known to be nothing to fold.
func (b *beginnings) logStarts(ctx context.Context, partition int32, vector events.Vector) (events.Vector, error) {
	starts, err := b.topicOffsets(ctx, partition, "begin", b.admin.ListStartOffsets)
	if err != nil {
		return nil, err
	}
	ends, err := b.topicOffsets(ctx, partition, "end", b.admin.ListEndOffsets)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(starts, func(l events.Log, _ mirrors.Offset) bool { return ends[l].N == 0 })
	b.mirrors.Starts(ctx, starts)
	begin, err := b.vector(starts, "begin")
	if err != nil {
		return nil, err
	}
	read, err := b.emptied(ctx, partition, vector, begin)
	for l, s := range read {
		begin[l] = s.from
	}
	return begin, err
}

// logEnds asks the cluster where the logs of a shard end, as the logs count: of a mirror, behind
// the offset in the log of its last record.
func (b *beginnings) logEnds(ctx context.Context, partition int32) (events.Vector, error) {
	ends, err := b.topicOffsets(ctx, partition, "end", b.admin.ListEndOffsets)
	if err != nil {
		return nil, err
	}
	b.mirrors.Ends(ctx, ends)
	return b.vector(ends, "end")
}

// vector is the vector of offsets, all of which are known.
func (b *beginnings) vector(offsets map[events.Log]mirrors.Offset, what string) (events.Vector, error) {
	v := events.Vector{}
	for l, o := range offsets {
		if o.Err != nil {
			return nil, events.Errorf(events.KindNotReady, "where %s %ss in %s is not known: %w", l, what, b.cfg.Region, o.Err)
		}
		if o.N > 0 {
			v[l] = o.N
		}
	}
	return v, nil
}

// topicOffsets lists offsets of the topics and mirrors of a shard. One that cannot be had at present, as after an
// election, is not 0: with that good backups would be ahead of their logs. A mirror that
// is not there yet has nothing.
func (b *beginnings) topicOffsets(
	ctx context.Context, partition int32, what string, list func(context.Context, ...string) (kadm.ListedOffsets, error),
) (map[events.Log]mirrors.Offset, error) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	topics := b.cfg.Routes()
	found, err := list(ctx, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		return nil, fmt.Errorf("where the logs of %s %s: %w", b.cfg.Region, what, err)
	}
	offsets := map[events.Log]mirrors.Offset{}
	for topic, rt := range topics {
		l := rt.Log(partition)
		o, ok := listed.Lookup(found, topic, partition)
		switch {
		case b.mirrors.IsMirror(l) && (!ok || errors.Is(o.Err, kerr.UnknownTopicOrPartition)):
		case !ok || o.Err != nil:
			return nil, events.Errorf(events.KindNotReady, "where topic %s of %s, partition %d, %ss is not known: %w",
				topic, b.cfg.Region, partition, what, cmp.Or(o.Err, error(kerr.UnknownTopicOrPartition)))
		default:
			offsets[l] = mirrors.Offset{N: o.Offset}
		}
	}
	return offsets, nil
}

// notAhead refuses the state of a shard that is further than the region's own logs, and says where these end.
func (b *beginnings) notAhead(ctx context.Context, p int32, shard *projections.Shard) (ends events.Vector, err error) {
	if ends, err = b.logEnds(ctx, p); err != nil {
		return nil, err
	}
	return ends, RefuseAhead(b.cfg, events.VectorOf(shard.Logs()), ends)
}

// backups are the ids of the backups, oldest first, but that those which a wrong clock has dated in the future come
// before all others: they are tried last.
func (b *beginnings) backups(ctx context.Context) ([]string, error) {
	if b.bucket == nil {
		return nil, nil
	}
	ids, err := catalog.IDs(ctx, b.bucket, b.cfg.Region)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	past := slices.IndexFunc(ids, func(id string) bool { return isAhead(id, now) })
	if past < 0 {
		return ids, nil
	}
	return slices.Concat(ids[past:], ids[:past]), nil
}

// others are the backups that are left to be tried after the newest of some, whose
// manifest is nil if it cannot be read. What lies between a delta and its full builds
// on the same full, most likely.
func others(ids []string, newest *format.Manifest) []string {
	ids = ids[:len(ids)-1]
	if newest == nil || newest.Kind != format.Delta {
		return ids
	}
	full := newest.Parents[0]
	for len(ids) > 0 && ids[len(ids)-1] > full {
		ids = ids[:len(ids)-1]
	}
	return ids
}

func (b *beginnings) usable(ctx context.Context, id string) (*format.Manifest, error) {
	m, err := catalog.Load(ctx, b.bucket, b.cfg.Region, id)
	if err != nil {
		return nil, err
	}
	return m, checkFits(b.cfg, m)
}

// restore replaces the directory of a shard by one from a backup: once that is
// proved, or, in place, by one that refers to the backup's tables. What was there before
// is deleted.
func (b *beginnings) restore(ctx context.Context, m *format.Manifest, partition int32, inPlace bool) error {
	begun := time.Now()
	b.log.Info("shard is restored", "shard", partition, "backup", m.ID, "in_place", inPlace)
	aside := filepath.Join(b.cfg.DataDir, "moving", fmt.Sprintf(shardName, partition))
	t := &stateTarget{cfg: b.cfg, fs: b.fs, log: b.log, dir: aside, lineage: newLineage(m.ID)}
	if err := t.clear(); err != nil {
		return err
	}
	bring := b.copyShard
	if inPlace {
		bring = b.referTo
	}
	if err := bring(ctx, m, partition, t); err != nil {
		return errors.Join(err, b.fs.RemoveAll(aside))
	}
	if inPlace {
		b.log.Info("shard is served out of its backup while it is brought here", "shard", partition, "backup", m.ID, "took", time.Since(begun).String())
	} else {
		b.log.Info("shard is restored and proved", "shard", partition, "backup", m.ID, "took", time.Since(begun).String())
	}
	return b.take(partition, aside)
}

// copyShard fetches the tables of a shard and proves what they make.
func (b *beginnings) copyShard(ctx context.Context, m *format.Manifest, partition int32, t *stateTarget) error {
	src, err := newSource(b.cfg, b.bucket, nil)
	if err != nil {
		return err
	}
	chain, err := catalog.LoadChain(ctx, b.bucket, m)
	if err != nil {
		return err
	}
	return restore.Shard(ctx, src, chain, partition, t, nil)
}

// referTo leaves the tables of a shard where they are, and the backup held.
func (b *beginnings) referTo(ctx context.Context, m *format.Manifest, partition int32, t *stateTarget) error {
	if err := b.hold(ctx, m, partition); err != nil {
		return err
	}
	chain, err := catalog.LoadChain(ctx, b.bucket, m)
	if err != nil {
		return err
	}
	return t.restoreInPlace(ctx, b.outside, chain, partition, 0)
}

// clean removes what restores that were broken off have left.
func (b *beginnings) clean() error {
	if err := b.fs.RemoveAll(filepath.Join(b.cfg.DataDir, "moving")); err != nil {
		return fmt.Errorf("left-over of an interrupted restore: %w", err)
	}
	return nil
}
