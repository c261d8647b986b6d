package pipeline_test

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/refill"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/divergence"
	"github.com/evenkeel/evenkeel/replicator/mapping"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// lived has three regions write for a while, and waits until a has archived all of it.
func lived(a, b, c *region) {
	all := []*region{a, b, c}
	for i := range 60 {
		r := all[i%3]
		if _, err := r.Put(r.w.Context(), api.PutParams{Stream: "session", Key: fmt.Append(nil, "key-", i%17), Value: fmt.Append(nil, "value-", i)}); err != nil {
			r.w.Fatal(err)
		}
		if i%20 == 19 {
			time.Sleep(6 * time.Second)
		}
	}
	settle(all)
	for _, r := range all {
		for p := range int32(partitions) {
			if n := len(r.committed("session", p)); n > 0 {
				l := events.Log{Origin: events.FirstOrigin(r.cfg.Region), Stream: "session", Partition: p}
				a.archived(l, r.committed("session", p)[n-1].Offset+1)
			}
		}
	}
}

// mirrors compares a region's mirrors of another's logs with these: every record once, in
// order, from the one with which the mirror begins on.
func (r *region) mirrors(of *region, begins map[int32]int64) {
	r.w.Helper()
	for p := range int32(partitions) {
		r.await(fmt.Sprintf("a mirror of %s, partition %d", of.cfg.Region, p), func() error {
			var want, got []string
			for _, record := range of.committed("session", p) {
				if record.Offset >= begins[p] {
					want = append(want, string(record.Key)+"="+string(record.Value))
				}
			}
			for _, record := range r.committed(of.cfg.Region.String()+".session", p) {
				got = append(got, string(record.Key)+"="+string(record.Value))
			}
			if !reflect.DeepEqual(got, want) {
				return fmt.Errorf("it has %q, the log %q", got, want)
			}
			return nil
		})
	}
}

// A region loses everything while an origin is away. From its bucket its mirrors come back
// too; when the origin is there again its link goes on behind them, without loss and
// doubling. Those of the other regions go on once they are told that its log is the one that
// they know.
func TestRefillMirrors(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		archives(a)
		for _, r := range w.regions {
			r.start()
		}
		lived(a, b, c)
		before := a.status()
		b.stop()
		b.down()
		a.lose()

		job := a.refillJob()
		job.Mirrors, job.Without = true, []events.Region{west}
		done, err := refill.Run(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		origins := map[events.Region]bool{}
		for _, l := range done.Logs {
			if origins[l.Log.Origin.Region] = true; !l.Same {
				t.Errorf("%+v", l)
			}
		}
		if len(origins) != 3 {
			t.Errorf("of %v", origins)
		}
		if _, err := refill.Run(w.Context(), a.refillJob()); err == nil {
			t.Error("filled again")
		}
		if _, err := pipeline.Restore(w.Context(), a.job()); err != nil {
			t.Fatal(err)
		}
		a.start()
		a.put("meanwhile", "a")
		for i, st := range before.Logs {
			if got := a.status().Logs[i]; got.Log != st.Log || got.Next < st.Next {
				t.Errorf("%+v, before the loss %+v", got, st)
			}
		}
		b.up()
		b.start()
		for _, r := range []*region{b, c} {
			for topic, from := range map[string]string{"session": "next", divergence.Topic: "earliest"} {
				r.await("another log at the source", func() error {
					p := api.ResumeLinkParams{Origin: us.String(), Topic: topic, Partition: replicator.All, From: from}
					_, err := r.ResumeLink(w.Context(), p)
					return err
				})
			}
		}
		for i := range 9 {
			b.put(fmt.Sprint("after-", i), "b")
			c.put(fmt.Sprint("after-", i), "c")
		}
		a.mirrors(b, nil)
		a.mirrors(c, nil)
		b.mirrors(a, nil)
		settle(w.regions)
		for _, r := range w.regions {
			r.consistent()
		}
		// A link topic that was not lost knows better.
		opts := append([]kgo.Opt{kgo.SeedBrokers(a.address())}, a.opts...)
		known := map[string]map[int32]*mapping.Map{"session": {0: {}}}
		err = replicator.NoteRebuilt(w.Context(), opts, events.FirstOrigin(west), us, known)
		wantKind(t, err, events.KindRefused, "links resume us-west-1 --topic session")
	}, us, west, eu)
}

