package pipeline_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

// goldenDir has whole buckets as programs made them when their formats were the present ones.
const goldenDir = "testdata/buckets"

// golden is what the program that made a bucket said of it then.
type golden struct {
	MadeBy     string                   `json:"made_by"`
	Format     int                      `json:"format"` // of its backups
	Region     events.Region            `json:"region"`
	Partitions int32                    `json:"partitions"`
	Merge      map[events.Stream]string `json:"merge"`
	Backups    []goldenBackup           `json:"backups"`
	Drills     []string                 `json:"drills"`           // ids
	Proofs     []format.Proof           `json:"proofs,omitempty"` // of the keys
	Points     []goldenPoint            `json:"points"`
	Groups     []format.GroupOffset     `json:"groups,omitempty"` // with the newest backup

	dir string
}

type goldenBackup struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
}

// goldenPoint is what the region held at a point in time.
type goldenPoint struct {
	Target  string            `json:"target"` // "backup ID" or "newest"
	Digest  events.Digest     `json:"digest"`
	States  []events.LogState `json:"states"` // of logs with records
	Entries []goldenEntry     `json:"entries"`
}

type goldenEntry struct {
	Stream   events.Stream   `json:"stream"`
	Key      api.Bytes       `json:"key"`
	Value    api.Bytes       `json:"value"`
	Position events.Position `json:"position"`
	Siblings []api.Bytes     `json:"siblings,omitempty"` // all values, where there are several
}

func (p goldenPoint) backup() string {
	id, _ := strings.CutPrefix(p.Target, "backup ")
	return id
}

// goldens reads what there is of golden buckets.
func goldens(t *testing.T) (all []*golden) {
	t.Helper()
	dirs, err := os.ReadDir(goldenDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if !dir.IsDir() {
			continue
		}
		g := &golden{dir: filepath.Join(goldenDir, dir.Name())}
		text, err := os.ReadFile(filepath.Join(g.dir, "content.json"))
		if err == nil {
			err = json.Unmarshal(text, g)
		}
		if err != nil {
			t.Fatalf("%s: %v", g.dir, err)
		}
		all = append(all, g)
	}
	return all
}

// bucket is a copy of the golden one.
func (g *golden) bucket(t *testing.T) objstore.Bucket {
	t.Helper()
	bucket, root := objstore.NewMemory("golden"), filepath.Join(g.dir, "bucket")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		body, err := os.ReadFile(path)
		return errors.Join(err, bucket.Create(t.Context(), filepath.ToSlash(name), body))
	})
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

// openers are those of the keys that the bucket is sealed for, each by itself; nil: it is not sealed.
func (g *golden) openers(t *testing.T) map[string]*seal.Opener {
	t.Helper()
	if g.Format == 1 {
		return map[string]*seal.Opener{"none": nil}
	}
	openers := map[string]*seal.Opener{}
	for _, key := range []string{"operating", "recovery"} {
		opener, err := config.ReadIdentity(filepath.Join(g.dir, key+".test-key"))
		if err != nil {
			t.Fatal(err)
		}
		openers[key] = opener
	}
	return openers
}

func (g *golden) config() *config.Config {
	c := config.Default()
	c.Region, c.Partitions, c.DataDir = g.Region, g.Partitions, dataDir
	c.Streams = map[events.Stream]config.Stream{}
	for stream, rule := range g.Merge {
		c.Streams[stream] = config.Stream{Topic: string(stream), Merge: rule}
	}
	c.Limits.MinFreeBytes = 0
	c.Backup = sealedBackups()
	c.Regions = map[events.Region]config.Region{g.Region: {Incarnation: 1, Kafka: config.Kafka{Seeds: []string{"127.0.0.1:1"}}}}
	return &c
}

func (g *golden) open(bucket objstore.Bucket, opener *seal.Opener) pipeline.Backups {
	return pipeline.Backups{Config: g.config(), Bucket: bucket, Opener: opener, FS: vfs.NewMem(), Log: slog.New(slog.DiscardHandler)}
}

