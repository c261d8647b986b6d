package snapshotter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

const region = events.Region("us-east-1")

var (
	_, operatingKey       = newKey()
	recovery, recoveryKey = newKey()

	config = snapshotter.Config{Region: region, Software: "test", Merge: map[events.Stream]string{"session": "lww"}, Sealer: newSealer()}
)

func newKey() (opener *seal.Opener, recipient string) {
	file, recipient, err := seal.Generate(false, time.Unix(1, 0))
	if err == nil {
		opener, err = seal.NewOpener("key", file)
	}
	if err != nil {
		panic(err)
	}
	return opener, recipient
}

func newSealer() *seal.Sealer {
	s, err := seal.NewSealer([]string{operatingKey, recoveryKey})
	if err != nil {
		panic(err)
	}
	return s
}

// cut is a frozen shard made of any bytes.
type cut struct {
	partition int32
	tables    []string

	// What a faulty one does.
	breaksAt int  // before its nth table, from 1; 0: never
	forgets  bool // to close its last writer
	hides    bool // errors of Close
}

var errBroken = errors.New("the cut is broken")

func (c *cut) Partition() int32  { return c.partition }
func (c *cut) LineageID() string { return fmt.Sprintf("lineage-%d", c.partition) }

func (c *cut) Epoch() events.Epoch { return events.Epoch(c.partition) }

// States tells of the tables, so that a restore can be compared with it.
func (c *cut) States() (states []events.LogState) {
	if len(c.tables) == 0 {
		return nil
	}
	log := events.Log{Origin: events.FirstOrigin(region), Stream: "session", Partition: c.partition}
	return append(states, events.LogState{Log: log, Next: int64(len(c.tables)), Keys: int64(len(c.tables)), Bytes: int64(len(strings.Join(c.tables, "")))})
}

// firstKey is that of the nth table of a fake cut.
func firstKey(n int) []byte { return fmt.Appendf(nil, "key %06d", n) }

func (c *cut) WriteTables(ctx context.Context, tableBytes int64, create func(first []byte) (io.WriteCloser, error)) error {
	if tableBytes <= 0 {
		return fmt.Errorf("tables of %d bytes", tableBytes)
	}
	for n, contents := range c.tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n+1 == c.breaksAt {
			return errBroken
		}
		w, err := create(firstKey(n))
		if err != nil {
			return err
		}
		half := len(contents) / 2
		for _, part := range []string{contents[:half], contents[half:]} {
			if _, err := io.WriteString(w, part); err != nil {
				return err
			}
		}
		if c.forgets && n == len(c.tables)-1 {
			return nil
		}
		if err := w.Close(); err != nil && !c.hides {
			return err
		}
	}
	return nil
}

// cutsOf makes a cut of each list of tables.
func cutsOf(tables ...[]string) (cuts []snapshotter.Cut) {
	for p, t := range tables {
		cuts = append(cuts, &cut{partition: int32(p), tables: t})
	}
	return cuts
}

// someCuts are three shards, one of them empty: four tables and a manifest.
func someCuts() []snapshotter.Cut {
	return cutsOf([]string{"a first table", "a second one"}, nil, []string{strings.Repeat("large ", 1000), "small"})
}

const tablesOfSome = 4

// target collects what is restored.
type target struct {
	mu       sync.Mutex
	tables   map[int32]map[int]string
	finished map[int32]format.Shard
	layers   map[int32][][]int
}

func newTarget() *target {
	return &target{tables: map[int32]map[int]string{}, finished: map[int32]format.Shard{}, layers: map[int32][][]int{}}
}

func (t *target) Create(partition int32, n int) (io.WriteCloser, error) {
	return &piece{target: t, partition: partition, n: n}, nil
}

func (t *target) Finish(_ context.Context, shard format.Shard, layers [][]int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, again := t.finished[shard.Partition]; again {
		return fmt.Errorf("shard %d is finished twice", shard.Partition)
	}
	if n := len(slices.Concat(layers...)); len(t.tables[shard.Partition]) != n || len(layers[len(layers)-1]) != len(shard.Tables) {
		return fmt.Errorf("shard %d: %d of %d tables are there", shard.Partition, len(t.tables[shard.Partition]), n)
	}
	t.layers[shard.Partition] = layers
	t.finished[shard.Partition] = shard
	return nil
}

// piece is one table under way.
type piece struct {
	bytes.Buffer
	target    *target
	partition int32
	n         int
}

func (p *piece) Close() error {
	p.target.mu.Lock()
	defer p.target.mu.Unlock()
	if p.target.tables[p.partition] == nil {
		p.target.tables[p.partition] = map[int]string{}
	}
	p.target.tables[p.partition][p.n] = p.String()
	return nil
}

// compare says how what was restored differs from the cuts, nil if not.
func (t *target) compare(cuts []snapshotter.Cut) error {
	if len(t.finished) != len(cuts) {
		return fmt.Errorf("%d of %d shards were finished", len(t.finished), len(cuts))
	}
	for _, c := range cuts {
		c := c.(*cut)
		shard := t.finished[c.partition]
		if shard.Lineage != c.LineageID() || shard.Epoch != c.Epoch() || !slices.Equal(shard.States, c.States()) {
			return fmt.Errorf("shard %d: %+v", c.partition, shard)
		}
		for n, want := range c.tables {
			if got := t.tables[c.partition][n]; got != want {
				return fmt.Errorf("shard %d, table %d: %.40q, want %.40q", c.partition, n, got, want)
			}
		}
		if len(t.tables[c.partition]) != len(c.tables) {
			return fmt.Errorf("shard %d: %d tables, want %d", c.partition, len(t.tables[c.partition]), len(c.tables))
		}
	}
	return nil
}

// audit checks the rule that a backup exists if and only if its manifest does:
// every manifest in the bucket restores to exactly one of the given states, and
// nobody broke the bucket's contract. It returns the ids.
func audit(t rapid.TB, bucket *objstore.Memory, possible ...[]snapshotter.Cut) []string {
	t.Helper()
	ctx := context.Background()
	ids, err := catalog.IDs(ctx, bucket, region)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		m, err := catalog.Load(ctx, bucket, region, id)
		if err != nil {
			t.Errorf("backup %s exists and cannot be read: %v", id, err)
			continue
		}
		tgt := newTarget()
		report, err := restore.Run(ctx, restore.Source{Bucket: bucket, Opener: recovery}, catalog.Chain{m}, tgt, nil)
		if err != nil {
			t.Errorf("backup %s exists and cannot be restored: %v", id, err)
			continue
		}
		if !slices.ContainsFunc(possible, func(cuts []snapshotter.Cut) bool { return tgt.compare(cuts) == nil }) {
			t.Errorf("backup %s restores to something else: %v", id, tgt.compare(possible[0]))
		}
		if report.Backup != id || report.Bytes != m.Bytes() || !reflect.DeepEqual(report.States, m.States()) {
			t.Errorf("backup %s: report %+v", id, report)
		}
	}
	for _, pin := range names(t, bucket, format.PinPrefix(region)) {
		t.Errorf("a restore has left %s", pin)
	}
	for _, violation := range bucket.Violations() {
		t.Errorf("the bucket's contract was broken: %s", violation)
	}
	return ids
}

// names lists objects.
func names(t rapid.TB, bucket objstore.Reader, prefix string) (names []string) {
	t.Helper()
	for info, err := range bucket.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}
