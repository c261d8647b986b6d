package projections_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/evenkeel/evenkeel/projections"
)

// manyKeys is a world in which a batch touches so many slices that several readers
// share them: small, empty, deleted, and a few so large that they do not fit into
// the memory that is taken at a time.
func manyKeys(times int) world {
	w := world{}
	for i := range 3000 * times {
		key, l := fmt.Sprintf("key-%d", i%3000), logsOf(0)[i%2]
		value := bytes.Repeat([]byte{byte(i)}, i%300)
		switch i % 1000 {
		case 7:
			value = nil
		case 8:
			value = bytes.Repeat([]byte("large"), 100_000)
		}
		w.write(l, bare(key, value, int64(i/100)))
	}
	return w
}

// Read by several readers, from tables and from memory, a batch makes of every slice
// what the model does, byte for byte; and so does what the batch was made of, one
// record at a time.
func TestLargeBatch(t *testing.T) {
	w := manyKeys(3)
	ends := w.ends()
	for _, pieces := range []int{1, 2, 7} {
		mem := vfs.NewMem()
		s := coldShard(t, mem, config(mem), manyKeys(1))
		for i := range pieces {
			var runs []projections.Run
			for l, end := range ends {
				runs = append(runs, w.from(l, s.Next(l), int(end)/pieces+i))
			}
			apply(t, s, runs...)
		}
		apply(t, s, w.everything()...)
		checkShard(t, s, w, ends)
		closeShard(t, s)
	}
}

// If one of the readers cannot read, nothing is applied.
func TestLargeBatchThatCannotBeRead(t *testing.T) {
	before, w := manyKeys(1), manyKeys(2)
	mem := vfs.NewMem()
	fs, toggle := faulty(mem, ofFile(".sst", errorfs.OpFileReadAt))
	s := coldShard(t, mem, config(fs), before)
	defer func() { closeShard(t, s) }()
	toggle.On()
	done, err := s.Apply(w.everything())
	if !errors.Is(err, errorfs.ErrInjected) || done != (projections.Applied{}) {
		t.Fatalf("applied %+v, %v", done, err)
	}
	toggle.Off()
	checkShard(t, s, before, before.ends())
	apply(t, s, w.everything()...)
	checkShard(t, s, w, w.ends())
}
