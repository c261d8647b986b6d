package snapshotter_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

// upon copies cuts as the parts of a delta and publishes it.
func upon(t *testing.T, bucket objstore.Bucket, parent *format.Manifest, cuts []snapshotter.Cut, cfg snapshotter.Config) (*format.Manifest, error) {
	t.Helper()
	time.Sleep(time.Millisecond) // ids know no finer time
	id, now := snapshotter.NewID()
	shards, err := snapshotter.Shards(t.Context(), bucket, id, cuts, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return snapshotter.PublishDelta(t.Context(), bucket, id, now, parent, shards, cfg)
}

// A delta's tables come after those of what it builds on, in layers.
func TestDelta(t *testing.T) { synctest.Test(t, testDelta) }

func testDelta(t *testing.T) {
	bucket := objstore.NewMemory("backups")
	m, err := snapshotter.Full(t.Context(), bucket, cutsOf([]string{"a", "b"}, nil), config)
	if err != nil {
		t.Fatal(err)
	}
	for _, cuts := range [][]snapshotter.Cut{cutsOf([]string{"c", "d", "e"}, nil), cutsOf([]string{"f", "g", "h", "i"}, []string{"j"})} {
		if m, err = upon(t, bucket, m, cuts, config); err != nil {
			t.Fatal(err)
		}
	}
	chain, err := catalog.LoadChain(t.Context(), bucket, m)
	if err != nil {
		t.Fatal(err)
	}
	tgt := newTarget()
	report, err := restore.Run(t.Context(), restore.Source{Bucket: bucket, Opener: recovery}, chain, tgt, nil)
	if err != nil || report.Tables != 10 || len(report.Path) != 3 || report.Bytes != 10 || !report.Pinned {
		t.Fatalf("%+v, %v", report, err)
	}
	for p, want := range []string{"ab cde fghi", "  j"} {
		var layers []string
		for _, numbers := range tgt.layers[int32(p)] {
			layer := ""
			for _, n := range numbers {
				layer += tgt.tables[int32(p)][n]
			}
			layers = append(layers, layer)
		}
		if got := strings.Join(layers, " "); got != want {
			t.Errorf("shard %d: layers %q, want %q", p, got, want)
		}
	}
}

// What is no continuation of its parent is not published.
func TestDeltaThatDoesNotFit(t *testing.T) { synctest.Test(t, testDeltaThatDoesNotFit) }

func testDeltaThatDoesNotFit(t *testing.T) {
	bucket := objstore.NewMemory("backups")
	full, err := snapshotter.Full(t.Context(), bucket, cutsOf([]string{"a", "b"}, nil), config)
	if err != nil {
		t.Fatal(err)
	}
	otherRules := config
	otherRules.Merge = map[events.Stream]string{"session": "multivalue"}
	for name, test := range map[string]struct {
		cuts []snapshotter.Cut
		cfg  snapshotter.Config
		says string
	}{
		"behind it":                        {cutsOf([]string{"a"}, nil), config, "stood at 2"},
		"another state at its vector":      {cutsOf([]string{"a", "bb"}, nil), config, "stood at 2"},
		"without one of its logs":          {cutsOf(nil, nil), config, "stands at 0"},
		"of fewer shards":                  {cutsOf([]string{"a", "b"}), config, "shards"},
		"of more shards":                   {cutsOf([]string{"a", "b"}, nil, nil), config, "shards"},
		"of streams merged by other rules": {cutsOf([]string{"a", "b", "c"}, nil), otherRules, "merge rules"},
	} {
		if m, err := upon(t, bucket, full, test.cuts, test.cfg); events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), test.says) || m != nil {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	late := *full
	late.ID = format.NewID(time.Now().Add(time.Hour), [4]byte{})
	if _, err := upon(t, bucket, &late, cutsOf([]string{"a", "b", "c"}, nil), config); events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "clock") {
		t.Errorf("before its parent: %v", err)
	}
	if n := len(names(t, bucket, format.ManifestPrefix(region))); n != 1 {
		t.Errorf("%d manifests", n)
	}
}

// Whichever object of a chain is damaged, missing, or another's: the restore is refused
// and names it.
func TestDamagedChainIsRefused(t *testing.T) { synctest.Test(t, testDamagedChain) }

func testDamagedChain(t *testing.T) {
	bucket := objstore.NewMemory("backups")
	m, err := snapshotter.Full(t.Context(), bucket, cutsOf([]string{"a table", "a second"}, []string{"a third"}), config)
	if err != nil {
		t.Fatal(err)
	}
	for _, cuts := range [][]snapshotter.Cut{
		cutsOf([]string{"a table", "a second", "and more"}, []string{"a third", "x"}), cutsOf([]string{"1", "2", "3", "4"}, []string{"a third", "y"}),
	} {
		if m, err = upon(t, bucket, m, cuts, config); err != nil {
			t.Fatal(err)
		}
	}
	restored := func() error {
		loaded, err := catalog.Load(t.Context(), bucket, region, m.ID)
		if err != nil {
			return err
		}
		chain, err := catalog.LoadChain(t.Context(), bucket, loaded)
		if err != nil {
			return err
		}
		_, err = restore.Run(t.Context(), restore.Source{Bucket: bucket, Opener: recovery}, chain, newTarget(), nil)
		return err
	}
	if err := restored(); err != nil {
		t.Fatal(err)
	}
	objects := append(names(t, bucket, format.ManifestPrefix(region)), names(t, bucket, format.TablePrefix(region))...)
	for i, name := range objects {
		other, err := objstore.ReadAll(t.Context(), bucket, objects[(i+1)%len(objects)], 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var whole []byte
		for how, harm := range map[string]func(b []byte) []byte{
			"flipped":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"truncated": func(b []byte) []byte { return b[:len(b)-1] },
			"emptied":   func([]byte) []byte { return nil },
			"another's": func([]byte) []byte { return other },
		} {
			if err := bucket.Damage(name, func(b []byte) []byte { whole = bytes.Clone(b); return harm(b) }); err != nil {
				t.Fatal(err)
			}
			if err := restored(); events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), name) {
				t.Errorf("%s is %s: %v", name, how, err)
			}
			if err := bucket.Damage(name, func([]byte) []byte { return whole }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := restored(); err != nil {
		t.Errorf("whole again: %v", err)
	}
	// From the last to the first, since names are not used again.
	for _, name := range slices.Backward(objects) {
		if name == format.ManifestName(region, m.ID) {
			continue // without it there is no such backup
		}
		if err := bucket.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if err := restored(); events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), "missing") {
			t.Errorf("%s is missing: %v", name, err)
		}
	}
}
