package listed_test

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/evenkeel/evenkeel/pipeline/listed"
)

// What is wrong with a topic is told of each of its partitions, and is no offset 0.
func TestOffset(t *testing.T) {
	offsets := kadm.ListedOffsets{
		"there": {0: {Topic: "there", Offset: 7}, 1: {Topic: "there", Partition: 1, Offset: -1, Err: kerr.OffsetNotAvailable}, 3: {Topic: "there", Partition: 3, Offset: -1}},
		"gone":  {-1: {Topic: "gone", Partition: -1, Err: kerr.UnknownTopicOrPartition}},
	}
	if n, err := listed.Offset(offsets, "there", 0); n != 7 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, c := range []struct {
		topic     string
		partition int32
		want      error // nil: any
	}{{"there", 1, kerr.OffsetNotAvailable}, {"gone", 0, kerr.UnknownTopicOrPartition}, {"there", 2, nil}, {"there", 3, nil}, {"never", 0, nil}} {
		if n, err := listed.Offset(offsets, c.topic, c.partition); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s, partition %d: %d, %v", c.topic, c.partition, n, err)
		}
	}
}
