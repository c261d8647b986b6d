package pipeline_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

var addGolden = flag.String("add-golden", "", "keep the bucket that TestGoldenOfPresent makes as a golden one, under this name; one that exists stays as it is")

// The bucket that a region makes now is read as the golden ones are. With -add-golden it becomes one.
func TestGoldenOfPresent(t *testing.T) {
	g := &golden{dir: filepath.Join(t.TempDir(), "golden")}
	if *addGolden != "" {
		g.dir = filepath.Join(goldenDir, *addGolden)
		if _, err := os.Stat(g.dir); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is there, and is never changed: programs have made such buckets; choose another name (%v)", g.dir, err)
		}
	}
	two(t, func(a, b *region) {
		for _, r := range a.w.regions {
			r.cfg.Streams = map[events.Stream]config.Stream{
				"session": {Topic: "session", Merge: "lww"}, "config": {Topic: "config", Merge: "multivalue"}, "profile": {Topic: "profile", Merge: "fieldmap"},
			}
		}
		g.make(a, b)
		g.write(a)
	})
	for key, opener := range g.openers(t) {
		t.Run(key, func(t *testing.T) {
			own := g.open(g.bucket(t), opener)
			g.isListed(t, own)
			for _, p := range g.Points {
				g.isRead(t, own, p)
				g.isRestored(t, own, p)
			}
			g.hasGroups(t, own)
		})
	}
}

// make lets two regions live for some days, of which the bucket of the first is kept: a plan that has
// deleted, a full backup, a delta, a drill, and what only the archive has.
func (g *golden) make(a, b *region) {
	w := a.w
	g.MadeBy, g.Format, g.Region, g.Partitions, g.Merge = "TestGoldenOfPresent", format.Version, us, partitions, map[events.Stream]string{}
	for stream, s := range a.cfg.Streams {
		g.Merge[stream] = s.Merge
	}
	withDeltas(a)
	a.cfg.Backup.Keep.Full, a.cfg.Backup.Keep.Delta, a.cfg.Backup.Groups = 24*time.Hour, 24*time.Hour, []string{"*"}
	a.start()
	b.start()
	a.written("alice", "first")
	a.backup()
	b.stop()
	a.away(72 * time.Hour)
	b.start()

	for i := range 12 {
		[]*region{a, b}[i%2].put(fmt.Sprintf("user-%02d", i), fmt.Sprintf("session %d, %s", i, bytes.Repeat([]byte("x"), 50*i)))
	}
	put := func(r *region, typ string, stream events.Stream, key, value string) {
		w.Helper()
		p := api.PutParams{Stream: stream, Key: []byte(key), Type: typ, Context: &events.Vector{}}
		if value != "" {
			p.Value = []byte(value)
		}
		if _, err := r.Put(w.Context(), p); err != nil {
			w.Fatal(err)
		}
	}
	put(a, "", "config", "limits", "10")
	put(b, "", "config", "limits", "20") // neither knew of the other
	put(a, events.TypePatch, "profile", "alice", `{"set":{"mail":"a@example.org"},"increment":{"visits":2}}`)
	put(b, events.TypePatch, "profile", "alice", `{"set":{"name":"Alice"},"increment":{"visits":3}}`)
	a.delete("user-02")
	a.commit("billing", map[string]map[int32]int64{"session": {0: 2, 1: 1}})
	equal(a, b, 18)
	full := a.backup()
	g.point(a, "backup "+full.ID)

	a.put("alice", "second")
	put(b, "", "session", "user-04", "")
	put(a, "", "config", "rates", "3")
	equal(a, b, 21)
	written := time.Now()
	a.await("backed up by a delta", func() error {
		if m := a.newest(); m.Kind != format.Delta || !m.Created.After(written) {
			return fmt.Errorf("the newest is %s %s", m.Kind, m.ID)
		}
		return nil
	})
	g.point(a, "backup "+a.newest().ID)
	for _, d := range []*format.Drill{a.drill(), a.drillWith(keys[1].identity)} {
		if err := d.Err(); err != nil {
			w.Fatal(err)
		}
		g.Drills, g.Proofs = append(g.Drills, d.ID), d.Proofs
	}
	if pruned, err := a.PruneBackups(w.Context(), api.PruneBackupsParams{Run: true}); err != nil || len(pruned.Deleted) == 0 || pruned.Plan == 0 {
		w.Fatalf("%+v, %v", pruned, err)
	}

	a.put("carol", "archived only")
	put(b, "", "session", "alice", "third")
	equal(a, b, 23)
	for _, st := range a.status().Logs {
		if !slices.Contains(g.Points[len(g.Points)-1].States, st) && st.Next > 0 { // what came before may be in no segment
			a.archived(st.Log, st.Next)
		}
	}
	g.point(a, "newest")
	a.stop() // or deltas go on
}

