package verify_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

const region = events.Region("us")

// cut is a frozen shard with two tables.
type cut struct{ partition int32 }

func (c cut) Partition() int32          { return c.partition }
func (c cut) LineageID() string         { return "lineage" }
func (c cut) Epoch() events.Epoch       { return 3 }
func (c cut) States() []events.LogState { return nil }

func (c cut) WriteTables(_ context.Context, _ int64, create func(first []byte) (io.WriteCloser, error)) error {
	for n := range 2 {
		w, err := create(fmt.Appendf(nil, "key %d", n))
		if err == nil {
			_, err = fmt.Fprintf(w, "table %d/%d", c.partition, n)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			return err
		}
	}
	return nil
}

// bucketOf makes a bucket with backups, a day apart, and a source that opens them.
func bucketOf(t *testing.T, backups int) (*objstore.Memory, restore.Source, []*format.Manifest) {
	t.Helper()
	var recipients []string
	var opener *seal.Opener
	for range 2 {
		file, recipient, err := seal.Generate(false, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		recipients = append(recipients, recipient)
		if opener, err = seal.NewOpener("key", file); err != nil {
			t.Fatal(err)
		}
	}
	sealer, err := seal.NewSealer(recipients)
	if err != nil {
		t.Fatal(err)
	}
	bucket := objstore.NewMemory("b")
	var made []*format.Manifest
	for range backups {
		m, err := snapshotter.Full(t.Context(), bucket, []snapshotter.Cut{cut{0}, cut{1}}, snapshotter.Config{Region: region, Sealer: sealer})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, m)
		time.Sleep(24 * time.Hour)
	}
	return bucket, restore.Source{Bucket: bucket, Opener: opener}, made
}

// checks are those of tables that begin with "table", of backups that can be restored.
func checks(src restore.Source) verify.Checks {
	return verify.Checks{
		Decode: func(_ context.Context, table []byte) error {
			if !strings.HasPrefix(string(table), "table") {
				return events.Errorf(events.KindInconsistent, "no table")
			}
			return nil
		},
		Restore: func(ctx context.Context, m *format.Manifest) error {
			chain, err := catalog.LoadChain(ctx, src.Bucket, m)
			if err == nil {
				_, err = restore.Run(ctx, src, chain, nowhere{}, nil)
			}
			return err
		},
	}
}

type nowhere struct{}

type discard struct{ io.Writer }

func (discard) Close() error { return nil }

func (nowhere) Create(int32, int) (io.WriteCloser, error)           { return discard{io.Discard}, nil }
func (nowhere) Finish(context.Context, format.Shard, [][]int) error { return nil }

func TestWhatIsWholeIsFoundWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, src, made := bucketOf(t, 3)
		for _, level := range verify.Levels {
			var planned, looked atomic.Int64
			report, err := verify.Run(t.Context(), src, region, nil, level, checks(src), verify.Progress{
				Planned: func(n int64) { planned.Add(n) }, Looked: func(n int64) { looked.Add(n) },
			})
			if err != nil || report.Err() != nil || len(report.Backups) != 3 || report.Level != level || report.Backups[0].Objects != 5 {
				t.Fatalf("%s: %+v, %v", level, report, err)
			}
			want := made[0].StoredBytes() + made[1].StoredBytes() + made[2].StoredBytes()
			if level == "manifests" {
				want = 0
			}
			if looked.Load() != want || planned.Load() != want {
				t.Errorf("%s: %d bytes looked at, want %d", level, looked.Load(), want)
			}
			report, err = verify.Run(t.Context(), src, region, []string{made[1].ID}, level, checks(src), verify.Progress{})
			if err != nil || len(report.Backups) != 1 || report.Backups[0].ID != made[1].ID {
				t.Errorf("one: %+v, %v", report, err)
			}
		}
		if pins, err := catalog.Pins(t.Context(), bucket, region); err != nil || len(pins) > 0 {
			t.Errorf("pins are left: %v, %v", pins, err)
		}
		for _, test := range []struct {
			ids   []string
			level string
			kind  events.Kind
		}{{nil, "everything", events.KindInvalid}, {[]string{"x"}, "hashes", events.KindNotFound}} {
			if _, err := verify.Run(t.Context(), src, region, test.ids, test.level, checks(src), verify.Progress{}); events.KindOf(err) != test.kind {
				t.Errorf("%v: %v", test, err)
			}
		}
		if report, err := verify.Run(t.Context(), src, "eu", nil, "hashes", checks(src), verify.Progress{}); err != nil || report.Err() != nil || len(report.Backups) > 0 {
			t.Errorf("no backups: %+v, %v", report, err)
		}
	})
}

