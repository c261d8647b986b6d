// Package refill brings a region's logs back into its Kafka when that has lost them: out of
// the archive, and, behind that, out of the mirrors of other regions.
package refill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// Job says which archived records to write back into a region's Kafka.
type Job struct {
	Config    *config.Config
	Bucket    objstore.Bucket
	Opener    *seal.Opener // nil: the identity that is configured
	FS        vfs.FS       // of the data directory; nil: the real one
	Log       *slog.Logger
	KafkaOpts []kgo.Opt // further options of clients; may be nil
	Request   timeline.Request
	Mirrors   bool // the region's mirrors as well: their origins are lost too, or do not have it all any more

	ArchiveOnly bool            // also to the newest: what other regions have mirrored behind the archive is left there
	Without     []events.Region // these are not asked for it

	Planned func(bytes int64)  // told once how much will be fetched; may be nil
	Fetched func(bytes int64)  // told of every segment that was written; may be nil
	Taken   func(l events.Log) // told when what a peer had of a log behind the archive is on its way; may be nil
}

// Report is the file in the data directory that says what Run did. While it is
// not done, noteFile beside it says what it does.
const (
	Report   = "restore-kafka-report.json"
	noteFile = "restore-kafka.json"
)

// refillNote is what noteFile holds: what is written back, and how topics were
// configured before their retention was held off.
type refillNote struct {
	Request timeline.Request              `json:"request"`
	Mirrors bool                          `json:"mirrors"`
	Groups  string                        `json:"groups"` // id of the backup whose offsets of consumer groups are written back; empty: none has any
	Target  string                        `json:"target"`
	Vector  events.Vector                 `json:"vector"`
	Peers   events.Vector                 `json:"peers,omitempty"` // logs of which other regions have more than was archived, and up to where
	Spans   []timeline.Span               `json:"spans"`
	Configs map[string]map[string]*string `json:"configs"` // topic → name → value of its own; nil: it had none
	Began   time.Time                     `json:"began"`
}

// refilling is a Job under way.
type refilling struct {
	job     Job
	note    refillNote
	resumed bool
	src     restore.Source
	client  *kgo.Client // writes
	opts    []kgo.Opt
	admin   *kadm.Client
	topics  map[string]events.Stream // of the logs that are wanted
	logs    map[events.Log]*refilledLog
}

