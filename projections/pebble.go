package projections

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// formatVersion is the version of the on-disk format that databases are made
// with. Raising it is one-way: an older binary cannot open them any more.
const formatVersion = pebble.FormatValueSeparation

// filterBitsPerKey: 10 bits keep false positives near 1 %, and most keys that
// an apply looks up are either in the memtable or nowhere.
const filterBitsPerKey = 10

// tableBlockBytes is the size of a block, before it is compressed, in tables for backups.
const tableBlockBytes = 32 << 10

// PebbleOptions are those under which Open opens the database, for measuring what
// Pebble does by itself.
func (c Config) PebbleOptions() *pebble.Options {
	c.setDefaults()
	opts := &pebble.Options{
		FS:                          c.FS,
		Cache:                       c.Cache,
		FormatMajorVersion:          formatVersion,
		Logger:                      pebbleLogger{c.Log},
		EventListener:               eventListener(c.Log),
		MemTableSize:                c.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       100,
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBitsPerKey)
	}
	return opts
}

// tableOptions are those of sorted tables written outside a database, for
// backups; a database of formatVersion can ingest them. zstd makes them smaller than
// Pebble's default does, and they are written once and kept for long; at its level 1 they
// take 2 % more than at 3, and an eighth less processor time to write, which is most of a
// backup's. Blocks of more than 4 KiB make them smaller as well: those of 32 KiB take a
// quarter less, and less time to open. Reads out of a restored database decompress more for
// it until its compactions have been there.
func tableOptions() sstable.WriterOptions {
	compression := *sstable.ZstdCompression
	compression.DataBlocks.Level, compression.ValueBlocks.Level = 1, 1
	return sstable.WriterOptions{
		TableFormat:  formatVersion.MaxTableFormat(),
		FilterPolicy: bloom.FilterPolicy(filterBitsPerKey),
		BlockSize:    tableBlockBytes,
		Compression:  &compression,
	}
}

// pebbleLogger passes what Pebble says to slog. Pebble's informational lines
// are for its developers, so they go to the debug level.
type pebbleLogger struct{ log *slog.Logger }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.log.Debug("pebble", "message", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("pebble", "message", fmt.Sprintf(format, args...))
}

// eventListener reports a corrupt file of the database, once: Pebble comes by it
// again and again. Its own way is Fatalf; but whoever reads the file gets the
// error as well, and a node goes on with what is whole.
func eventListener(log *slog.Logger) *pebble.EventListener {
	var reported sync.Map // paths
	return &pebble.EventListener{
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			if _, again := reported.LoadOrStore(i.Path, true); !again {
				log.Error("a file of the state is corrupt; restore this shard from a backup, or delete it and let it be rebuilt",
					"path", i.Path, "error", i.Details.Error())
			}
		},
		BackgroundError: func(err error) {
			if !pebble.IsCorruptionError(err) {
				log.Error("pebble's background work failed and is tried again", "error", err.Error())
			}
		},
	}
}

// closeIter closes an iterator. Its error counts only if there was none before:
// an iterator repeats then what it has said already.
func closeIter(it *pebble.Iterator, err *error) {
	if e := it.Close(); *err == nil {
		*err = e
	}
}

// Fatalf is called when Pebble can no longer write its log (disk full or
// broken). It must not return: what follows would be built on sand. The state
// on disk stays an exact cut and is continued on the next start.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	l.log.Error("pebble cannot go on; check the disk of the data directory, then start again", "message", message)
	panic("pebble cannot go on: " + message)
}
