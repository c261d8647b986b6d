package pipeline

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/listed"
	"github.com/evenkeel/evenkeel/pipeline/pause"
)

// ownEndsInterval is how long the fold has for what the region's own logs have before it lags, at least; and at most
// twice as long.
const ownEndsInterval = time.Minute

// ownEnds are where the region's own logs ended a while ago, whoever may read them so far: also what is behind an open
// transaction counts, and a log of which nobody can say it, as while a partition has no leader, may have anything.
type ownEnds struct {
	cfg   *config.Config
	admin *kadm.Client

	mu      sync.Mutex
	due     events.Vector       // what is to be folded by now
	asked   events.Vector       // what is to be folded when it is asked again
	unknown map[events.Log]bool // they could not be asked the last time
}

func newOwnEnds(cfg *config.Config, admin *kadm.Client) *ownEnds {
	return &ownEnds{cfg: cfg, admin: admin, due: events.Vector{}, asked: events.Vector{}, unknown: map[events.Log]bool{}}
}

// opened notes where the logs of a shard ended when it was opened: its state may have had all of it before.
func (e *ownEnds) opened(partition int32, ends events.Vector) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for stream := range e.cfg.Streams {
		log := e.log(stream, partition)
		e.due[log] = ends[log]
		delete(e.asked, log)
		delete(e.unknown, log)
	}
}

// watch asks again and again, until the context ends.
func (e *ownEnds) watch(ctx context.Context) {
	for range pause.Ticks(ctx, ownEndsInterval) {
		e.ask(ctx)
	}
}

func (e *ownEnds) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	var topics []string
	for _, s := range e.cfg.Streams {
		topics = append(topics, s.Topic)
	}
	found, _ := e.admin.ListEndOffsets(ctx, topics...) // what is not in it is not known, whatever the error
	e.mu.Lock()
	defer e.mu.Unlock()
	for stream, s := range e.cfg.Streams {
		for p := range e.cfg.Partitions {
			log := e.log(stream, p)
			if end, ok := e.asked[log]; ok {
				e.due[log] = end
			}
			if end, err := listed.Offset(found, s.Topic, p); err == nil {
				e.asked[log] = end
				delete(e.unknown, log)
			} else {
				e.unknown[log] = true
			}
		}
	}
}

// reached tells whether everything of a log is read that has to be by now, if it is read up to there.
func (e *ownEnds) reached(log events.Log, read int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.unknown[log] && read >= e.due[log]
}

func (e *ownEnds) log(stream events.Stream, partition int32) events.Log {
	return events.Log{Origin: e.cfg.Origin(e.cfg.Region), Stream: stream, Partition: partition}
}

// lags is a checks.Lags of the region's own logs.
func (r *Region) lags(log events.Log, next int64) bool {
	shard := r.shards.get(log.Partition)
	return shard != nil && (!r.worker.ends.reached(log, r.worker.placeOf(log, next)) || shard.Blocked()[log] != nil)
}
