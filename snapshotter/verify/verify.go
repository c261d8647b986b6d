// Package verify checks that backups are what their manifests say, to one of four
// levels, each of which includes those before:
//
//	manifests  the manifest is whole, and every object is there in its size
//	hashes     every object has its SHA-256; no key is needed
//	decode     every table can be opened, has its SHA-256, and is a table
//	restore    the backup is restored somewhere and proved
//
// What is damaged is named, and the rest is looked at all the same. What could not be
// looked at (a bucket that is away, a key that is missing) is an error, never a result.
package verify

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

// Levels are the names of the levels, in order.
var Levels = []string{"manifests", "hashes", "decode", "restore"}

const (
	levelHashes  = 1
	levelDecode  = 2
	levelRestore = 3
)

// Checks are what the levels need that this package does not know.
type Checks struct {
	Decode  func(ctx context.Context, table []byte) error              // that it is a table; damage is events.KindInconsistent
	Restore func(ctx context.Context, manifest *format.Manifest) error // somewhere, and prove it

	// NewChain makes a function as segment.Config.Chain is. If there is one, all backups are
	// verified, then so is the archive.
	NewChain func() func(events.Digest, *kgo.Record) events.Digest
}

// Progress is told how far a verification is. Its functions may be nil; Looked may be
// called from several goroutines.
type Progress struct {
	Planned func(bytes int64) // once, how much there is to look at
	Looked  func(bytes int64) // of every table that has been looked at
}

// Report says what was found.
type Report struct {
	Region   events.Region `json:"region"`
	Level    string        `json:"level"`
	Backups  []Backup      `json:"backups"`
	Archive  []Archive     `json:"archive"` // by shard; empty if it was not looked at
	Duration float64       `json:"duration_seconds"`
}

// Backup says what was found of a backup.
type Backup struct {
	ID      string              `json:"backup"`
	Created time.Time           `json:"created,omitzero"`
	Objects int                 `json:"objects"` // with its manifest
	Bytes   int64               `json:"bytes"`   // of tables in the bucket
	Damaged []inventory.Problem `json:"damaged"`
}

// Damaged names all damaged objects.
func (r *Report) Damaged() (objects []string) {
	for _, b := range r.Backups {
		for _, d := range b.Damaged {
			objects = append(objects, d.Object)
		}
	}
	for _, a := range r.Archive {
		for _, d := range a.Damaged {
			objects = append(objects, d.Object)
		}
	}
	return objects
}

// Err is nil if nothing is damaged, else of kind events.KindInconsistent, and names
// the first objects that are.
func (r *Report) Err() error {
	damaged := r.Damaged()
	if len(damaged) == 0 {
		return nil
	}
	const shown = 10
	more := ""
	if n := len(damaged) - shown; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return events.Errorf(events.KindInconsistent, "%d damaged: %s%s", len(damaged), strings.Join(damaged[:min(shown, len(damaged))], ", "), more)
}

// Run verifies backups of a region: those with the given ids, or without any all that
// exist.
func Run(ctx context.Context, src restore.Source, r events.Region, ids []string, level string, checks Checks, progress Progress) (*Report, error) {
	depth := slices.Index(Levels, level)
	if depth < 0 {
		return nil, events.Errorf(events.KindInvalid, "level %q: want one of %s", level, strings.Join(Levels, ", "))
	}
	begun := time.Now()
	report := &Report{Region: r, Level: level, Backups: []Backup{}, Archive: []Archive{}}
	inv, err := inventory.Read(ctx, src.Bucket, r)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if !slices.ContainsFunc(inv.Backups, func(b inventory.Backup) bool { return b.ID == id }) {
			return nil, catalog.NotFound(r, id)
		}
	}
	wanted := slices.DeleteFunc(inv.Backups, func(b inventory.Backup) bool { return len(ids) > 0 && !slices.Contains(ids, b.ID) })
	if progress.Planned != nil && depth >= levelHashes {
		progress.Planned(storedBytes(wanted))
	}
	for _, b := range wanted {
		found, err := one(ctx, src, b, depth, checks, progress.Looked)
		if err != nil {
			return nil, err
		}
		report.Backups = append(report.Backups, *found)
	}
	if len(ids) == 0 && checks.NewChain != nil {
		if report.Archive, err = archives(ctx, src, r, depth, checks); err != nil {
			return nil, err
		}
	}
	report.Duration = time.Since(begun).Seconds()
	return report, nil
}

func storedBytes(backups []inventory.Backup) (n int64) {
	for _, b := range backups {
		if b.Manifest != nil {
			n += b.Manifest.StoredBytes()
		}
	}
	return n
}

const parallelTables = 2

// one verifies one backup. It is pinned meanwhile.
func one(ctx context.Context, src restore.Source, b inventory.Backup, depth int, checks Checks, looked func(int64)) (*Backup, error) {
	found := &Backup{ID: b.ID, Objects: 1, Damaged: append([]inventory.Problem{}, b.Problems...)}
	if b.Manifest == nil {
		return found, nil
	}
	found.Created, found.Bytes = b.Manifest.Created, b.Manifest.StoredBytes()
	tables := slices.Collect(b.Manifest.Tables())
	found.Objects += len(tables)
	if depth < levelHashes {
		return found, nil
	}
	_, err := src.Pinned(ctx, b.Manifest, func() error {
		if err := found.tables(ctx, src, tables, depth, checks, looked); err != nil || depth < levelRestore || len(found.Damaged) > 0 {
			return err
		}
		err := checks.Restore(ctx, b.Manifest)
		if events.KindOf(err) == events.KindInconsistent {
			found.Damaged = append(found.Damaged, inventory.Problem{Object: format.ManifestName(b.Manifest.Region, b.ID), Error: err.Error()})
			return nil
		}
		return err
	})
	return found, err
}

// tables looks at all tables that are there.
func (found *Backup) tables(ctx context.Context, src restore.Source, tables []format.Table, depth int, checks Checks, looked func(int64)) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelTables)
	missing := slices.Clone(found.Damaged)
	for _, t := range tables {
		if slices.ContainsFunc(missing, func(p inventory.Problem) bool { return p.Object == t.Name }) {
			continue
		}
		g.Go(func() error {
			err := table(ctx, src, t, depth, checks)
			size, _ := t.Stored()
			if looked != nil {
				looked(size)
			}
			if events.KindOf(err) != events.KindInconsistent {
				return named(t, err)
			}
			mu.Lock()
			defer mu.Unlock()
			found.Damaged = append(found.Damaged, inventory.Problem{Object: t.Name, Error: err.Error()})
			return nil
		})
	}
	err := g.Wait()
	slices.SortFunc(found.Damaged, func(a, b inventory.Problem) int { return strings.Compare(a.Object, b.Object) })
	return err
}

func named(t format.Table, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("object %s: %w", t.Name, err)
}

func table(ctx context.Context, src restore.Source, t format.Table, depth int, checks Checks) error {
	if depth < levelDecode {
		return src.Hash(ctx, t)
	}
	var contents *memory
	err := src.Fetch(ctx, t, func() (io.WriteCloser, error) {
		contents = &memory{}
		return contents, nil
	})
	if err != nil {
		return err
	}
	return checks.Decode(ctx, contents.Bytes())
}

// memory holds one table.
type memory struct{ bytes.Buffer }

func (*memory) Close() error { return nil }
