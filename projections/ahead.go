package projections

import (
	"bytes"
	"context"
	"iter"
	"sort"
	"sync"
)

const (
	parallelAhead = 16 // tables of a shard that are opened side by side
	mostAhead     = 64 // for one reading: each keeps half a megabyte until Pebble has it
)

// ahead are the tables of a shard that lie outside. Pebble opens one after the other as a reading comes to them, one in
// each layer at least, and waits for the bucket each time; so whoever is about to read has those that he needs opened side by side.
type ahead struct {
	outside Outside
	layers  []Layer
	slots   chan struct{} // has one for each table that is being opened

	mu    sync.Mutex
	open  map[tableName]int // how often; those that Pebble has
	early map[tableName]*earlyTable
	idle  map[tableName]bool // Pebble did not ask for them: what they had may be here already
}

var _ Outside = (*ahead)(nil)

type tableName struct{ backup, name string }

// earlyTable is one that is opened before Pebble asks for it.
type earlyTable struct {
	opened chan struct{} // closed once it is, or cannot be
	table  OutsideTable
	err    error
}

func newAhead(outside Outside, layers []Layer) *ahead {
	return &ahead{outside: outside, layers: layers, slots: make(chan struct{}, parallelAhead), open: map[tableName]int{}, early: map[tableName]*earlyTable{}, idle: map[tableName]bool{}}
}

// look opens the tables in which keys of some spans may be and that Pebble does not have. Whoever has read them, or has
// given up, calls done.
func (a *ahead) look(under *reading, spans iter.Seq[keySpan]) (done func()) {
	mine := a.begin(spans)
	if len(mine) == 0 {
		return func() {}
	}
	ctx, cancel := under.begin(context.Background())
	for name, early := range mine {
		go a.openEarly(ctx, name, early)
	}
	return func() {
		cancel()
		a.forget(mine)
	}
}

func (a *ahead) begin(spans iter.Seq[keySpan]) map[tableName]*earlyTable {
	mine := map[tableName]*earlyTable{}
	last := make([]string, len(a.layers)) // of each layer: the spans of a batch are many, and neighbours
	a.mu.Lock()
	defer a.mu.Unlock()
	for span := range spans {
		for i, l := range a.layers {
			for _, t := range l.between(span) {
				if t.Name == last[i] {
					continue
				}
				last[i] = t.Name
				name := tableName{l.Backup, t.Name}
				if a.open[name] > 0 || a.early[name] != nil || a.idle[name] || len(mine) == mostAhead {
					continue
				}
				mine[name] = &earlyTable{opened: make(chan struct{})}
				a.early[name] = mine[name]
			}
		}
	}
	return mine
}

// keySpan are the keys in [start, end).
type keySpan struct{ start, end []byte }

func oneSpan(start, end []byte) iter.Seq[keySpan] {
	return func(yield func(keySpan) bool) { yield(keySpan{start, end}) }
}

// between are the tables of a layer in which keys of a span may be.
func (l Layer) between(span keySpan) []LayerTable {
	behind := func(key []byte) int { // the first table that begins behind a key
		return sort.Search(len(l.Tables), func(i int) bool { return bytes.Compare(l.Tables[i].First, key) > 0 })
	}
	return l.Tables[max(0, behind(span.start)-1):behind(span.end)]
}

func (a *ahead) openEarly(ctx context.Context, name tableName, early *earlyTable) {
	defer close(early.opened)
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
		early.table, early.err = a.outside.OpenTable(ctx, name.backup, name.name, ReadAnywhere)
	case <-ctx.Done():
		early.err = ctx.Err()
	}
}

// forget closes those tables that Pebble has not asked for.
func (a *ahead) forget(mine map[tableName]*earlyTable) {
	for name, early := range mine {
		<-early.opened
		if a.take(name, early) {
			a.mu.Lock()
			a.idle[name] = true
			a.mu.Unlock()
			if early.err == nil {
				_ = early.table.Close() // nothing was read
			}
		}
	}
}

// take reports whether the table is the caller's.
func (a *ahead) take(name tableName, early *earlyTable) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.early[name] != early {
		return false
	}
	delete(a.early, name)
	return true
}

// OpenTable implements Outside.
func (a *ahead) OpenTable(ctx context.Context, backup, name string, read Reading) (OutsideTable, error) {
	at := tableName{backup, name}
	table := a.takeEarly(ctx, at)
	if table == nil {
		var err error
		if table, err = a.outside.OpenTable(ctx, backup, name, read); err != nil {
			return nil, err
		}
	}
	a.count(at, 1)
	return &countedTable{table, a, at}, nil
}

// takeEarly is the table if it is opened ahead; nil if not, or if that has failed.
func (a *ahead) takeEarly(ctx context.Context, at tableName) OutsideTable {
	a.mu.Lock()
	early := a.early[at]
	a.mu.Unlock()
	if early == nil {
		return nil
	}
	select {
	case <-early.opened:
	case <-ctx.Done():
		return nil
	}
	if !a.take(at, early) || early.err != nil {
		return nil
	}
	return early.table
}

func (a *ahead) count(at tableName, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[at] += n; a.open[at] == 0 {
		delete(a.open, at)
	}
}

// countedTable is a table that Pebble has, until it closes it.
type countedTable struct {
	OutsideTable
	of *ahead
	at tableName
}

// Close implements OutsideTable.
func (t *countedTable) Close() error {
	t.of.count(t.at, -1)
	return t.OutsideTable.Close()
}
