package refill

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/replicator"
)

// What was acknowledged in the last seconds before a region was lost is not in its bucket, but
// other regions may have mirrored it. They have folded it, too: without it the log would give
// its offsets to other records. So the logs are continued out of the mirrors before the region
// writes again.

// fromPeers says whether what peers have mirrored behind the archive is wanted.
func (r *refilling) fromPeers() bool {
	return !r.job.ArchiveOnly && r.job.Request.Target.IsNewest() && len(r.peers()) > 0
}

// peers are the regions whose mirrors are asked.
func (r *refilling) peers() []events.Region {
	return slices.DeleteFunc(r.job.Config.Peers(), func(peer events.Region) bool { return slices.Contains(r.job.Without, peer) })
}

// askPeers finds out what peers have mirrored of the region's own logs, those of a log in the
// order of the peers. One that cannot be asked may be the one that has most.
func (r *refilling) askPeers(ctx context.Context) (map[events.Log][]replicator.Stretch, error) {
	cfg := r.job.Config
	streams := map[string]events.Stream{}
	for s, c := range cfg.Streams {
		if len(r.job.Request.Streams) == 0 || slices.Contains(r.job.Request.Streams, s) {
			streams[c.Topic] = s
		}
	}
	origin := cfg.Origin(cfg.Region)
	found := map[events.Log][]replicator.Stretch{}
	for _, peer := range r.peers() {
		opts, err := cfg.KafkaOpts(peer, r.job.KafkaOpts...)
		if err != nil {
			return nil, err
		}
		mirrors, err := replicator.Relay{Region: peer, Opts: opts}.Mirrors(ctx, origin, slices.Sorted(maps.Keys(streams)))
		if err != nil {
			return nil, events.Errorf(events.KindNotReady, "%s cannot be asked what it has mirrored of %s, and may have what nobody else has: %w; "+
				"try again when its Kafka answers, or do without: --without-peer %s", peer, origin, err, peer)
		}
		for topic, partitions := range mirrors {
			for p, s := range partitions {
				if shards := r.job.Request.Shards; len(shards) > 0 && !slices.Contains(shards, p) {
					continue
				}
				l := events.Log{Origin: origin, Stream: streams[topic], Partition: p}
				if p >= cfg.Partitions {
					return nil, events.Errorf(events.KindRefused, "%s has %s, the configuration says %d partitions", s, l, cfg.Partitions)
				}
				s.BatchBytesMost = cfg.Limits.MaxBatchBytes
				found[l] = append(found[l], s)
			}
		}
	}
	return found, nil
}

// ahead are the logs of which a peer has more than was archived.
func ahead(found map[events.Log][]replicator.Stretch, archived events.Vector) events.Vector {
	ends := events.Vector{}
	for l, stretches := range found {
		for _, s := range stretches {
			if s.Next > max(archived[l], ends[l]) {
				ends[l] = s.Next
			}
		}
	}
	return ends
}

// tails continues the region's own logs behind what was archived.
func (r *refilling) tails(ctx context.Context) error {
	if !r.fromPeers() {
		return nil
	}
	found, err := r.askPeers(ctx)
	if err != nil {
		return err
	}
	takes := map[events.Log][]replicator.Stretch{}
	logs := slices.SortedFunc(maps.Keys(r.logs), events.Log.Compare)
	for _, l := range logs { // all of them before anything is written
		if l.Origin.Region == r.job.Config.Region {
			if takes[l], err = r.compareTail(ctx, r.logs[l], found[l]); err != nil {
				return err
			}
		}
	}
	for _, l := range logs {
		for _, from := range takes[l] {
			if err := r.take(ctx, r.logs[l], from); err != nil {
				return err
			}
		}
	}
	return nil
}

// comparedRecords is how many of the last archived records of a log are compared with each
// mirror of it.
const comparedRecords = 10_000

// compareTail makes sure that mirrors are of the same log as the archive is, as far as both reach, and the same
// among each other behind that. It says out of which the log is to be continued: each time the
// one that reaches farthest.
func (r *refilling) compareTail(ctx context.Context, l *refilledLog, mirrors []replicator.Stretch) (takes []replicator.Stretch, err error) {
	own, err := r.stretch(l)
	if err != nil {
		return nil, err
	}
	l.peers = nil
	for _, m := range mirrors {
		n, err := same(ctx, own, m, max(own.From(), m.From(), l.to-comparedRecords), min(l.to, m.Next))
		if err != nil {
			return nil, fmt.Errorf("%s: what is archived and a mirror: %w", l.log, err)
		}
		l.peers = append(l.peers, api.RefillPeer{Region: m.Region, From: m.From(), Next: m.Next, Compared: n})
	}
	for next := l.to; ; next = takes[len(takes)-1].Next {
		best := -1
		for i, m := range mirrors {
			if m.From() <= next && m.Next > next && (best < 0 || m.Next > mirrors[best].Next) {
				best = i
			}
		}
		if best < 0 {
			return takes, r.hole(l, next, mirrors)
		}
		for i, m := range mirrors {
			if i == best {
				continue
			}
			if _, err := same(ctx, mirrors[best], m, max(next, m.From()), min(mirrors[best].Next, m.Next)); err != nil {
				return nil, fmt.Errorf("%s: two mirrors: %w", l.log, err)
			}
		}
		takes = append(takes, mirrors[best])
	}
}

