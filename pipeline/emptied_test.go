package pipeline_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// emptied is the log that these tests empty.
var emptied = events.Log{Origin: events.FirstOrigin(us), Stream: "session", Partition: 1}

func emptiedRecord(key, value string) *kgo.Record {
	return &kgo.Record{Topic: "session", Partition: emptied.Partition, Key: []byte(key), Value: []byte(value)}
}

// empty stops the node, and has retention take all that its log has.
func (r *region) empty() {
	r.w.Helper()
	r.stop()
	gone := kadm.Offsets{}
	gone.AddOffset("session", emptied.Partition, r.end("session", emptied.Partition), -1)
	r.deleteRecords(gone)
}

// goesOn makes sure that a node reads what comes behind.
func (r *region) goesOn(key string) {
	r.w.Helper()
	r.behind("0")
	r.produce(emptiedRecord(key, "later"))
	r.has(key, "later")
	r.behind("0")
	if s := r.status(); len(s.Problems) > 0 || *s.Parked > 0 {
		r.w.Errorf("problems %q, %d parked", s.Problems, *s.Parked)
	}
}

// A log that ends with what is nothing to fold, and of which retention has left nothing: the shard lacks nothing, be it
// opened again once or more often before anything follows, and be its state a backup's.
func TestEmptiedBehindTransactions(t *testing.T) {
	for name, c := range map[string]struct {
		ends []kgo.TransactionEndTry
		over func(r *region) // at each start
	}{
		"committed":                   {[]kgo.TransactionEndTry{kgo.TryCommit}, func(*region) {}},
		"aborted":                     {[]kgo.TransactionEndTry{kgo.TryAbort}, func(*region) {}},
		"aborted behind":              {[]kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort}, func(*region) {}},
		"committed, a disk is lost":   {[]kgo.TransactionEndTry{kgo.TryCommit}, func(r *region) { r.disk = vfs.NewCrashableMem() }},
		"aborted behind, a lost disk": {[]kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort}, func(r *region) { r.disk = vfs.NewCrashableMem() }},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.start()
				for _, end := range c.ends {
					r.transact(end, emptiedRecord("k", "v"))
				}
				r.behind("0")
				if c.ends[0] == kgo.TryCommit {
					r.has("k", "v")
				}
				r.backup()
				r.empty()
				for range 3 {
					c.over(r)
					r.start()
					r.behind("0")
					r.stop()
				}
				r.start()
				if c.ends[0] == kgo.TryCommit {
					r.has("k", "v")
				}
				r.goesOn("first")
				r.transact(kgo.TryCommit, emptiedRecord("k", "w"))
				r.has("k", "w")
				r.behind("0")
				r.backup()
				r.empty()
				c.over(r)
				r.start()
				r.has("k", "w")
				r.goesOn("second")
			})
		})
	}
}

// The archive goes on as well.
func TestEmptiedBehindTransactionsArchived(t *testing.T) {
	one(t, func(r *region) {
		archives(r)
		r.start()
		r.transact(kgo.TryCommit, emptiedRecord("k", "v"))
		r.has("k", "v")
		r.behind("0")
		r.archived(emptied, 1)
		r.empty()
		r.start()
		r.goesOn("first")
		r.archived(emptied, 3)
		r.empty()
		r.disk = vfs.NewCrashableMem() // and there is no backup
		r.start()
		r.has("k", "v")
		r.has("first", "later")
		r.goesOn("second")
	})
}

// That a log was read says nothing of a state that is less far than the one that was there then: what retention has taken of it
// is missing.
func TestEmptiedBehindAnOlderState(t *testing.T) {
	for name, committed := range map[string]func(r *region){
		"as it was read": func(*region) {},
		"by a tool": func(r *region) {
			r.commit(r.cfg.Group, map[string]map[int32]int64{"session": {emptied.Partition: r.end("session", emptied.Partition)}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.cfg.Backup, r.bucket = nil, nil
				r.start()
				r.produce(emptiedRecord("k", "v"))
				r.has("k", "v")
				r.stop()
				older := r.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
				r.start()
				r.transact(kgo.TryCommit, emptiedRecord("k", "w"))
				r.has("k", "w")
				r.behind("0")
				r.empty()
				committed(r)
				r.disk = older
				if err := r.tryStart(); err != nil {
					t.Fatal(err)
				}
				r.troubled(emptied.String(), "does not have offset 1 any more", "restore this region")
			})
		})
	}
}

// What was read says nothing of what was written behind it, and a tool's offset there says nothing either.
func TestEmptiedOfWhatNobodyHasRead(t *testing.T) {
	for name, isSet := range map[string]bool{"as it was read": false, "by a tool": true} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.cfg.Backup, r.bucket = nil, nil
				r.start()
				r.transact(kgo.TryCommit, emptiedRecord("k", "v"))
				r.has("k", "v")
				r.behind("0")
				r.stop()
				r.produce(emptiedRecord("k", "unread"))
				r.empty()
				if isSet {
					r.commit(r.cfg.Group, map[string]map[int32]int64{"session": {emptied.Partition: r.end("session", emptied.Partition)}})
				}
				if err := r.tryStart(); err != nil {
					t.Fatal(err)
				}
				r.troubled(emptied.String(), "does not have offset 1 any more", "restore this region")
			})
		})
	}
}
