package pace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
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
		for _, part := range Split(runs, most) {
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

// slowRule takes its time over each event.
type slowRule struct{ lww.Rule }

func (r slowRule) Fold(dst, prev []byte, e *events.Event, at events.Position) ([]byte, error) {
	time.Sleep(10 * time.Millisecond)
	return r.Rule.Fold(dst, prev, e, at)
}

// heldDisk takes no tables until a channel is closed.
type heldDisk struct {
	vfs.FS
	held <-chan struct{}
}

func (d heldDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, category)
	if err != nil || !strings.HasSuffix(name, ".sst") {
		return f, err
	}
	return heldFile{f, d.held}, nil
}

type heldFile struct {
	vfs.File
	held <-chan struct{}
}

func (f heldFile) Write(p []byte) (int, error) {
	<-f.held
	return f.File.Write(p)
}

// paced is a real shard whose worker is the test.
type paced struct {
	*testing.T
	*Meter
	shard *projections.Shard
	next  int64 // offset
}

var pacedLog = events.Log{Origin: events.FirstOrigin("us"), Stream: "session"}

func newPaced(t *testing.T, fs vfs.FS, rule merge.Rule) *paced {
	t.Helper()
	shard, err := projections.Open(projections.Config{
		Dir: "shard", FS: fs, Rules: map[events.Stream]merge.Rule{pacedLog.Stream: rule}, MemTableBytes: 256 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &paced{T: t, Meter: New(), shard: shard}
}

func (p *paced) close() {
	if err := p.shard.Close(); err != nil {
		p.Error(err)
	}
}

// polled has a poll take so long, and leave the shard so far behind.
func (p *paced) polled(took time.Duration, behind int64) {
	routes := map[string]config.Route{"session": {Origin: pacedLog.Origin, Stream: pacedLog.Stream}}
	p.Poll([]int32{0}, routes, func() kgo.Fetches {
		time.Sleep(took)
		p.OnBrokerRead(kgo.BrokerMetadata{}, kmsg.Fetch.Int16(), 0, 0, 0, nil)
		last := &kgo.Record{Offset: p.next - 1}
		return kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "session", Partitions: []kgo.FetchPartition{{
			HighWatermark: p.next + behind, Records: []*kgo.Record{last},
		}}}}}}
	})
}

// fold folds so many records of a size.
func (p *paced) fold(records, size int) error {
	for range records {
		r := &kgo.Record{Offset: p.next, Key: fmt.Append(nil, "k-", p.next), Value: make([]byte, size), Timestamp: time.Now()}
		if _, err := p.Apply(0, p.shard, []projections.Run{{Log: pacedLog, Records: []*kgo.Record{r}}}); err != nil {
			return err
		}
		p.next++
	}
	return nil
}

func (p *paced) is(word string) api.ShardLoad {
	p.Helper()
	load := p.Load(0, p.shard)
	if load.Pace != word {
		p.Errorf("it is %s, want %s: %+v", load.Pace, word, load)
	}
	return load
}

// A shard whose rule is slow is held up by folding until it has come to the end.
func TestPaceOfSlowFolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(t, vfs.NewMem(), slowRule{})
		defer p.close()
		p.polled(100*time.Millisecond, behindMost+100)
		if err := p.fold(100, 10); err != nil {
			t.Fatal(err)
		}
		p.polled(100*time.Millisecond, behindMost+1)
		if load := p.is(api.PaceFold); load.FoldSeconds < 1 || load.CommitSeconds > load.FoldSeconds || load.Behind != behindMost+1 {
			t.Errorf("%+v", load)
		}
		p.polled(100*time.Millisecond, 0)
		p.is(api.PaceKeepingUp)
	})
}

// A shard whose disk takes no more tables is held up by Pebble as soon as memory is full, and
// for a while after.
func TestPaceOfAStalledDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		p := newPaced(t, heldDisk{vfs.NewMem(), held}, lww.Rule{})
		defer p.close()
		folded := make(chan error, 1)
		go func() { folded <- p.fold(40, 100<<10) }()
		time.Sleep(time.Minute)
		if len(folded) > 0 {
			t.Error("all was folded, though no table is on disk")
		}
		p.is(api.PacePebble)
		close(held)
		if err := <-folded; err != nil {
			t.Fatal(err)
		}
		if load := p.is(api.PacePebble); load.StallSeconds < 59 || load.FoldSeconds > 1 {
			t.Errorf("%+v", load)
		}
		for range 2 { // until it is forgotten
			p.polled(2*window, 0)
		}
		p.is(api.PaceKeepingUp)
	})
}