// equal waits until two regions have folded so many events, all that there are, and stand at the same vector.
func equal(a, b *region, events int64) {
	a.w.Helper()
	a.await("as the other region", func() error {
		x, y := a.status(), b.status()
		if api.Known(x.Events) != events || !reflect.DeepEqual(x.Logs, y.Logs) {
			return fmt.Errorf("%d events of %d: %+v and %+v", api.Known(x.Events), events, x.Logs, y.Logs)
		}
		return nil
	})
}

// point notes what a region holds.
func (g *golden) point(r *region, target string) {
	r.w.Helper()
	s := r.status()
	p := goldenPoint{Target: target, Digest: *s.Digest}
	for _, st := range s.Logs {
		if st.Next > 0 {
			p.States = append(p.States, st)
		}
	}
	for stream := range g.Merge {
		page, err := r.Scan(r.w.Context(), api.ScanParams{Stream: stream})
		if err != nil || page.More {
			r.w.Fatalf("%+v, %v", page, err)
		}
		for _, e := range page.Entries {
			p.Entries = append(p.Entries, toGolden(stream, e))
		}
	}
	slices.SortFunc(p.Entries, func(a, b goldenEntry) int {
		return bytes.Compare(append([]byte(a.Stream+"/"), a.Key...), append([]byte(b.Stream+"/"), b.Key...))
	})
	g.Points = append(g.Points, p)
}

// write keeps the region's bucket, the keys to it, and what is known of it.
func (g *golden) write(r *region) {
	r.w.Helper()
	ctx := r.w.Context()
	own := g.open(r.bucket, nil)
	list, err := own.List(ctx)
	if err != nil {
		r.w.Fatal(err)
	}
	for _, b := range list.Backups {
		g.Backups = append(g.Backups, goldenBackup{ID: b.ID, Kind: b.Kind})
	}
	opener, err := seal.NewOpener("test", keys[0].identity)
	if err != nil {
		r.w.Fatal(err)
	}
	m, err := own.Show(ctx, api.ShowBackupParams{})
	if err != nil {
		r.w.Fatal(err)
	}
	if g.Groups, err = (restore.Source{Bucket: r.bucket, Opener: opener}).Groups(m.Manifest); err != nil || len(g.Groups) == 0 {
		r.w.Fatalf("groups: %+v, %v", g.Groups, err)
	}
	text, err := json.MarshalIndent(g, "", " ")
	if err != nil {
		r.w.Fatal(err)
	}
	files := map[string][]byte{
		"content.json": append(text, '\n'), "operating.test-key": []byte(keys[0].identity), "recovery.test-key": []byte(keys[1].identity),
	}
	for info, err := range r.bucket.List(ctx, "") {
		if err != nil {
			r.w.Fatal(err)
		}
		if files["bucket/"+info.Name], err = objstore.ReadAll(ctx, r.bucket, info.Name, info.Size); err != nil {
			r.w.Fatal(err)
		}
	}
	for name, body := range files {
		path := filepath.Join(g.dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, body, 0o644)); err != nil {
			r.w.Fatal(err)
		}
	}
}
