package derived_test

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
)

// An index of orders by the country in front of their value, and a count of events
// by key.
func Example() {
	byCountry := derived.Model{
		Name: "orders-by-country", Version: 1, Streams: []events.Stream{"order"},
		Rows: func(v derived.View, emit func(key string, value []byte)) error {
			if len(v.Value) >= 2 {
				emit(string(v.Value[:2]), v.Value[2:])
			}
			return nil
		},
	}
	writes := derived.Model{
		Name: "writes", Version: 1,
		Fold: func(e derived.Event, entries *derived.Entries) error {
			entries.Add(e.Key, 1)
			return nil
		},
	}
	shard, err := projections.Open(projections.Config{
		Dir: "shard-0000", FS: vfs.NewMem(),
		Rules:  map[events.Stream]merge.Rule{"order": lww.Rule{}},
		Models: []derived.Model{byCountry, writes},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shard.Close()
	log := events.Log{Origin: events.FirstOrigin("eu-central-1"), Stream: "order"}
	var records []*kgo.Record
	for i, order := range []struct{ key, value string }{{"o-1", "de shoes"}, {"o-2", "fr hats"}, {"o-3", "de hats"}, {"o-1", "fr shoes"}} {
		records = append(records, &kgo.Record{Key: []byte(order.key), Value: []byte(order.value), Offset: int64(i)})
	}
	if _, err := shard.Apply([]projections.Run{{Log: log, Records: records}}); err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"orders-by-country", "writes"} {
		for row, err := range projections.QueryModel([]*projections.Shard{shard}, name, "", nil) {
			fmt.Println(row.Key, row.Of, string(row.Value), err)
		}
	}
	// Output:
	// de o-3  hats <nil>
	// fr o-1  shoes <nil>
	// fr o-2  hats <nil>
	// o-1  2 <nil>
	// o-2  1 <nil>
	// o-3  1 <nil>
}
