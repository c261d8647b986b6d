package pipeline

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
)

func TestPaceWord(t *testing.T) {
	const far = behindMost + 1
	second := func(wait, fold, commit, stall int) effort {
		return effort{
			waiting: time.Duration(wait) * time.Second, folding: time.Duration(fold) * time.Second,
			committing: time.Duration(commit) * time.Second, stalled: time.Duration(stall) * time.Second,
		}
	}
	for name, c := range map[string]struct {
		p    pressure
		want string
	}{
		"idle":                            {pressure{recent: second(10, 0, 0, 0)}, api.PaceKeepingUp},
		"nothing measured":                {pressure{}, api.PaceKeepingUp},
		"a little behind":                 {pressure{behind: behindMost, recent: second(0, 9, 1, 0)}, api.PaceKeepingUp},
		"busy, at the end":                {pressure{recent: second(1, 8, 1, 0)}, api.PaceKeepingUp},
		"far behind, waiting for records": {pressure{behind: far, recent: second(8, 1, 1, 0)}, api.PaceNetwork},
		"no answer from Kafka":            {pressure{isCut: true, recent: second(20, 0, 0, 0)}, api.PaceNetwork},
		"no answer yet":                   {pressure{isCut: true}, api.PaceNetwork},
		"no fetch, for it is folding":     {pressure{isCut: true, behind: far, recent: second(0, 20, 1, 0)}, api.PaceFold},
		"far behind, folding":             {pressure{behind: far, recent: second(1, 8, 1, 0)}, api.PaceFold},
		"as much waiting as folding":      {pressure{behind: far, recent: second(5, 4, 1, 0)}, api.PaceFold},
		"far behind, committing":          {pressure{behind: far, recent: second(1, 3, 6, 0)}, api.PacePebble},
		"stalled now":                     {pressure{isStalled: true, recent: second(9, 1, 0, 0)}, api.PacePebble},
		"stalled a third of the time":     {pressure{recent: second(3, 3, 0, 3)}, api.PacePebble},
		"stalled for a moment":            {pressure{recent: second(5, 5, 0, 1)}, api.PaceKeepingUp},
		"many sublevels":                  {pressure{sublevels: sublevelsMost + 1}, api.PacePebble},
		"some sublevels":                  {pressure{sublevels: sublevelsMost}, api.PaceKeepingUp},
		"a full disk":                     {pressure{diskFull: true, isCut: true, isStalled: true, behind: far}, api.PaceDiskFull},
		"a bucket that is away":           {pressure{isApart: true, isStalled: true, isCut: true, behind: far}, api.PaceBucket},
		"a full disk and the bucket":      {pressure{diskFull: true, isApart: true}, api.PaceDiskFull},
		"a blocked log":                   {pressure{isBlocked: true, diskFull: true, isStalled: true, isCut: true, behind: far}, api.PaceBlocked},
	} {
		if got := c.p.word(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Runs that are split are the same records in the same order, in parts that are
// small unless a record is not.
func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 100
		var runs []projections.Run
		for i := range rapid.IntRange(0, 4).Draw(t, "runs") {
			run := projections.Run{Log: events.Log{Origin: events.FirstOrigin("us"), Stream: "s", Partition: int32(i)}, Sparse: i%2 == 0}
			for j := range rapid.IntRange(1, 8).Draw(t, "records") {
				run.Records = append(run.Records, &kgo.Record{Offset: int64(j), Key: make([]byte, 1), Value: make([]byte, rapid.IntRange(0, 150).Draw(t, "bytes"))})
			}
			runs = append(runs, run)
		}
		whole := map[events.Log][]*kgo.Record{}
		for _, part := range split(runs, most) {
			size, count := 0, 0
			for _, run := range part {
				if len(run.Records) == 0 || run.Sparse != (run.Log.Partition%2 == 0) {
					t.Fatalf("a run of %d records, sparse: %t", len(run.Records), run.Sparse)
				}
				whole[run.Log] = append(whole[run.Log], run.Records...)
				for _, r := range run.Records {
					size, count = size+len(r.Key)+len(r.Value), count+1
				}
			}
			if size > most && count > 1 {
				t.Fatalf("%d records of %d bytes in one part", count, size)
			}
		}
		for _, run := range runs {
			if !slices.Equal(whole[run.Log], run.Records) {
				t.Fatalf("%s: %d records, want %d", run.Log, len(whole[run.Log]), len(run.Records))
			}
		}
	})
}