// Whatever an older program has put into a bucket, all of it, this one lists, verifies, reads and restores,
// with either key, and comes to what was there then.
func TestGoldenBuckets(t *testing.T) {
	t.Parallel()
	for _, g := range goldens(t) {
		for key, opener := range g.openers(t) {
			t.Run(filepath.Base(g.dir)+"/"+key, func(t *testing.T) {
				b := g.open(g.bucket(t), opener)
				g.isListed(t, b)
				g.isVerified(t, b)
				for _, p := range g.Points {
					g.isRead(t, b, p)
					g.isRestored(t, b, p)
				}
				g.hasGroups(t, b)
			})
		}
	}
}

func (g *golden) isListed(t *testing.T, b pipeline.Backups) {
	t.Helper()
	list, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var backups []goldenBackup
	for _, at := range list.Backups {
		backups = append(backups, goldenBackup{ID: at.ID, Kind: cmp.Or(at.Kind, format.Full)})
	}
	if !slices.Equal(backups, g.Backups) {
		t.Errorf("listed are %v, want %v", backups, g.Backups)
	}
	for _, id := range g.Drills {
		drills, err := b.Drills(t.Context(), api.ListDrillsParams{Drill: id})
		if err != nil || drills.Drills[0].Err() != nil || drills.Drills[0].Proved().IsZero() {
			t.Errorf("drill %s: %+v, %v", id, drills, err)
		}
	}
	s, err := b.StatusAlone(t.Context())
	if err != nil || s.Backups != len(g.Backups) || len(s.Damaged)+len(s.Ahead)+len(s.DrillsUnread) > 0 {
		t.Fatalf("status: %+v, %v", s, err)
	}
	var proofs []format.Proof
	for _, r := range s.Recipients {
		if r.Proved != nil {
			proofs = append(proofs, format.Proof{Key: r.Key, Drill: r.Drill, StateTime: *r.Proved})
		}
	}
	if !slices.Equal(proofs, g.Proofs) {
		t.Errorf("proved with each key: %+v, want %+v", proofs, g.Proofs)
	}
}

func (g *golden) isVerified(t *testing.T, b pipeline.Backups) {
	t.Helper()
	for _, level := range verify.Levels {
		report, err := b.Verify(t.Context(), api.VerifyBackupsParams{All: true, Level: level}, verify.Progress{})
		if err != nil || report.Err() != nil || len(report.Backups) != len(g.Backups) {
			t.Errorf("verified to %s: %+v, %v", level, report, err)
		}
	}
}

// isRead reads all keys of a point out of the bucket, each by itself.
func (g *golden) isRead(t *testing.T, b pipeline.Backups, p goldenPoint) {
	t.Helper()
	at := api.PastTarget{Backup: p.backup()}
	if p.Target == "newest" {
		at = api.PastTarget{Vector: events.Vector{}}
		for _, st := range p.States {
			at.Vector[st.Log] = st.Next
		}
	}
	for _, want := range p.Entries {
		e, err := b.GetAt(t.Context(), api.GetAtParams{Stream: want.Stream, Key: want.Key, PastTarget: at})
		if err != nil {
			t.Errorf("%s: get %s %s: %v", p.Target, want.Stream, want.Key, err)
		} else if got := toGolden(want.Stream, e.Entry); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read is %+v, want %+v", p.Target, got, want)
		}
	}
	_, err := b.GetAt(t.Context(), api.GetAtParams{Stream: "session", Key: api.Bytes("nobody"), PastTarget: at})
	wantKind(t, err, events.KindNotFound, "nobody")
}

