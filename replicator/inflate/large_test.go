package inflate

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// That a batch is too large is told as long as its partition is read, whatever the client has thrown away meanwhile
// of what it had fetched.
func TestTooLargeIsToldAgain(t *testing.T) {
	for how, during := range map[string]func(*rig, *kgo.Client){
		"nothing": func(*rig, *kgo.Client) {},
		"another is removed": func(_ *rig, c *kgo.Client) {
			c.RemoveConsumePartitions(map[string][]int32{"t": {1}})
		},
		"paused": func(_ *rig, c *kgo.Client) {
			c.PauseFetchPartitions(map[string][]int32{"t": {0}})
			c.PollRecords(nil, 100) //nolint:staticcheck // what there is
			c.ResumeFetchPartitions(map[string][]int32{"t": {0}})
		},
		"another moves": func(r *rig, c *kgo.Client) {
			if err := r.kafka.MoveTopicPartition("t", 1, 0); err != nil {
				r.Fatal(err)
			}
			c.ForceMetadataRefresh()
			time.Sleep(5 * time.Second)
		},
	} {
		simulate(t, 3, 2, func(r *rig) {
			for p := range int32(2) {
				if err := r.kafka.MoveTopicPartition("t", p, 1+p); err != nil {
					r.Fatal(err)
				}
			}
			r.put(0, make([]byte, 100), make([]byte, 900_000))
			c := r.reader(Opts(1<<20, 500_000)...)
			defer c.Close()
			for read := 0; read < 1; {
				read += len(c.PollRecords(r.Context(), 1).Records())
			}
			time.Sleep(2 * time.Second)
			during(r, c)
			ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
			defer cancel()
			for range 3 {
				var large *TooLargeError
				if err := c.PollRecords(ctx, 100).Err(); !errors.As(err, &large) || large.Most != 500_000 {
					r.Errorf("%s: %v", how, err)
				}
			}
		})
	}
}
