package restore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// readAt reads all of a table, in parts.
func readAt(ctx context.Context, src restore.Source, t format.Table) (got []byte, err error) {
	table, err := src.OpenAt(ctx, t, seal.TableTail)
	if err != nil {
		return nil, err
	}
	for int64(len(got)) < table.Size() {
		part := make([]byte, min(30_000, table.Size()-int64(len(got))))
		if err := table.ReadAt(ctx, part, int64(len(got))); err != nil {
			return got, err
		}
		got = append(got, part...)
	}
	return got, table.Close()
}

func TestOpenAt(t *testing.T) {
	large := strings.Repeat("0123456789", 40_000)
	sealedBucket, m, operating, recovery := sealedBackup(t, []string{"one", large})
	plainBucket, plain := backup(t, []string{"one", large})
	for name, c := range map[string]struct {
		bucket objstore.Bucket
		m      *format.Manifest
		opener *seal.Opener
	}{"operating key": {sealedBucket, m, operating}, "recovery key": {sealedBucket, m, recovery}, "not sealed": {plainBucket, plain, nil}} {
		for n, want := range []string{"one", large} {
			got, err := readAt(t.Context(), restore.Source{Bucket: c.bucket, Opener: c.opener}, c.m.Shards[0].Tables[n])
			if err != nil || string(got) != want {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	}
}

// Whatever was done to an object that is sealed, it is named and refused, and nothing
// else comes out of it.
func TestOpenAtRefuses(t *testing.T) {
	large := strings.Repeat("0123456789", 30_000)
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			bucket, m, opener, _ := sealedBackup(t, []string{large, large + "!"})
			table, other := m.Shards[0].Tables[0], m.Shards[0].Tables[1]
			switch how := rapid.SampledFrom([]string{"flip", "cut", "swap", "delete"}).Draw(rt, "how"); how {
			case "swap":
				b, err := objstore.ReadAll(t.Context(), bucket, other.Name, 1<<20)
				if err = errors.Join(err, bucket.Damage(table.Name, func([]byte) []byte { return b })); err != nil {
					rt.Fatal(err)
				}
			case "delete":
				_ = bucket.Delete(t.Context(), table.Name)
			default:
				_ = bucket.Damage(table.Name, func(b []byte) []byte {
					b = bytes.Clone(b)
					at := rapid.IntRange(0, len(b)-1).Draw(rt, "at")
					if how == "cut" {
						return b[:at]
					}
					b[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "mask"))
					return b
				})
			}
			got, err := readAt(t.Context(), restore.Source{Bucket: bucket, Opener: opener}, table)
			if events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), "object "+table.Name) {
				rt.Fatalf("%d bytes, %v", len(got), err)
			}
			if !strings.HasPrefix(large, string(got)) {
				rt.Fatal("bytes came out that were not sealed")
			}
		})
	})
}

// One bad reading proves no damage; a bucket out of reach is none, and is asked once for the beginning and once for the end.
func TestOpenAtTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, m, opener, _ := sealedBackup(t, []string{strings.Repeat("0123456789", 30_000)})
		table := m.Shards[0].Tables[0]
		for _, effect := range []faults.Effect{faults.FlipBit, faults.TearBody, faults.TruncateBody} {
			faulty := faults.New(bucket, faults.Rule{Ops: []string{objstore.OpGetRange}, Effect: effect, Times: 2})
			if _, err := readAt(t.Context(), restore.Source{Bucket: faulty, Opener: opener}, table); err != nil {
				t.Errorf("%s: %v", effect, err)
			}
		}
		faulty := faults.New(bucket, faults.Rule{Ops: []string{objstore.OpGetRange}, Effect: faults.FailBefore})
		_, err := readAt(t.Context(), restore.Source{Bucket: faulty, Opener: opener}, table)
		if !errors.Is(err, objstore.ErrUnavailable) || events.KindOf(err) == events.KindInconsistent || !strings.Contains(err.Error(), "object "+table.Name) || len(faulty.Log()) > 2 {
			t.Errorf("%v, after %v", err, faulty.Log())
		}
		stranger, _ := newKey(t)
		if _, err := readAt(t.Context(), restore.Source{Bucket: bucket, Opener: stranger}, table); events.KindOf(err) != events.KindNotFound || !strings.Contains(err.Error(), table.Name) {
			t.Errorf("another key: %v", err)
		}
	})
}