// Mirrors alone come back with other offsets than their logs, which the link goes on behind.
func TestRefillMirrorsMapped(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		archives(a)
		b.start() // and writes before a archives anything
		for i := range 30 {
			b.put(fmt.Sprint("early-", i), "b")
		}
		b.eventsFolded(30)
		b.deleteBefore("session", 3)
		begins, expired := map[*region]map[int32]int64{b: {}, c: {}}, int64(0)
		for p := range int32(partitions) {
			begins[b][p] = b.start0(p)
			expired += begins[b][p]
		}
		if expired == 0 {
			t.Fatal("nothing has expired")
		}
		a.start()
		c.start()
		lived(a, b, c)
		a.backup()
		before := a.status()
		b.stop()
		b.down()
		a.lose()
		job := a.refillJob()
		job.Mirrors, job.Without = true, []events.Region{west}
		done, err := refill.Run(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range done.Logs {
			if mapped := begins[b][l.Log.Partition] > 0 && l.Log.Origin.Region == west; l.Records > 0 && l.Same == mapped {
				t.Errorf("%+v", l)
			}
		}
		if _, err := pipeline.Restore(w.Context(), a.job()); err != nil {
			t.Fatal(err)
		}
		a.start()
		for i, st := range before.Logs {
			if got := a.status().Logs[i]; got.Log != st.Log || got.Next < st.Next {
				t.Errorf("%+v, before the loss %+v", got, st)
			}
		}
		b.up()
		b.start()
		for i := range 9 {
			b.put(fmt.Sprint("after-", i), "b")
		}
		a.mirrors(b, begins[b])
		settle(w.regions)
	}, us, west, eu)
}

// start0 is where a partition of session begins.
func (r *region) start0(p int32) int64 {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	listed, err := kadm.NewClient(client).ListStartOffsets(r.w.Context(), "session")
	if err != nil {
		r.w.Fatal(err)
	}
	o, _ := listed.Lookup("session", p)
	return o.Offset
}

// commit has a group commit offsets for topics.
func (r *region) commit(group string, offsets map[string]map[int32]int64) {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	commit := kadm.Offsets{}
	for topic, partitions := range offsets {
		for p, at := range partitions {
			commit.Add(kadm.Offset{Topic: topic, Partition: p, At: at, LeaderEpoch: -1, Metadata: "m"})
		}
	}
	answers, err := kadm.NewClient(client).CommitOffsets(r.w.Context(), group, commit)
	if err = errors.Join(err, answers.Error()); err != nil {
		r.w.Fatal(err)
	}
}

func (r *region) committedBy(group string) map[string]int64 {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	fetched, err := kadm.NewClient(client).FetchOffsets(r.w.Context(), group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		r.w.Fatal(err)
	}
	at := map[string]int64{}
	for _, o := range fetched.Sorted() {
		at[fmt.Sprint(o.Topic, "/", o.Partition)] = o.At
	}
	return at
}

// Consumer groups get back what they had committed when the newest backup was made that is
// no further than what is written back; never behind the end, and not if they are active.
func TestRefillGroups(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Groups, r.cfg.Backup.GroupsExclude = []string{"*"}, []string{"not-*"}
		held := archivedRegion(r, func() {})
		end := r.end("session", 1)
		r.commit("readers", map[string]map[int32]int64{"session": {1: end - 1, 2: 1}, "config": {0: 1}})
		r.commit("not-these", map[string]map[int32]int64{"session": {1: 1}})
		r.commit("busy", map[string]map[int32]int64{"session": {0: 1}})
		r.commit("elsewhere", map[string]map[int32]int64{"evenkeel.attestations": {0: 1}})
		full := r.backup()
		r.commit("readers", map[string]map[int32]int64{"session": {1: end}}) // after it
		r.lose()

		plan, err := refill.Plan(r.w.Context(), r.refillJob())
		want := []api.PlannedGroup{{Group: "busy", Offsets: 1}, {Group: "readers", Offsets: 3}}
		if err != nil || plan.GroupsOf != full.ID || !reflect.DeepEqual(plan.Groups, want) || len(plan.Topics) != 2 {
			t.Fatalf("%+v, %v", plan, err)
		}
		client := r.dial(kgo.ConsumerGroup("busy"), kgo.ConsumeTopics("anything"))
		defer client.Close()
		if _, err := kadm.NewClient(client).CreateTopic(r.w.Context(), 1, 1, nil, "anything"); err != nil {
			t.Fatal(err)
		}
		r.await("active", func() error {
			listed, err := kadm.NewClient(client).ListGroups(r.w.Context())
			if err == nil && listed["busy"].State != "Stable" {
				err = errors.New(listed["busy"].State)
			}
			return err
		})
		done, err := refill.Run(r.w.Context(), r.refillJob())
		if err != nil {
			t.Fatal(err)
		}
		r.holds(held, false)
		if got, want := r.committedBy("readers"), map[string]int64{"session/1": end - 1, "session/2": 1, "config/0": 1}; !reflect.DeepEqual(got, want) {
			t.Errorf("readers are at %v, want %v", got, want)
		}
		skipped := 0
		for _, g := range done.Groups {
			if g.Skipped != "" {
				skipped++
			}
			if (g.Skipped != "") != (g.Group == "busy") {
				t.Errorf("%+v", g)
			}
		}
		if skipped != 1 || len(done.Groups) != 4 || done.GroupsOf != full.ID {
			t.Errorf("%+v", done.Groups)
		}
		if len(r.committedBy("not-these"))+len(r.committedBy("elsewhere"))+len(r.committedBy(r.cfg.Group)) > 0 {
			t.Error("others were given offsets too")
		}
	})
}

