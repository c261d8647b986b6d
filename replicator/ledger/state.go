package ledger

import (
	"encoding/json"
	"fmt"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// state is what the records of one link, in the topic's order, amount to. It does
// no I/O.
type state struct {
	link       string
	producers  map[Partition]producer
	partitions map[Partition]*partition
	mirrors    map[string]mirrorValue
	pauses     map[string]bool
	reached    map[Partition]reachedValue
	unsettled  map[Partition]bool // have records that the maps lack
	awaited    map[string]bool    // writers of chunks under way, and whether theirs count
	unreadable unreadable

	// void are keys of records that no reader will ever heed again. Whoever writes
	// next removes them.
	void map[string]bool
}

// producer is the winner of a generation's contest; none as long as key is empty.
type producer struct {
	generation int64
	key        string
	id         ProducerID
}

func newState(link string) *state {
	return &state{
		link:      link,
		producers: map[Partition]producer{}, partitions: map[Partition]*partition{},
		mirrors: map[string]mirrorValue{}, pauses: map[string]bool{}, reached: map[Partition]reachedValue{},
		unsettled: map[Partition]bool{}, awaited: map[string]bool{}, void: map[string]bool{},
	}
}

func (s *state) partition(p Partition) *partition {
	if s.partitions[p] == nil {
		s.partitions[p] = newPartition(0)
	}
	return s.partitions[p]
}

// apply takes the next record of the topic.
func (s *state) apply(offset int64, rawKey, value []byte) {
	if value == nil {
		s.remove(string(rawKey))
		return
	}
	var k key
	if err := json.Unmarshal(rawKey, &k); err != nil {
		s.unreadable.addf("offset %d: key: %v", offset, err)
		return
	}
	if k.Link != s.link {
		return
	}
	err := k.check()
	if err == nil {
		err = s.take(offset, k, string(rawKey), value)
	}
	if err != nil {
		s.unreadable.addf("offset %d: %v", offset, err)
	}
}

// remove takes a tombstone. Contests are decided for ever, so only facts go, and
// plans that have come to nothing.
func (s *state) remove(rawKey string) {
	delete(s.void, rawKey)
	var k key
	if err := json.Unmarshal([]byte(rawKey), &k); err != nil || k.Link != s.link {
		return
	}
	switch k.Kind {
	case kindMirror:
		delete(s.mirrors, k.Topic)
	case kindReached:
		delete(s.reached, k.partition())
	case kindPause:
		delete(s.pauses, k.What)
	case kindPlan:
		if k.check() == nil {
			s.partition(k.partition()).dropPlan(*k.Number, rawKey)
		}
	}
}

func (s *state) take(offset int64, k key, rawKey string, value []byte) error {
	switch k.Kind {
	case kindProducer:
		return s.takeProducer(k, rawKey, value)
	case kindMirror:
		var v mirrorValue
		if err := decode(value, &v); err != nil {
			return err
		}
		s.mirrors[k.Topic] = v
		return nil
	case kindReached:
		var v reachedValue
		if err := decode(value, &v); err != nil {
			return err
		}
		s.reached[k.partition()] = v
		return nil
	case kindPause:
		var v pauseValue
		if err := decode(value, &v); err != nil {
			return err
		}
		s.pauses[k.What] = v.Paused
		return nil
	case kindReset:
		var v resetValue
		if err := decode(value, &v); err != nil {
			return err
		}
		s.reset(k.partition(), offset+1, v)
		return nil
	case kindNewProducer:
		s.newProducer(k.partition(), offset+1)
		return nil
	}
	return s.takePart(k, rawKey, value)
}

func (s *state) takeProducer(k key, rawKey string, value []byte) error {
	var v producerValue
	if err := decode(value, &v); err != nil {
		return err
	}
	if v.ID < 0 || v.Epoch < 0 {
		return fmt.Errorf("producer %d, epoch %d of %s cannot be", v.ID, v.Epoch, k.partition())
	}
	is := s.producers[k.partition()]
	switch {
	case k.Generation < is.generation, k.Generation == is.generation && is.key != "" && is.key != rawKey:
		s.void[rawKey] = true
	case k.Generation == is.generation:
		s.producers[k.partition()] = producer{generation: is.generation, key: rawKey, id: ProducerID(v)}
	}
	return nil
}

// newProducer begins a generation of producers.
func (s *state) newProducer(p Partition, generation int64) {
	if was := s.producers[p]; was.key != "" {
		s.void[was.key] = true
	}
	s.producers[p] = producer{generation: generation}
}

// reset begins a generation of runs and epochs. The runs that it begins with are
// not checked against anything, so those that do not fit are left out.
func (s *state) reset(p Partition, generation int64, v resetValue) {
	for _, rawKey := range s.partition(p).keys() {
		s.void[rawKey] = true
	}
	part := newPartition(generation)
	part.resetBy = v.Writer
	for _, err := range part.append(v.Runs) {
		s.unreadable.addf("runs of %s: %v", p, err)
	}
	s.partitions[p] = part
	delete(s.unsettled, p)
}

// takePart takes a record of a generation of a partition.
func (s *state) takePart(k key, rawKey string, value []byte) error {
	p := s.partition(k.partition())
	switch {
	case k.Generation < p.generation:
		s.void[rawKey] = true
		return nil
	case k.Generation > p.generation:
		// Its reset has been replaced by a later one, which is further on.
		return nil
	}
	var voided []string
	switch k.Kind {
	case kindRuns:
		var v runsValue
		if err := decode(value, &v); err != nil {
			return err
		}
		voided = p.takeChunk(*k.Number, chunk{rawKey, blockChunk{Writer: k.Writer, runsValue: v}})
		s.unsettled[k.partition()] = true
	case kindBlock:
		var v blockValue
		if err := decode(value, &v); err != nil {
			return err
		}
		if len(v.Chunks) != blockChunks {
			return fmt.Errorf("block %d of %s has %d chunks, want %d", *k.Number, k.partition(), len(v.Chunks), blockChunks)
		}
		voided = p.takeBlock(*k.Number, block{key: rawKey, chunks: v.Chunks})
		s.unsettled[k.partition()] = true
	case kindPlan:
		var v planValue
		if err := decode(value, &v); err != nil {
			return err
		}
		if v.Dest < 0 || v.Count <= 0 {
			return fmt.Errorf("a batch of %d records at offset %d of %s cannot be", v.Count, v.Dest, k.partition())
		}
		voided = p.takePlan(*k.Number, plan{key: rawKey, planValue: v})
	case kindEpoch:
		var v epochValue
		if err := decode(value, &v); err != nil {
			return err
		}
		if v.Start < 0 {
			return fmt.Errorf("epoch %d at %d of %s cannot be", *k.Number, v.Start, k.partition())
		}
		voided = p.takeEpoch(int32(*k.Number), epoch{key: rawKey, start: v.Start})
	}
	for _, rawKey := range voided {
		s.void[rawKey] = true
	}
	return nil
}

// settle brings the maps up to date. To be called where the state is that of
// every reader, and only there.
func (s *state) settle() {
	for p := range s.unsettled {
		for _, err := range s.partitions[p].settle(s.note) {
			s.unreadable.addf("runs of %s: %v", p, err)
		}
	}
	clear(s.unsettled)
}

// note takes down that a chunk counts, if its writer waits for that.
func (s *state) note(writer string) {
	if _, waits := s.awaited[writer]; waits {
		s.awaited[writer] = true
	}
}

func (s *state) mapOf(p Partition) *mapping.Map {
	if s.partitions[p] == nil {
		return new(mapping.Map)
	}
	return s.partitions[p].runs.Clone()
}

func decode(value []byte, v any) error {
	if err := json.Unmarshal(value, v); err != nil {
		return fmt.Errorf("value: %w", err)
	}
	return nil
}