// Run writes the archived records of a region's own logs, and of its mirrors if that is
// asked for, back into its Kafka, which
// must have lost them all: topics are made as they are configured, and must be empty. Key,
// value, headers and timestamps stay as they are, and so do offsets where the archive has
// every one from 0 on; else the report maps them. Records are not deleted by age or size
// while that goes on. If the newest is wanted, the region's own logs are then continued out of the mirrors of other regions, as
// far as these reach. At the end every topic is read back and its hash chain compared, the
// links are told what lies where in mirrors, and consumer groups get the offsets back that
// they had.
//
// No node of the region may run. If it is broken off the same is asked for again: what is in
// the topics is compared with the archive, and the rest follows.
func Run(ctx context.Context, job Job) (_ *api.Refilled, err error) {
	if job.FS == nil {
		job.FS = vfs.Default
	}
	if err := disk.MakeDirs(job.FS, job.Config.DataDir); err != nil {
		return nil, err
	}
	lock, err := disk.Lock(job.FS, job.Config.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	r := &refilling{job: job, logs: map[events.Log]*refilledLog{}}
	if err := r.open(); err != nil {
		return nil, err
	}
	defer r.client.Close()
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	if err := r.all(ctx); err != nil {
		return nil, err
	}
	return r.finish(ctx)
}

func (r *refilling) path(name string) string { return filepath.Join(r.job.Config.DataDir, name) }

// source is where segments are read.
func source(job Job) (restore.Source, error) {
	opener, err := job.Config.Opener(job.Opener)
	return restore.Source{Bucket: job.Bucket, Opener: opener}, err
}

// open makes the clients.
func (r *refilling) open() (err error) {
	cfg := r.job.Config
	if r.src, err = source(r.job); err != nil {
		return err
	}
	if r.opts, err = cfg.KafkaOpts(cfg.Region, r.job.KafkaOpts...); err != nil {
		return err
	}
	r.client, err = kgo.NewClient(append(slices.Clone(r.opts), cfg.ProducerOpts()...)...)
	if err != nil {
		return fmt.Errorf("kafka client of %s: %w", cfg.Region, err)
	}
	r.admin = kadm.NewClient(r.client)
	return nil
}

// wanted says whether a log, or a mirror, is asked for.
func (r *refilling) wanted(l events.Log) bool {
	cfg := r.job.Config
	_, known := cfg.Streams[l.Stream]
	_, configured := cfg.Regions[l.Origin.Region]
	return known && configured && l.Origin == cfg.Origin(l.Origin.Region) && (r.job.Mirrors || l.Origin.Region == cfg.Region) &&
		(len(r.job.Request.Streams) == 0 || slices.Contains(r.job.Request.Streams, l.Stream))
}

// begin finds out what is to be done, and has the topics ready for it.
func (r *refilling) begin(ctx context.Context) (err error) {
	r.resumed, err = disk.ReadNote(r.job.FS, r.path(noteFile), &r.note)
	if err != nil {
		return err
	}
	if r.resumed && (!r.note.Request.Same(r.job.Request) || r.note.Mirrors != r.job.Mirrors) {
		return events.Errorf(events.KindRefused, "%s: topics of %s were being filled up to %s, and that was broken off; ask for the same to go on", r.path(noteFile), r.job.Config.Region, r.note.Target)
	}
	if !r.resumed {
		if err := r.plan(ctx); err != nil {
			return err
		}
	}
	r.topics = map[string]events.Stream{}
	wanted := events.Vector{}
	maps.Copy(wanted, r.note.Peers)
	maps.Copy(wanted, r.note.Vector)
	for l := range wanted {
		r.topics[r.job.Config.TopicOf(l)] = l.Stream
	}
	if err := r.makeTopics(ctx); err != nil {
		return err
	}
	had, err := r.ends(ctx, wanted)
	if err != nil {
		return err
	}
	for _, l := range slices.SortedFunc(maps.Keys(wanted), events.Log.Compare) {
		topic := r.job.Config.TopicOf(l)
		if had[l] > 0 && !r.resumed {
			return events.Errorf(events.KindRefused, "topic %s of %s, partition %d holds records up to offset %d; records are written back only into empty topics", topic, r.job.Config.Region, l.Partition, had[l]-1)
		}
		r.logs[l] = &refilledLog{log: l, topic: topic, had: had[l], to: r.note.Vector[l], chainOf: digest.NewChain()}
	}
	if !r.resumed {
		if r.note.Configs, err = r.configs(ctx); err != nil {
			return err
		}
		if err := disk.WriteNote(r.job.FS, r.path(noteFile), r.note); err != nil {
			return err
		}
	}
	return r.hold(ctx)
}

// plan turns the target into a vector.
func (r *refilling) plan(ctx context.Context) error {
	cfg := r.job.Config
	t, err := timeline.Read(ctx, r.job.Bucket, r.src.Opener, cfg.Region, cfg.Partitions)
	if err != nil {
		return err
	}
	vector, spans, err := t.Archived(ctx, r.job.Request, r.wanted)
	if err != nil {
		return err
	}
	peers := events.Vector{}
	if r.fromPeers() {
		found, err := r.askPeers(ctx)
		if err != nil {
			return err
		}
		peers = ahead(found, vector)
	}
	if len(vector) == 0 && len(peers) == 0 {
		return events.Errorf(events.KindNotFound, "nothing is archived of the logs of %s", cfg.Origin(cfg.Region))
	}
	groups, err := t.Groups(ctx, vector, r.wanted)
	r.note = refillNote{Request: r.job.Request, Mirrors: r.job.Mirrors, Groups: groups, Target: r.job.Request.Target.String(), Vector: vector, Peers: peers, Spans: spans, Began: time.Now().UTC()}
	return err
}

// all writes the records of all shards, one shard after another.
func (r *refilling) all(ctx context.Context) error {
	if r.job.Planned != nil {
		bytes := int64(0)
		for _, s := range r.note.Spans {
			bytes += s.Bytes
		}
		r.job.Planned(bytes)
	}
	for _, span := range r.note.Spans {
		for s, err := range r.src.Segments(ctx, r.job.Config.Region, span.Shard, span.Numbers()) {
			if err != nil {
				return err
			}
			if err := r.segment(ctx, s); err != nil {
				return err
			}
			if r.job.Fetched != nil {
				r.job.Fetched(s.StoredSize)
			}
		}
	}
	if err := r.tails(ctx); err != nil {
		return err
	}
	for _, l := range r.logs {
		if l.count < l.had {
			return events.Errorf(events.KindInconsistent, "topic %s, partition %d holds %d records, and only %d are archived up to the target, or mirrored by the regions that were asked: somebody else has written there",
				l.topic, l.log.Partition, l.had, l.count)
		}
	}
	return nil
}

// finish proves what is in the topics, and lets retention go on.
func (r *refilling) finish(ctx context.Context) (*api.Refilled, error) {
	cfg := r.job.Config
	done := &api.Refilled{
		Region: cfg.Region, Software: api.Software, Target: r.note.Target, Vector: events.Vector{}, Logs: []api.RefilledLog{}, Resumed: r.resumed, Began: r.note.Began,
	}
	for _, l := range slices.SortedFunc(maps.Keys(r.logs), events.Log.Compare) {
		log := r.logs[l]
		chain, err := r.readBack(ctx, log, log.count)
		if err != nil {
			return nil, err
		}
		if chain != log.chain {
			return nil, events.Errorf(events.KindInconsistent, "topic %s, partition %d: its %d records have the chain %s, those of %s in the archive %s", log.topic, l.Partition, log.count, chain, l, log.chain)
		}
		if log.to > 0 {
			done.Vector[l] = log.to
		}
		done.Logs = append(done.Logs, api.RefilledLog{
			Log: l, Topic: log.topic, Records: log.count, Next: log.to, Chain: chain, Same: log.same(), Runs: log.runs, Peers: log.peers,
		})
	}
	if err := r.noteMirrors(ctx); err != nil {
		return nil, err
	}
	if err := r.giveBackGroups(ctx, done); err != nil {
		return nil, err
	}
	if err := r.release(ctx); err != nil {
		return nil, err
	}
	done.Duration = time.Since(r.note.Began).Seconds()
	if err := disk.WriteNote(r.job.FS, r.path(Report), done); err != nil {
		return nil, err
	}
	return done, r.job.FS.RemoveAll(r.path(noteFile))
}
