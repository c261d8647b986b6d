package prune_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

const region = events.Region("us")

const day = 24 * time.Hour

// cut is a frozen shard with some tables.
type cut struct {
	partition int32
	tables    int
}

func (c cut) Partition() int32    { return c.partition }
func (c cut) LineageID() string   { return "lineage" }
func (c cut) Epoch() events.Epoch { return 0 }
func (c cut) States() []events.LogState {
	return []events.LogState{{Log: c.log(), Next: int64(c.tables)}}
}
func (c cut) log() events.Log {
	return events.Log{Origin: events.FirstOrigin(region), Stream: "session", Partition: c.partition}
}

func (c cut) WriteTables(ctx context.Context, _ int64, create func(first []byte) (io.WriteCloser, error)) error {
	for n := range c.tables {
		w, err := create(fmt.Appendf(nil, "key %06d", n))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "table %d of shard %d", n, c.partition); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// backup makes a backup of two shards with two tables.
func backup(ctx context.Context, bucket objstore.Bucket) (*format.Manifest, error) {
	return snapshotter.Full(ctx, bucket, []snapshotter.Cut{cut{0, 1}, cut{1, 1}}, snapshotter.Config{
		Region: region, Software: "test", Merge: map[events.Stream]string{"session": "lww"}, Sealer: seal.None(),
	})
}

// made makes a backup that must succeed.
func made(t rapid.TB, bucket objstore.Bucket) string {
	t.Helper()
	m, err := backup(context.Background(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	return m.ID
}

// orphaned makes a backup whose writer dies before it publishes, and returns its id.
func orphaned(t rapid.TB, bucket objstore.Bucket) string {
	t.Helper()
	var table string
	_, err := backup(context.Background(), faults.New(bucket, faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*manifest*", Effect: faults.FailBefore}))
	for info, listErr := range bucket.List(context.Background(), format.TablePrefix(region)) {
		if listErr != nil {
			t.Fatal(listErr)
		}
		table = max(table, info.Name)
	}
	id, ok := format.ParseTableName(region, table)
	if err == nil || !ok {
		t.Fatalf("%v, %s", err, table)
	}
	return id
}

// nowhere is a target that forgets.
type nowhere struct{}

type discard struct{ io.Writer }

func (discard) Close() error { return nil }

func (nowhere) Create(int32, int) (io.WriteCloser, error)           { return discard{io.Discard}, nil }
func (nowhere) Finish(context.Context, format.Shard, [][]int) error { return nil }

// restored restores a backup.
func restored(ctx context.Context, bucket objstore.Bucket, id string) error {
	m, err := catalog.Load(ctx, bucket, region, id)
	if err != nil {
		return err
	}
	chain, err := catalog.LoadChain(ctx, bucket, m)
	if err == nil {
		_, err = restore.Run(ctx, restore.Source{Bucket: bucket}, chain, nowhere{}, nil)
	}
	return err
}

// audit checks that every backup that exists can be restored, and returns their ids.
func audit(t rapid.TB, bucket *objstore.Memory) []string {
	t.Helper()
	ctx := context.Background()
	ids, err := catalog.IDs(ctx, bucket, region)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := restored(ctx, bucket, id); err != nil {
			t.Errorf("backup %s exists and cannot be restored: %v", id, err)
		}
	}
	for _, violation := range bucket.Violations() {
		t.Errorf("the bucket's contract was broken: %s", violation)
	}
	return ids
}

// names lists what is in a bucket below a prefix.
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

// data lists manifests and tables.
func data(t rapid.TB, bucket objstore.Reader) []string {
	return slices.Concat(names(t, bucket, format.ManifestPrefix(region)), names(t, bucket, format.TablePrefix(region)))
}

func run(t *testing.T, bucket objstore.Bucket, policy prune.Policy) *prune.Report {
	t.Helper()
	report, err := prune.Run(t.Context(), bucket, prune.Config{Region: region, Policy: policy, Software: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return report
}
