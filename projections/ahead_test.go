package projections_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// inLayers is a shard in place in so many layers, each of which has all keys, and covers those before.
func inLayers(t *testing.T, e *elsewhere, layers int, tableBytes int64) (projections.Config, world) {
	t.Helper()
	w := smallWorld(0)
	var chain []projections.Layer
	var states []events.LogState
	for n := range layers {
		for i, l := range logsOf(0) {
			w.write(l, bare(keys[i], []byte("later"), int64(1000+n)))
		}
		var layer projections.Layer
		layer, states = e.put(t, fmt.Sprint("backup-", n), w, tableBytes)
		chain = append(chain, layer)
	}
	cfg := config(vfs.NewMem())
	cfg.Outside = e
	if err := projections.RestoreInPlace(t.Context(), cfg, fmt.Sprint("backup-", layers-1), chain, states); err != nil {
		t.Fatal(err)
	}
	return cfg, w
}

// What is outside is needed only for what is asked of a shard: not for opening it, however often, nor for where its logs stand.
func TestInPlaceIsOpenedWithoutWhatIsOutside(t *testing.T) {
	e := newElsewhere()
	cfg, w := inLayers(t, e, 3, 300)
	e.set(errAway, false)
	for range 2 {
		s := open(t, cfg)
		if got, want := fmt.Sprint(s.Logs()), fmt.Sprint(w.states(w.ends())); got != want {
			t.Errorf("logs at %s, want %s", got, want)
		}
		closeShard(t, s)
	}
}

// Whoever reads a key waits once for the tables of all layers in which it may be, not for one after the other.
func TestTablesAreOpenedSideBySide(t *testing.T) {
	const layers = 5
	for name, read := range map[string]func(s *projections.Shard, w world) error{
		"a key": func(s *projections.Shard, _ world) error {
			_, err := projections.Get([]*projections.Shard{s}, "session", keys[0])
			return err
		},
		"a scan": func(s *projections.Shard, _ world) error {
			for _, err := range projections.Scan([]*projections.Shard{s}, "session", "", "") {
				return err
			}
			return errors.New("nothing is there")
		},
		"an event": func(s *projections.Shard, w world) error {
			l := logsOf(0)[0]
			w.write(l, bare(keys[0], []byte("last"), 1))
			_, err := s.Apply([]projections.Run{w.from(l, s.Next(l), 1)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newElsewhere()
			cfg, w := inLayers(t, e, layers, 1<<20)
			s := open(t, cfg)
			defer closeShard(t, s)
			e.opens, e.meet, e.met = 0, layers, make(chan struct{})
			if err := read(s, w); err != nil {
				t.Fatal(err)
			}
			if e.alone || e.opens != layers {
				t.Errorf("%d tables were opened, one after the other: %v; want one of each of %d layers", e.opens, e.alone, layers)
			}
			checkShard(t, s, w, w.ends())
		})
	}
}

// Tables that are here already are not opened again and again while what is here is not proved.
func TestTablesThatAreHereAreNotOpenedAhead(t *testing.T) {
	e := newElsewhere()
	cfg, w := inLayers(t, e, 3, 300)
	s := open(t, cfg)
	defer closeShard(t, s)
	unproved := errors.New("the disk is full")
	if err := s.HydrateThen(t.Context(), func([]events.LogState) error { return unproved }); !errors.Is(err, unproved) {
		t.Fatal(err)
	}
	checkShard(t, s, w, w.ends())
	e.mu.Lock()
	e.opens = 0
	e.mu.Unlock()
	checkShard(t, s, w, w.ends())
	if e.opens != 0 || s.InPlace() == nil {
		t.Errorf("%d tables were opened of %+v", e.opens, s.InPlace())
	}
}
