package events_test

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// Any Kafka record is an event: one without CloudEvents headers puts its value
// under its key, or deletes the key if the value is null.
func ExampleDecode() {
	record := &kgo.Record{Key: []byte("s-1"), Value: []byte("hello"), Timestamp: time.UnixMilli(1750774237000)}
	e, err := events.Decode(record)
	if err != nil {
		fmt.Println("not an event:", err)
		return
	}
	fmt.Printf("%s %s = %s at %s\n", e.Op, e.Key, e.Value, e.Clock)
	// Output: put s-1 = hello at 1750774237000.0
}