// Where offsets are mapped those of groups are too.
func TestRefillGroupsMapped(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Groups = []string{"*"}
		held := archivedRegion(r, func() {
			r.transact(kgo.TryCommit, bareRecord("tx", "committed"))
			r.transact(kgo.TryAbort, bareRecord("tx", "aborted"))
			r.transact(kgo.TryCommit, bareRecord("tx", "again"))
		})
		for l, records := range held {
			for i, record := range records {
				r.commit(fmt.Sprintf("at-%d", i), map[string]map[int32]int64{string(l.Stream): {l.Partition: record.Offset}})
			}
			if n := len(records); n > 0 {
				r.commit("end", map[string]map[int32]int64{string(l.Stream): {l.Partition: records[n-1].Offset + 1}})
			}
		}
		r.backup()
		r.lose()
		if _, err := refill.Run(r.w.Context(), r.refillJob()); err != nil {
			t.Fatal(err)
		}
		for l, records := range held {
			at := fmt.Sprint(l.Stream, "/", l.Partition)
			for i := range records {
				if got := r.committedBy(fmt.Sprintf("at-%d", i))[at]; got != int64(i) {
					t.Errorf("%s: the reader of record %d is at %d", l, i, got)
				}
			}
			if n := len(records); n > 0 && r.committedBy("end")[at] != int64(n) {
				t.Errorf("%s: the reader at the end is at %d of %d", l, r.committedBy("end")[at], n)
			}
		}
	})
}

// Killed at any call of the bucket, and any operation on the disk, it goes on when it is
// asked for again, and comes to the same.
func TestRefillKilledAnywhere(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		held := archivedRegion(r, func() {})
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		kill := errors.New("killed")
		step, most := 1, 1_000
		if testing.Short() {
			step = 5
		}
		for name, killAt := range map[string]func(n int, job *refill.Job){
			"bucket": func(n int, _ *refill.Job) {
				rules := []faults.Rule{{Nth: n, Effect: faults.Deny}}
				for i := range 20 { // and none after it
					rules = append(rules, faults.Rule{Nth: n + 1 + i, Effect: faults.Deny})
				}
				bucket.SetRules(rules...)
			},
			"disk": func(n int, job *refill.Job) {
				job.FS = errorfs.Wrap(r.disk, &diskKiller{at: n, err: kill})
			},
		} {
			for n := 1; n < most; n += step {
				r.lose()
				job := r.refillJob()
				killAt(n, &job)
				_, err := refill.Run(r.w.Context(), job)
				bucket.SetRules()
				if err == nil {
					if n < 5 {
						t.Errorf("%s: it takes only %d", name, n)
					}
					break // there is no such call
				}
				r.disk = r.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
				if _, err := refill.Run(r.w.Context(), r.refillJob()); err != nil {
					t.Fatalf("%s, killed at %d: %v", name, n, err)
				}
				r.holds(held, false)
				if t.Failed() {
					t.Fatalf("%s, killed at %d", name, n)
				}
			}
		}
	})
}

// diskKiller fails every operation on a disk from the nth that writes on.
type diskKiller struct {
	at  int
	err error

	mu   sync.Mutex
	done int
}

func (k *diskKiller) String() string { return "killer" }

func (k *diskKiller) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done++; k.done < k.at {
		return nil
	}
	return k.err
}
