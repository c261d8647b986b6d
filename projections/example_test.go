package projections_test

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
)

// Two regions write the same key; the shard folds both logs, and a reader sees
// the newer value.
func Example() {
	shard, err := projections.Open(projections.Config{
		Dir:   "shard-0000",
		FS:    vfs.NewMem(), // leave out for the real disk
		Rules: map[events.Stream]merge.Rule{"session": lww.Rule{}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shard.Close()

	us := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session", Partition: 0}
	eu := events.Log{Origin: events.FirstOrigin("eu-central-1"), Stream: "session", Partition: 0}
	_, err = shard.Apply([]projections.Run{
		{Log: us, Records: []*kgo.Record{{Key: []byte("s-1"), Value: []byte("newer"), Timestamp: time.UnixMilli(2)}}},
		{Log: eu, Records: []*kgo.Record{{Key: []byte("s-1"), Value: []byte("older"), Timestamp: time.UnixMilli(1)}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	entry, err := projections.Get([]*projections.Shard{shard}, "session", "s-1")
	fmt.Printf("%s from %s, %v\n", entry.Value, entry.Position, err)
	// Output: newer from us-east-1/session/0@0, <nil>
}
