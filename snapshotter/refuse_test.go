package snapshotter_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// What no manifest can say is refused before hours are spent on tables.
func TestRefusedBeforeAnythingIsUploaded(t *testing.T) {
	for name, change := range map[string]func(cuts []snapshotter.Cut, cfg *snapshotter.Config) []snapshotter.Cut{
		"no shards":     func([]snapshotter.Cut, *snapshotter.Config) []snapshotter.Cut { return nil },
		"shard missing": func(cuts []snapshotter.Cut, _ *snapshotter.Config) []snapshotter.Cut { return cuts[1:] },
		"shard twice":   func(cuts []snapshotter.Cut, _ *snapshotter.Config) []snapshotter.Cut { return append(cuts, cuts[0]) },
		"no region":     func(cuts []snapshotter.Cut, cfg *snapshotter.Config) []snapshotter.Cut { cfg.Region = ""; return cuts },
		"region is a path": func(cuts []snapshotter.Cut, cfg *snapshotter.Config) []snapshotter.Cut {
			cfg.Region = "a/b"
			return cuts
		},
		"unnamed rule": func(cuts []snapshotter.Cut, cfg *snapshotter.Config) []snapshotter.Cut {
			cfg.Merge["x"] = ""
			return cuts
		},
	} {
		t.Run(name, func(t *testing.T) {
			bucket := objstore.NewMemory("backups")
			cfg := config
			cfg.Merge = maps.Clone(config.Merge)
			m, err := snapshotter.Full(t.Context(), bucket, change(someCuts(), &cfg), cfg)
			if m != nil || events.KindOf(err) == 0 {
				t.Errorf("%v, %v", m, err)
			}
			for info := range bucket.List(t.Context(), "") {
				t.Errorf("uploaded all the same: %q", info.Name)
			}
			audit(t, bucket)
		})
	}
}

// The order of the caller's cuts is neither relied on nor changed, and its
// configuration is its own.
func TestArgumentsStayTheCallers(t *testing.T) {
	cuts := someCuts()
	slices.Reverse(cuts)
	given := slices.Clone(cuts)
	cfg := config
	cfg.Merge = maps.Clone(config.Merge)
	bucket := objstore.NewMemory("backups")
	m, err := snapshotter.Full(t.Context(), bucket, cuts, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cuts, given) {
		t.Error("Full changed the order of the cuts")
	}
	cfg.Merge["session"] = "changed"
	if m.Merge["session"] != config.Merge["session"] {
		t.Errorf("the manifest says %q after the caller changed its configuration", m.Merge["session"])
	}
	audit(t, bucket, given)
}

// rawCut writes its tables as it likes and takes no notice of the context.
type rawCut struct {
	cut
	write func(create func(first []byte) (io.WriteCloser, error)) error
}

func (c *rawCut) WriteTables(_ context.Context, _ int64, create func(first []byte) (io.WriteCloser, error)) error {
	return c.write(create)
}

// A table that is closed is closed: bytes that come later would be in no hash.
func TestClosedTableTakesNothing(t *testing.T) {
	for name, late := range map[string]func(w io.WriteCloser) error{
		"write":       func(w io.WriteCloser) error { _, err := w.Write([]byte("more")); return err },
		"copy":        func(w io.WriteCloser) error { _, err := io.Copy(w, strings.NewReader("more")); return err },
		"close again": func(w io.WriteCloser) error { return w.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			bucket := objstore.NewMemory("backups")
			c := &rawCut{write: func(create func(first []byte) (io.WriteCloser, error)) error {
				w, err := create(firstKey(0))
				if err != nil {
					return err
				}
				if _, err := io.WriteString(w, "table"); err != nil {
					return err
				}
				return errors.Join(w.Close(), late(w))
			}}
			m, err := snapshotter.Full(t.Context(), bucket, []snapshotter.Cut{c}, config)
			if m != nil || err == nil || !strings.Contains(err.Error(), "closed already") {
				t.Errorf("%v, %v", m, err)
			}
			audit(t, bucket)
		})
	}
}

// After each table of several shards the caller gives up. The cuts take no
// notice, so the backup has to.
func TestCancelAfterEachTable(t *testing.T) {
	for after := range int64(tablesOfSome + 1) {
		bucket := objstore.NewMemory("backups")
		ctx, cancel := context.WithCancel(t.Context())
		var uploaded atomic.Int64
		cfg := config
		cfg.Uploaded = func(int64) {
			if uploaded.Add(1) == after {
				cancel()
			}
		}
		if after == 0 {
			cancel()
		}
		var heedless []snapshotter.Cut
		for _, c := range someCuts() {
			c := c.(*cut)
			heedless = append(heedless, &rawCut{cut: *c, write: func(create func(first []byte) (io.WriteCloser, error)) error {
				return c.WriteTables(context.Background(), 1, create)
			}})
		}
		m, err := snapshotter.Full(ctx, bucket, heedless, cfg)
		cancel()
		if m != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("after %d tables: %v, %v", after, m, err)
		}
		if ids := audit(t, bucket); len(ids) > 0 {
			t.Errorf("after %d tables: published", after)
		}
		if _, err := snapshotter.Full(t.Context(), bucket, someCuts(), config); err != nil {
			t.Errorf("after %d tables, trying again: %v", after, err)
		}
		if ids := audit(t, bucket, someCuts()); len(ids) != 1 {
			t.Errorf("after %d tables, trying again: %q", after, ids)
		}
	}
}
