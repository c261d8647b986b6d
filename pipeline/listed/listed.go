// Package listed finds partitions in what clusters list of offsets.
package listed

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Lookup is what was listed of a partition, or what is wrong with its topic; not ok if the
// topic does not have the partition.
func Lookup(offsets kadm.ListedOffsets, topic string, partition int32) (o kadm.ListedOffset, ok bool) {
	if o, ok = offsets.Lookup(topic, partition); !ok {
		const noPartition = -1 // stands for the topic
		o, ok = offsets.Lookup(topic, noPartition)
	}
	return o, ok
}

// Offset is the offset that was listed of a partition.
func Offset(offsets kadm.ListedOffsets, topic string, partition int32) (int64, error) {
	o, ok := Lookup(offsets, topic, partition)
	switch {
	case !ok:
		return 0, fmt.Errorf("topic %s has no partition %d", topic, partition)
	case o.Err != nil:
		return 0, fmt.Errorf("topic %s, partition %d: %w", topic, partition, o.Err)
	case o.Offset < 0: // so says Kafka where there is none
		return 0, fmt.Errorf("topic %s, partition %d: no offset was told", topic, partition)
	}
	return o.Offset, nil
}
