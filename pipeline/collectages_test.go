package pipeline_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What lies behind a record that is dated in the future gets old nevertheless, once the node has noted it for long enough; that
// record itself does not.
func TestTombstonesBehindTheFuture(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Tombstones.Keep, r.cfg.Backup, r.bucket = 2*time.Minute, nil, nil
		r.start()
		var want []string
		for p := range int32(partitions) {
			key := fmt.Sprint("future-", p)
			r.produce(&kgo.Record{Topic: "session", Partition: p, Key: []byte(key), Timestamp: time.Now().Add(10 * 365 * 24 * time.Hour)})
			want = append(want, fmt.Sprintf("%s in us-east-1/session/%d", key, p))
		}
		r.put("k", "v")
		r.delete("k")
		time.Sleep(15 * time.Minute)
		r.collected(0) // nobody knows yet
		r.collected(1)
		time.Sleep(2 * time.Hour)
		if left := r.slicesLeft("session"); !reflect.DeepEqual(left, want) {
			t.Errorf("%q are left, want %q", left, want)
		}
	})
}
