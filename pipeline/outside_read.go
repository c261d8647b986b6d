package pipeline

import (
	"context"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
)

// outsideReadsMost bounds the reads of single keys that wait for what one shard has in the bucket.
const outsideReadsMost = 256

// entityHere reads the slices of one key in shards that the caller uses. One that lies in a backup may wait
// for the bucket, which nothing ends: the caller then waits for as long as its context allows, without its
// place. What goes on without it keeps the shards in use, so that their closing waits for it.
func entityHere(ctx context.Context, open []*openShard, stream events.Stream, key string) (e projections.Entity, err error) {
	shards, isOutside := make([]*projections.Shard, len(open)), false
	for i, s := range open {
		shards[i] = s.Shard
		isOutside = isOutside || s.IsInPlace()
	}
	if !isOutside {
		return projections.EntityOf(shards, stream, key)
	}
	leave, err := enterOutside(open)
	if err != nil {
		return e, err
	}
	type answer struct {
		entity projections.Entity
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		defer leave()
		e, err := projections.EntityOf(shards, stream, key)
		answers <- answer{e, err}
	}()
	err = api.Aside(ctx, func() error {
		select {
		case a := <-answers:
			e = a.entity
			return a.err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return e, err
}

// enterOutside uses shards for a read that may wait for the bucket, or turns it away.
func enterOutside(open []*openShard) (leave func(), err error) {
	var entered []*openShard
	leave = func() {
		for _, s := range entered {
			s.leaveOutside()
		}
	}
	for _, s := range open {
		if !s.enterOutside() {
			leave()
			return nil, events.Errorf(events.KindNotReady, "shard %d is being closed, or %d reads wait already for what it has in the bucket: %w", s.Partition(), outsideReadsMost, api.ErrBusy)
		}
		entered = append(entered, s)
	}
	return leave, nil
}

// enterOutside is use for one of a bounded number of reads that may wait for the bucket.
func (s *openShard) enterOutside() (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.outside == outsideReadsMost {
		return false
	}
	s.outside++
	s.users.Add(1)
	return true
}

func (s *openShard) leaveOutside() {
	s.mu.Lock()
	s.outside--
	s.mu.Unlock()
	s.users.Done()
}