// isRestored restores a point and compares all that there is.
func (g *golden) isRestored(t *testing.T, b pipeline.Backups, p goldenPoint) {
	t.Helper()
	job := pipeline.RestoreJob{Config: b.Config, Bucket: b.Bucket, Opener: b.Opener, FS: b.FS, Log: b.Log, Dir: "/restored/" + p.Target}
	if p.Target != "newest" {
		job.Request.Target.Backup = p.backup()
	}
	restored, err := pipeline.Restore(t.Context(), job)
	if err != nil {
		t.Errorf("%s: %v", p.Target, err)
		return
	}
	states := slices.DeleteFunc(restored.States, func(st events.LogState) bool { return st.Next == 0 })
	slices.SortFunc(states, func(a, b events.LogState) int { return a.Log.Compare(b.Log) })
	if !reflect.DeepEqual(states, p.States) || restored.Digest != p.Digest {
		t.Errorf("%s: restored is %s\n%+v\nwant %s\n%+v", p.Target, restored.Digest, states, p.Digest, p.States)
	}
	var shards []*projections.Shard
	for n := range g.Partitions {
		s, err := pipeline.OpenShard(job, n)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		shards = append(shards, s)
	}
	keys := map[string]int{}
	for stream := range g.Merge {
		for e, err := range projections.Scan(shards, stream, "", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys[fmt.Sprint(stream, "/", e.Key)]++
		}
	}
	for _, want := range p.Entries {
		keys[fmt.Sprintf("%s/%s", want.Stream, want.Key)]--
	}
	for key, n := range keys {
		if n != 0 {
			t.Errorf("%s: key %s is restored %+d times more than it was there", p.Target, key, n)
		}
	}
}

func (g *golden) hasGroups(t *testing.T, b pipeline.Backups) {
	t.Helper()
	m, err := catalog.Newest(t.Context(), b.Bucket, g.Region)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restore.Source{Bucket: b.Bucket, Opener: b.Opener}.Groups(m)
	if err != nil || !slices.Equal(groups, g.Groups) {
		t.Errorf("consumer groups: %+v, %v, want %+v", groups, err, g.Groups)
	}
}

func toGolden(stream events.Stream, e api.Entry) goldenEntry {
	g := goldenEntry{Stream: stream, Key: e.Key, Value: e.Value, Position: e.Position}
	for _, s := range e.Siblings {
		g.Siblings = append(g.Siblings, s.Value)
	}
	return g
}

// Of each version of everything in a bucket some golden bucket has one. Whoever raises a version adds a bucket
// of it: go test ./pipeline -run TestGoldenOfPresent -add-golden NAME
func TestGoldenOfEveryVersion(t *testing.T) {
	have := map[string]map[int]bool{"backups": {}, "segments": {}, "drills": {}}
	for _, g := range goldens(t) {
		bucket := g.bucket(t)
		all, err := catalog.All(t.Context(), bucket, g.Region)
		if err != nil {
			t.Fatalf("%s: %v", g.dir, err)
		}
		for _, m := range all {
			have["backups"][m.Format] = true
			if m.Format != g.Format {
				t.Errorf("%s: backup %s has format %d", g.dir, m.ID, m.Format)
			}
		}
		for shard := range g.Partitions {
			s, err := segment.Newest(t.Context(), bucket, g.Region, shard)
			if err != nil {
				t.Fatalf("%s: %v", g.dir, err)
			}
			if s != nil {
				have["segments"][s.Format] = true
			}
		}
		for _, id := range g.Drills {
			d, err := catalog.Drill(t.Context(), bucket, g.Region, id)
			if err != nil {
				t.Fatalf("%s: %v", g.dir, err)
			}
			have["drills"][d.Format] = true
		}
	}
	for what, newest := range map[string]int{"backups": format.Version, "segments": format.SegmentVersion, "drills": format.DrillVersion} {
		for version := 1; version <= newest; version++ {
			if !have[what][version] {
				t.Errorf("no golden bucket has %s of format %d; add one of the present formats with: go test ./pipeline -run TestGoldenOfPresent -add-golden NAME", what, version)
			}
		}
	}
}
