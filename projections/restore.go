package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/block/blockkind"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
)

// ProofError says that restored state is not the state that was backed up.
type ProofError struct {
	Partition   int32
	Want, Found events.LogState // one is zero if the log is only on the other side
}

func (e *ProofError) Error() string {
	return fmt.Sprintf("shard %d: restored state differs from the backup: want %s, found %s", e.Partition, describe(e.Want), describe(e.Found))
}

func describe(s events.LogState) string {
	if s.Log == (events.Log{}) {
		return "nothing"
	}
	return fmt.Sprintf("%s at offset %d with chain %s and digest %s (%d keys, %d bytes, %d events, %d parked)",
		s.Log, s.Next, s.Chain, s.Digest, s.Keys, s.Bytes, s.Events, s.Parked)
}

// Restore makes a new database at cfg.Dir out of sorted tables written by
// Cut.WriteTables, and proves it: digests and counts are computed anew from the
// restored slices and must be those in want. The tables, given by their paths in
// cfg.FS on the same file system as cfg.Dir and synced to disk, are moved into
// the database. On error the directory is not to be used.
func Restore(ctx context.Context, cfg Config, tables []string, want []events.LogState) error {
	return RestoreLayers(ctx, cfg, [][]string{tables}, want)
}

// RestoreLayers is Restore for tables of which some lie above others: the first layer
// is what Cut.WriteTables wrote, each of the others what Cut.WriteDelta wrote since the
// vector of the one before.
func RestoreLayers(ctx context.Context, cfg Config, layers [][]string, want []events.LogState) (err error) {
	cfg.Models = nil // they are made of what is restored, when it is opened
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if len(s.logs) > 0 {
		return events.Errorf(events.KindRefused, "state directory %s is not empty; a restore needs an empty one", cfg.Dir)
	}
	for _, tables := range layers {
		if err := s.ingest(ctx, tables); err != nil {
			return fmt.Errorf("shard %d: %w", cfg.Partition, err)
		}
	}
	// Nobody proves what is derived, so nothing of it is taken over.
	if err := s.db.DeleteRange([]byte{prefixDerived}, []byte{prefixDerived + 1}, pebble.Sync); err != nil {
		return err
	}
	found, err := s.Verify()
	if err != nil {
		return events.Errorf(events.KindInconsistent, "shard %d: %w", cfg.Partition, err)
	}
	return CompareStates(cfg.Partition, want, found)
}

// ingest takes in the tables of a layer, above what is there.
func (s *Shard) ingest(ctx context.Context, tables []string) error {
	for _, table := range tables {
		if err := checkTable(ctx, s.cfg.FS, table, checkAround); err != nil { // the proof reads the rest
			return fmt.Errorf("table %s: %w", table, err)
		}
	}
	if len(tables) == 0 {
		return nil
	}
	if err := s.db.Ingest(ctx, tables); err != nil {
		return fmt.Errorf("tables cannot be taken in: %w", damage(err))
	}
	return nil
}

// CheckTable reads every block of a sorted table, as Cut.WriteTables writes them,
// against its checksum. Damage is of kind events.KindInconsistent.
func CheckTable(ctx context.Context, table []byte) error {
	const path = "table.sst"
	fs := vfs.NewMem()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Clone(table)) // a vfs.File may change what it writes
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return checkTable(ctx, fs, path, func(_ context.Context, r *sstable.Reader) error { return r.ValidateBlockChecksums() })
}

// checkTable opens a table and checks it.
func checkTable(ctx context.Context, fs vfs.FS, path string, check func(context.Context, *sstable.Reader) error) (err error) {
	defer func() { err = damage(err) }()
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(ctx, readable, sstable.ReaderOptions{})
	if err != nil {
		return err // and it has closed the file
	}
	return errors.Join(check(ctx, r), r.Close())
}

// damage gives what Pebble says of damaged tables its kind.
func damage(err error) error {
	if pebble.IsCorruptionError(err) {
		return events.Errorf(events.KindInconsistent, "%w", err)
	}
	return err
}

// checkAround reads the blocks of a table that hold no entries against their
// checksums: of filters, indexes and properties. They are few.
func checkAround(ctx context.Context, r *sstable.Reader) error {
	l, err := r.Layout() // which reads the indexes
	if err != nil {
		return err
	}
	blocks := []block.Handle{l.TopIndex, l.RangeDel, l.RangeKey, l.ValueIndex, l.Properties, l.MetaIndex, l.BlobReferenceIndex}
	for _, filter := range l.Filter {
		blocks = append(blocks, filter.Handle)
	}
	for _, b := range blocks {
		if b.Length == 0 {
			continue // there is none
		}
		h, err := r.BlockReader().Read(ctx, block.NoReadEnv, nil, b, blockkind.Metadata, func(*block.Metadata, []byte) error { return nil })
		if err != nil {
			return err
		}
		h.Release()
	}
	return nil
}

// CompareStates joins a ProofError for each log whose states differ.
func CompareStates(partition int32, want, found []events.LogState) error {
	byLog := map[events.Log]events.LogState{}
	for _, s := range found {
		byLog[s.Log] = s
	}
	var errs []error
	for _, w := range want {
		if f := byLog[w.Log]; f != w {
			errs = append(errs, &ProofError{Partition: partition, Want: w, Found: f})
		}
		delete(byLog, w.Log)
	}
	for _, f := range found {
		if _, extra := byLog[f.Log]; extra {
			errs = append(errs, &ProofError{Partition: partition, Found: f})
		}
	}
	if len(errs) > 0 {
		return events.Errorf(events.KindInconsistent, "%w", errors.Join(errs...))
	}
	return nil
}