// Each kind of damage is found from its level on, and named; the rest is looked at.
func TestDamageIsFoundAndNamed(t *testing.T) {
	for _, test := range []struct {
		name  string
		level int // from which it is found
		harm  func(t *testing.T, b *objstore.Memory, m *format.Manifest) (object string)
	}{
		{"manifest changed", 0, func(t *testing.T, b *objstore.Memory, m *format.Manifest) string {
			return damage(t, b, format.ManifestName(region, m.ID), func(body []byte) []byte { body[20] ^= 1; return body })
		}},
		{"table missing", 0, func(t *testing.T, b *objstore.Memory, m *format.Manifest) string {
			name := m.Shards[1].Tables[0].Name
			if err := b.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			return name
		}},
		{"table cut", 0, func(t *testing.T, b *objstore.Memory, m *format.Manifest) string {
			return damage(t, b, m.Shards[0].Tables[1].Name, func(body []byte) []byte { return body[:len(body)-1] })
		}},
		{"bit flipped", 1, func(t *testing.T, b *objstore.Memory, m *format.Manifest) string {
			return damage(t, b, m.Shards[0].Tables[1].Name, func(body []byte) []byte { body[len(body)/2] ^= 8; return body })
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket, src, made := bucketOf(t, 3)
				object := test.harm(t, bucket, made[1])
				for depth, level := range verify.Levels {
					report, err := verify.Run(t.Context(), src, region, nil, level, checks(src), verify.Progress{})
					if err != nil || len(report.Backups) != 3 {
						t.Fatalf("%s: %+v, %v", level, report, err)
					}
					var want []string
					if depth >= test.level {
						want = []string{object}
					}
					if got := report.Damaged(); !slices.Equal(got, want) {
						t.Errorf("%s: damaged %q, want %q", level, got, want)
					}
					if err := report.Err(); want != nil && (events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), object)) {
						t.Errorf("%s: %v", level, err)
					}
				}
			})
		})
	}
}

func damage(t *testing.T, b *objstore.Memory, name string, change func([]byte) []byte) string {
	t.Helper()
	if err := b.Damage(name, change); err != nil {
		t.Fatal(err)
	}
	return name
}

// What the checks find is damage; what they cannot do is an error.
func TestChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, src, made := bucketOf(t, 1)
		bad := events.Errorf(events.KindInconsistent, "bad")
		full := errors.New("disk full")
		for _, test := range []struct {
			level           string
			decode, restore error
			damaged         int
			err             error
		}{
			{"decode", bad, nil, 4, nil},
			{"decode", full, nil, 0, full},
			{"restore", bad, nil, 4, nil},
			{"restore", nil, bad, 1, nil},
			{"restore", nil, full, 0, full},
		} {
			report, err := verify.Run(t.Context(), src, region, nil, test.level, verify.Checks{
				Decode:  func(context.Context, []byte) error { return test.decode },
				Restore: func(context.Context, *format.Manifest) error { return test.restore },
			}, verify.Progress{})
			if !errors.Is(err, test.err) || err == nil && len(report.Damaged()) != test.damaged {
				t.Errorf("%v: %+v, %v", test, report, err)
			}
		}
		// Without a key hashes can be verified, and nothing more.
		src.Opener = nil
		if report, err := verify.Run(t.Context(), src, region, nil, "hashes", checks(src), verify.Progress{}); err != nil || report.Err() != nil {
			t.Errorf("hashes: %v", err)
		}
		_, err := verify.Run(t.Context(), src, region, nil, "decode", checks(src), verify.Progress{})
		if events.KindOf(err) != events.KindNotFound || !strings.Contains(err.Error(), made[0].Shards[0].Tables[0].Name[:30]) {
			t.Errorf("decode without a key: %v", err)
		}
	})
}

// A bucket that is away is no damage, and no health.
func TestUnknownIsNeverGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, src, _ := bucketOf(t, 1)
		for _, rule := range []faults.Rule{
			{Ops: []string{objstore.OpList}, Effect: faults.FailBefore},
			{Ops: []string{objstore.OpGet}, Name: "*manifest", Effect: faults.FailBefore},
			{Ops: []string{objstore.OpGet}, Name: "*.age", Effect: faults.FailBefore},
			{Ops: []string{objstore.OpGet}, Name: "*.age", Effect: faults.Deny},
		} {
			src.Bucket = faults.New(bucket, rule)
			if report, err := verify.Run(t.Context(), src, region, nil, "decode", checks(src), verify.Progress{}); err == nil || events.KindOf(err) == events.KindInconsistent {
				t.Errorf("%v: %+v, %v", rule, report, err)
			}
		}
	})
}