// hole refuses to go on before something that peers have and that does not follow.
func (r *refilling) hole(l *refilledLog, end int64, mirrors []replicator.Stretch) error {
	for _, m := range mirrors {
		if m.Next > end {
			return events.Errorf(events.KindRefused, "%s ends at offset %d, archive and mirrors together; %s has it from offset %d to %d: what lies between is lost, and the log cannot go on as the one that it was. "+
				"Its region can come back as a new incarnation (regions.%s.incarnation); to write back what is there all the same: --without-peer %s",
				l.log, end, m, m.From(), m.Next-1, r.job.Config.Region, m.Region)
		}
	}
	return nil
}

// stretch is what is in the log's own topic by now.
func (r *refilling) stretch(l *refilledLog) (replicator.Stretch, error) {
	runs, err := l.mapping()
	if err != nil {
		return replicator.Stretch{}, fmt.Errorf("%s: %w", l.log, err)
	}
	return replicator.Stretch{Region: r.job.Config.Region, Opts: r.opts, Topic: l.topic, Partition: l.log.Partition, End: l.count, Runs: runs, Next: l.to,
		BatchBytesMost: r.job.Config.Limits.MaxBatchBytes}, nil
}

// take takes all that a mirror has behind the log's end.
func (r *refilling) take(ctx context.Context, l *refilledLog, from replicator.Stretch) error {
	note := &l.peers[slices.IndexFunc(l.peers, func(p api.RefillPeer) bool { return p.Region == from.Region })]
	if len(l.runs) == 0 {
		l.runs = append(l.runs, api.RefillRun{Log: l.to, Before: &l.chain}) // nothing of it was archived
	}
	var batch refillBatch
	for record, err := range from.Records(ctx, l.to, from.Next) {
		if err != nil {
			return err
		}
		if offset := l.take(record); offset >= l.had {
			batch.add(l, record, offset)
		}
		note.Took++
		if l.count == l.had {
			if err := r.isOurs(ctx, l); err != nil {
				return err
			}
		}
		if len(batch.records) == refillRecords {
			if err := batch.write(ctx, r.client); err != nil {
				return err
			}
		}
	}
	l.to = from.Next
	if r.job.Taken != nil {
		r.job.Taken(l.log)
	}
	return batch.write(ctx, r.client)
}

// same makes sure that two stretches have the same records from an offset of the log up to another, and says
// how many.
func same(ctx context.Context, a, b replicator.Stretch, from, to int64) (records int64, err error) {
	if from >= to {
		return 0, nil
	}
	chainOf := digest.NewChain()
	next, stop := iter.Pull2(b.Records(ctx, from, to))
	defer stop()
	y, err, more := next()
	differ := func(format string, args ...any) error {
		return events.Errorf(events.KindInconsistent, "%s differs from %s: %s; one of them is no copy of the log. Find out which (evenkeel links verify, between the other regions), and leave out the region whose it is: --without-peer",
			a, b, fmt.Sprintf(format, args...))
	}
	for x, failed := range a.Records(ctx, from, to) {
		if failed != nil {
			return records, failed
		}
		for err == nil && more && y.Offset < x.Offset && a.Compacted {
			y, err, more = next()
		}
		if err != nil {
			return records, err
		}
		if b.Compacted && (!more || x.Offset < y.Offset) {
			continue
		}
		switch {
		case !more:
			return records, differ("offset %d of the log is in the first one only", x.Offset)
		case x.Offset != y.Offset:
			return records, differ("behind %d records the first one goes on with offset %d of the log, the other with %d", records, x.Offset, y.Offset)
		}
		if p, q := chainOf(events.Digest{}, x), chainOf(events.Digest{}, y); p != q {
			return records, differ("the record at offset %d of the log has the hash %s in the first one, %s in the other", x.Offset, p, q)
		}
		records++
		y, err, more = next()
	}
	if err == nil && more && !a.Compacted {
		err = differ("offset %d of the log is in the second one only", y.Offset)
	}
	return records, err
}
