package pipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator/divergence"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// failed waits until the restore of a shard has failed, and says why.
func (r *region) failed(p int32) (why string) {
	r.w.Helper()
	r.await("refused", func() error {
		at := r.status().Shards[p].Restoring
		if at == nil || at.Step != api.RestoreFailed {
			return fmt.Errorf("%+v", at)
		}
		why = at.Error
		return nil
	})
	return why
}

// A backup that was made while the region had diverged proves itself, and yet it is not what the others
// have attested: plans say so, it is refused, and by default the newest is taken that agrees. A drill
// fails. An operator can have it all the same.
func TestRestoreShardsOfAWrongState(t *testing.T) {
	long(t)
	for name, inPlace := range map[string]bool{"copied": false, "in place": true} {
		t.Run(name, func(t *testing.T) {
			threeOf(t, order, func(a, b, c *region) {
				if inPlace {
					c.cfg.Restore.InstantFromBytes = 0
				}
				log, good := diverged(a, b, c)
				bad := c.backup().ID
				shard := []int32{log.Partition}
				for id, want := range map[string]string{good: "agrees with 2 of 2 regions", bad: "DIFFERS: " + log.String()} {
					plan, err := c.PlanRestore(c.w.Context(), api.PlanRestoreParams{Request: timeline.Request{Target: timeline.Target{Backup: id}}})
					if err != nil || !strings.Contains(plan.Attested, want) {
						t.Errorf("backup %s: %+v, %v, want %q", id, plan, err, want)
					}
				}
				was := c.status()
				c.restoreShards(timeline.Request{Target: timeline.Target{Backup: bad}, Shards: shard})
				why := c.failed(log.Partition)
				for _, part := range []string{log.String(), "layer fold", "--accept-diverged"} {
					if !strings.Contains(why, part) {
						t.Errorf("it does not say %q: %s", part, why)
					}
				}
				if now := c.status().Shards[log.Partition]; now.Lineage != was.Shards[log.Partition].Lineage {
					t.Errorf("%+v, was %+v", now, was.Shards[log.Partition])
				}
				drill, err := c.DrillRestore(c.w.Context())
				if err != nil || events.KindOf(drill.Err()) != events.KindInconsistent || !strings.Contains(drill.Err().Error(), log.String()) {
					t.Errorf("drill: %+v, %v", drill, err)
				}

				lineages := c.restoreShards(timeline.Request{Shards: shard})
				c.restored(lineages)
				if row := c.status().Shards[log.Partition]; !strings.Contains(row.Began, good) {
					t.Errorf("it began with %s, want %s", row.Began, good)
				}
				for _, r := range []*region{a, b, c} {
					r.consistent()
				}
				p := api.RestoreShardsParams{Request: timeline.Request{Target: timeline.Target{Backup: bad}, Shards: shard}, AcceptDiverged: true}
				begun, err := c.RestoreShards(c.w.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				c.restored(map[int32]string{log.Partition: begun.Shards[0].Lineage})
				c.finds(log, divergence.Diverged, divergence.LayerFold)
			})
		})
	}
}

// A drill that has found a state to differ does so until it is known to be equal: what is attested is not kept for long.
func TestDrillOfAWrongState(t *testing.T) {
	long(t)
	threeOf(t, order, func(a, b, c *region) {
		log, good := diverged(a, b, c)
		bad := c.backup().ID
		if d := c.drill(); !strings.Contains(d.Trials[0].Attested, api.Differs+log.String()) || d.Trials[0].Error == "" {
			t.Fatalf("%+v", d)
		}
		c.restored(c.restoreShards(timeline.Request{Target: timeline.Target{Backup: good}, Shards: []int32{log.Partition}}))
		c.put("more", "value")
		c.has("more", "value")
		c.backup()
		for _, away := range []bool{false, true} {
			if away {
				c.down()
			}
			for range 2 {
				d := c.drill()
				if again := d.Trials[1]; d.Trials[0].Error != "" || again.Backup != bad || again.Error == "" || !strings.Contains(again.Attested, api.Differs+log.String()) {
					t.Fatalf("away: %t: %+v", away, d)
				}
			}
		}
	})
}

// Where others have attested nothing that could be compared, that is said, and is no reason to refuse.
func TestRestoreShardsUnattested(t *testing.T) {
	long(t)
	threeOf(t, order, func(a, b, c *region) {
		for i := range 9 {
			c.put(fmt.Sprint("k", i), "c")
		}
		settle([]*region{a, b, c})
		id := c.backup().ID
		a.put("late", "a")
		plan, err := c.PlanRestore(c.w.Context(), api.PlanRestoreParams{Request: timeline.Request{Target: timeline.Target{Backup: id}}})
		if err != nil || !strings.Contains(plan.Attested, "agrees with 0 of 2 regions, unknown") {
			t.Errorf("%+v, %v", plan, err)
		}
		c.restored(c.restoreShards(timeline.Request{}))
		for _, r := range []*region{a, b, c} {
			r.consistent()
		}
	})
}

// Parts of a state come together as they should.
func TestAgreementAdds(t *testing.T) {
	differs := api.Disagreement{Log: events.Log{Origin: events.FirstOrigin(us), Stream: "session"}}
	g := &api.Agreement{}
	g.Add(&api.Agreement{Agrees: []events.Region{us, west}, Unknown: []events.Region{eu}})
	g.Add(&api.Agreement{Agrees: []events.Region{eu}, Unknown: []events.Region{west}})
	if !slices.Equal(g.Agrees, []events.Region{eu, us, west}) || len(g.Unknown) > 0 || g.Err() != nil {
		t.Errorf("%+v", g)
	}
	g.Add(&api.Agreement{Agrees: []events.Region{west}, Unknown: []events.Region{us}, Differs: []api.Disagreement{differs}})
	if text := g.String(); !slices.Equal(g.Agrees, []events.Region{eu, west}) || len(g.Unknown) > 0 || g.Err() == nil || !strings.HasPrefix(text, "agrees with 2 of 3 regions; DIFFERS") {
		t.Errorf("%+v: %s", g, text)
	}
}

// A state of which nobody has attested the end shows by what it was before, at every 1,024th record.
func TestRestoreShardsOfAStateThatWasWrongBefore(t *testing.T) {
	long(t)
	threeOf(t, order, func(a, b, c *region) {
		log, good := diverged(a, b, c)
		write := func(n int) {
			var records []*kgo.Record
			for i := range n {
				records = append(records, &kgo.Record{Topic: "session", Partition: log.Partition, Key: fmt.Append(nil, "many-", i), Value: []byte("x")})
			}
			a.produce(records...)
			c.await("folded", func() error {
				if have, want := c.status().Vector()[log], a.end("session", log.Partition); have < want {
					return fmt.Errorf("%d of %d", have, want)
				}
				return nil
			})
		}
		write(1_100)
		bad := c.backup().ID
		write(1)
		c.backup()
		write(50)
		plan, err := c.PlanRestore(c.w.Context(), api.PlanRestoreParams{Request: timeline.Request{Target: timeline.Target{Backup: bad}}})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(plan.Attested, "DIFFERS") {
			t.Fatalf("its end was attested, and what is to be shown is not: %s", plan.Attested)
		}
		time.Sleep(30 * time.Second)
		c.restoreShards(timeline.Request{Target: timeline.Target{Backup: bad}, Shards: []int32{log.Partition}})
		if why := c.failed(log.Partition); !strings.Contains(why, "offset 1024") || !strings.Contains(why, log.String()) {
			t.Errorf("%s", why)
		}
		lineages := c.restoreShards(timeline.Request{Shards: []int32{log.Partition}})
		c.restored(lineages)
		if row := c.status().Shards[log.Partition]; !strings.Contains(row.Began, good) {
			t.Errorf("it began with %s, want %s", row.Began, good)
		}
		for _, r := range []*region{a, b, c} {
			r.consistent()
		}
	})
}
