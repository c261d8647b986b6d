package restore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

// gated is a bucket whose tables come one after the other, as they are let through.
type gated struct {
	objstore.Bucket
	asked chan string   // names, in the order in which they are asked for
	let   chan struct{} // one for each that comes
}

func (g *gated) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	if strings.HasSuffix(name, ".sst") {
		g.asked <- name
		select {
		case <-g.let:
		case <-ctx.Done():
			return nil, objstore.Info{}, ctx.Err()
		}
	}
	return g.Bucket.Get(ctx, name)
}

// Of those that wait the tables of the first shards are fetched first, so that these are proved while the others come.
func TestTheFirstShardsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 9
		contents := make([][]string, 3)
		for shard := range contents {
			for n := range each {
				contents[shard] = append(contents[shard], fmt.Sprint("shard ", shard, ", table ", n))
			}
		}
		bucket, m := backup(t, contents...)
		shardOf := map[string]int{}
		for shard := range m.Shards {
			for _, table := range m.Shards[shard].Tables {
				shardOf[table.Name] = shard
			}
		}
		g := &gated{bucket, make(chan string, 3*each), make(chan struct{})}
		tgt, ended := &target{}, make(chan error, 1)
		go func() {
			_, err := restore.Run(t.Context(), source(g), catalog.Chain{m}, tgt, nil)
			ended <- err
		}()
		synctest.Wait()
		left := []int{each, each, each}
		most := max(4, 2*runtime.GOMAXPROCS(0)) // tables at a time; the first ones may be of any shard
		if under := len(g.asked); under != min(most, 3*each) {
			t.Fatalf("%d tables are under way, want %d", under, most)
		}
		for len(g.asked) > 0 {
			left[shardOf[<-g.asked]]--
		}
		for let := range 3 * each {
			g.let <- struct{}{}
			synctest.Wait()
			if let+most >= 3*each {
				continue // nothing waits any more
			}
			got, want := shardOf[<-g.asked], 0
			for left[want] == 0 {
				want++
			}
			if left[got]--; got != want {
				t.Errorf("a table of shard %d is fetched, and %d of shard %d wait", got, left[want], want)
			}
		}
		if err := <-ended; err != nil || len(tgt.finished) != 3 {
			t.Errorf("%v, finished %v", err, tgt.finished)
		}
	})
}

// A restore that is given up leaves nobody in the line.
func TestGivenUpInTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		contents := make([][]string, 3)
		for shard := range contents {
			for n := range 9 {
				contents[shard] = append(contents[shard], fmt.Sprint("shard ", shard, ", table ", n))
			}
		}
		bucket, m := backup(t, contents...)
		src := source(&gated{bucket, make(chan string, 27), make(chan struct{})})
		src.Line = restore.NewLine()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := restore.Run(ctx, src, catalog.Chain{m}, &target{}, nil)
			ended <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		src.Bucket = bucket
		if _, err := restore.Run(t.Context(), src, catalog.Chain{m}, &target{}, nil); err != nil {
			t.Error(err)
		}
	})
}