// First keys come out of the manifest, sealed or not; where they are not there, out of
// the tables.
func TestFirsts(t *testing.T) {
	bucket, m, opener, _ := sealedBackup(t, []string{"b-first", "d-second"})
	shard := m.Shards[0]
	src := restore.Source{Bucket: bucket, Opener: opener}
	first := func(ctx context.Context, table *restore.TableAt) ([]byte, error) {
		key := make([]byte, 1)
		return key, table.ReadAt(ctx, key, 0)
	}
	got, err := src.Firsts(t.Context(), shard, first)
	if err != nil || len(got) != 2 || string(got[0]) != "b" || string(got[1]) != "d" {
		t.Errorf("out of the tables: %q, %v", got, err)
	}
	want := [][]byte{[]byte("first"), []byte("second")}
	for name, keys := range map[string][]string{"sealed": shard.Tables[0].Keys, "not sealed": {}} {
		shard.Tables[0].Keys = keys
		shard.Firsts = format.EncodeFirsts(want)
		if name == "sealed" {
			shard.Firsts = sealFor(t, opener, shard.Firsts)
		}
		got, err := src.Firsts(t.Context(), shard, nil)
		if err != nil || len(got) != 2 || !bytes.Equal(got[0], want[0]) || !bytes.Equal(got[1], want[1]) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for at := range shard.Firsts {
			harmed := shard
			harmed.Firsts = bytes.Clone(shard.Firsts)
			harmed.Firsts[at] ^= 0x80
			if got, err := src.Firsts(t.Context(), harmed, nil); err == nil && name == "sealed" {
				t.Errorf("byte %d was changed: %q", at, got)
			}
		}
	}
}

func sealFor(t *testing.T, opener *seal.Opener, plain []byte) []byte {
	t.Helper()
	_, other := newKey(t)
	sealer, err := seal.NewSealer([]string{opener.Recipients()[0], other})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := sealer.Writer(&b)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// counted counts the readings of parts of objects.
type counted struct {
	objstore.Bucket
	ranges atomic.Int32
}

func (c *counted) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	c.ranges.Add(1)
	return c.Bucket.GetRange(ctx, name, offset, length)
}

// No more tables than are allowed keep what they have read last, and those do that were read last.
func TestKept(t *testing.T) {
	large := strings.Repeat("0123456789", 40_000)
	bucket, m, opener, _ := sealedBackup(t, []string{large, large + "!", large + "!!"})
	in := &counted{Bucket: bucket}
	src := restore.Source{Bucket: in, Opener: opener, Kept: restore.NewKept(2)}
	var tables []*restore.TableAt
	for _, table := range m.Shards[0].Tables {
		opened, err := src.OpenAt(t.Context(), table, seal.ShortTail)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, opened)
	}
	for i, step := range []struct {
		table int
		asks  int32
	}{
		{0, 1}, {0, 0}, {1, 1}, {0, 0}, {1, 0}, // two
		{2, 1}, {1, 0}, {2, 0}, {0, 1}, // the one that was read longest ago has forgotten
		{2, 0}, {1, 1},
	} {
		in.ranges.Store(0)
		if err := tables[step.table].ReadAt(t.Context(), make([]byte, 100), 70_000); err != nil {
			t.Fatal(err)
		}
		if got := in.ranges.Load(); got != step.asks {
			t.Errorf("step %d, table %d: %d readings, want %d", i, step.table, got, step.asks)
		}
	}
	// One that is closed has no place.
	if err := tables[1].Close(); err != nil {
		t.Fatal(err)
	}
	in.ranges.Store(0)
	for _, n := range []int{0, 2, 0, 2} {
		if err := tables[n].ReadAt(t.Context(), make([]byte, 100), 70_000); err != nil {
			t.Fatal(err)
		}
	}
	if got := in.ranges.Load(); got > 1 {
		t.Errorf("%d readings of two tables that have room", got)
	}
}
