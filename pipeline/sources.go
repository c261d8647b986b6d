package pipeline

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
)

// maxSources bounds how many sources a node remembers the turns of.
const maxSources = 1_000

// sources lets one batch of a source be written at a time, in the turn of
// whoever asked last what has landed. A turn that is forgotten, by a restart or
// because there are too many sources, is as good as one that is over.
type sources struct {
	mu   sync.Mutex
	byID map[string]*source
}

type source struct {
	one   chan struct{} // held by whoever works on the source
	users int           // that hold it or wait for it
	turn  string        // guarded by one
}

// lock waits until nobody else works on the source, as long as the context
// allows. The function that it returns gives it back.
func (s *sources) lock(ctx context.Context, id string) (src *source, unlock func(), err error) {
	src = s.enter(id)
	select {
	case src.one <- struct{}{}:
	case <-ctx.Done():
		s.leave(src)
		return nil, nil, ctx.Err()
	}
	return src, func() {
		<-src.one
		s.leave(src)
	}, nil
}

func (s *sources) enter(id string) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[string]*source{}
	}
	src, ok := s.byID[id]
	if !ok {
		s.makeRoom()
		src = &source{one: make(chan struct{}, 1)}
		s.byID[id] = src
	}
	src.users++
	return src
}

func (s *sources) leave(src *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src.users--
}

// makeRoom forgets any of the sources that nobody uses, if there are too many.
func (s *sources) makeRoom() {
	for id, src := range s.byID {
		if len(s.byID) < maxSources {
			return
		}
		if src.users == 0 {
			delete(s.byID, id)
		}
	}
}

// newTurn ends the turn of the source and begins another. The caller holds the
// source.
func (src *source) newTurn() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails, by its contract
	src.turn = hex.EncodeToString(id[:])
	return src.turn
}
