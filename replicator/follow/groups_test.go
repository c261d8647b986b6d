package follow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/evenkeel/evenkeel/replicator/follow"
)

// identity is the translation of a dense log.
func identity(_ string, _ int32, source int64) (int64, bool) { return source, true }

var groupsConfig = follow.GroupsConfig{Select: all, Selected: func(topic string) bool { return topic != "private" }, Mirror: mirror, Translate: identity}

func (w *world) groups(cfg follow.GroupsConfig) follow.GroupsReport {
	w.Helper()
	w.later()
	r, err := follow.Groups(context.Background(), w.us.adm, w.eu.adm, cfg)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// copied makes a topic with n records in partition 0, and a mirror with m.
func (w *world) copied(topic string, n, m int) {
	w.Helper()
	w.us.create(topic, 2, nil)
	w.eu.create(mirror(topic), 2, nil)
	w.us.fill(topic, 0, n)
	w.eu.fill(mirror(topic), 0, m)
}

// join makes a member of a group at the cluster and waits until it is one.
func (c *cluster) join(group, topic string) (leave func()) {
	c.t.Helper()
	client := c.dial(false, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	_, err := c.WaitGroupStable(context.Background(), group, 1)
	c.do(err)
	return client.Close
}

// reasons counts what was skipped.
func reasons(r follow.GroupsReport) map[follow.SkipReason]int {
	n := map[follow.SkipReason]int{}
	for _, s := range r.Skipped {
		n[s.Reason]++
	}
	return n
}

// A source lists only the groups that may be seen. One that is named is asked about all
// the same; it need not be there.
func TestGroupsThatMayNotBeSeen(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("a", 10, 10)
		w.us.commit("hidden", "a", 0, 4)
		w.us.commit("seen", "a", 0, 4)
		user := w.us.dial(false, kgo.SASL(plain.Auth{User: "alice", Pass: "alice"}.AsMechanism()))
		defer user.Close()
		for _, b := range []*kadm.ACLBuilder{
			kadm.NewACLs().Allow("User:alice").AllowHosts().Operations(kmsg.ACLOperationRead).Topics("a"),
			kadm.NewACLs().Allow("User:alice").AllowHosts().Operations(kmsg.ACLOperationDescribe).Groups("seen"),
		} {
			_, err := w.us.adm.CreateACLs(context.Background(), b.ResourcePatternType(kadm.ACLPatternLiteral))
			w.us.do(err)
		}
		cfg := groupsConfig
		cfg.Named = []string{"hidden", "seen", "not there"}
		w.later()
		r, err := follow.Groups(context.Background(), kadm.NewClient(user), w.eu.adm, cfg)
		w.us.do(err)
		if r.Committed != 1 || len(r.Skipped) < 1 || r.Skipped[0].Group != "hidden" || !strings.Contains(r.Skipped[0].Detail, "GROUP_AUTHORIZATION_FAILED") {
			t.Errorf("%+v", r)
		}
	}, secured()...)
}

func TestGroupsFollow(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("a", 10, 10)
		w.copied("private", 10, 10)
		w.us.commit("g", "a", 0, 4)
		w.us.commit("g", "a", 1, 0)
		w.us.commit("other", "private", 0, 4)
		r := w.groups(groupsConfig)
		if r.Groups != 1 || r.Committed != 2 || len(r.Skipped) > 0 {
			t.Errorf("%+v", r)
		}
		if o := w.eu.committed("g", "us.a", 0); o.At != 4 || o.LeaderEpoch != -1 || o.Metadata != "from g" {
			t.Errorf("%+v", o)
		}
		if o := w.eu.committed("g", "us.a", 1); o.At != 0 {
			t.Errorf("%+v", o)
		}
		if w.eu.GroupInfo("other") != nil {
			t.Error("a group without offsets on mirrored topics was made")
		}
		if r := w.groups(groupsConfig); r.Committed != 0 || r.Unchanged != 2 {
			t.Errorf("a repeated pass: %+v", r)
		}
	})
}

func TestGroupOffsetsStayWithinTheMirror(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("a", 10, 5)
		w.us.commit("ahead", "a", 0, 9)
		w.us.commit("behind", "a", 0, 1)
		w.us.do(w.eu.DeleteRecords("us.a", 0, 3))
		w.groups(groupsConfig)
		if o := w.eu.committed("ahead", "us.a", 0); o.At != 5 {
			t.Errorf("past the end: %d", o.At)
		}
		if o := w.eu.committed("behind", "us.a", 0); o.At != 3 {
			t.Errorf("before the start: %d", o.At)
		}
		w.eu.fill("us.a", 0, 5)
		if r := w.groups(groupsConfig); r.Committed != 1 || w.eu.committed("ahead", "us.a", 0).At != 9 {
			t.Errorf("after the mirror caught up: %+v", r)
		}
	})
}

func TestGroupsNeverGoBack(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("a", 10, 10)
		w.us.commit("g", "a", 0, 4)
		w.eu.commit("g", "us.a", 0, 7)
		if r := w.groups(groupsConfig); r.Committed != 0 || r.Unchanged != 1 || w.eu.committed("g", "us.a", 0).At != 7 {
			t.Errorf("%+v", r)
		}
	})
}

func TestGroupsActiveAtTheDestination(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("a", 10, 10)
		w.us.commit("g", "a", 0, 4)
		w.us.commit("idle", "a", 0, 4)
		leave := w.eu.join("g", "us.a")
		r := w.groups(groupsConfig)
		if reasons(r)[follow.SkipActive] != 1 || r.Committed != 1 || !strings.Contains(r.Skipped[0].Detail, "Stable") {
			t.Errorf("%+v", r)
		}
		leave()
		if r := w.groups(groupsConfig); r.Committed != 1 || w.eu.committed("g", "us.a", 0).At != 4 {
			t.Errorf("after its member left: %+v", r)
		}
	})
}

// The group gets a member after the pass has looked at it: the broker refuses.
func TestGroupBecomesActiveDuringThePass(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("a", 10, 10)
		w.us.commit("g", "a", 0, 4)
		w.eu.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: kerr.UnknownMemberID})
		if r := w.groups(groupsConfig); reasons(r)[follow.SkipActive] != 1 || r.Committed != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func TestGroupOfAnotherTypeAtTheDestination(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("a", 10, 10)
		w.us.commit("g", "a", 0, 4)
		client := w.eu.dial(false, kgo.ShareGroup("g"), kgo.ConsumeTopics("us.a"))
		for len(mustListGroups(w.eu)) == 0 {
			w.later()
		}
		r := w.groups(groupsConfig)
		client.Close()
		if reasons(r)[follow.SkipType] != 1 || r.Committed != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func mustListGroups(c *cluster) kadm.ListedGroups {
	c.t.Helper()
	gs, err := c.adm.ListGroups(context.Background())
	c.do(err)
	return gs
}

func TestGroupsThatCannotBeTranslatedYet(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("a", 10, 10)
		w.us.create("b", 1, nil) // without a mirror
		w.us.commit("g", "a", 0, 4)
		w.us.commit("g", "a", 1, 0)
		w.us.commit("h", "b", 0, 0)
		cfg := groupsConfig
		cfg.Translate = func(_ string, partition int32, source int64) (int64, bool) { return source, partition == 1 }
		r := w.groups(cfg)
		if n := reasons(r); n[follow.SkipUntranslated] != 1 || n[follow.SkipNoMirror] != 1 || len(r.Skipped) != 2 || r.Committed != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// Whatever fails for one group is told, and the others are done.
func TestOneGroupFails(t *testing.T) {
	for _, c := range []struct {
		name  string
		at    func(w *world) *cluster
		fault kfake.Fault
	}{
		{"read at the source", func(w *world) *cluster { return w.us }, kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Group: "b", Err: kerr.GroupAuthorizationFailed, Count: -1}},
		{"read at the destination", func(w *world) *cluster { return w.eu }, kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Group: "b", Err: kerr.GroupAuthorizationFailed, Count: -1}},
		{"commit", func(w *world) *cluster { return w.eu }, kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "b", Err: kerr.GroupAuthorizationFailed, Count: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.copied("t", 10, 10)
				for _, g := range []string{"a", "b", "c"} {
					w.us.commit(g, "t", 0, 4)
				}
				fault := c.at(w).Fault(c.fault)
				r := w.groups(groupsConfig)
				if r.Committed != 2 || len(r.Skipped) != 1 || r.Skipped[0].Group != "b" || r.Skipped[0].Reason != follow.SkipFailed || r.Skipped[0].Detail == "" {
					t.Errorf("%+v", r)
				}
				fault.Remove()
				if r := w.groups(groupsConfig); r.Committed != 1 || r.Unchanged != 2 {
					t.Errorf("afterwards: %+v", r)
				}
			})
		})
	}
}

// A broker that does not list its groups hides which are active: those groups are
// left alone, the others are done.
func TestListingAtTheDestinationIsIncomplete(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("t", 10, 10)
		silent := w.eu.CoordinatorFor("g0")
		var leaves []func()
		for i := range 10 {
			g := fmt.Sprintf("g%d", i)
			w.us.commit(g, "t", 0, 4)
			if w.eu.CoordinatorFor(g) == silent {
				leaves = append(leaves, w.eu.join(g, "us.t"))
			} else {
				w.eu.commit(g, "us.t", 0, 1)
			}
		}
		if len(leaves) == 10 {
			t.Fatal("all groups are on one broker: this test looks at nothing")
		}
		w.eu.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListGroups}, Nodes: []int32{silent}, TopLevel: true, Err: kerr.UnknownServerError, Count: -1})
		r := w.groups(groupsConfig)
		if r.Committed != 10-len(leaves) || reasons(r)[follow.SkipFailed] != len(leaves) || len(r.Skipped) != len(leaves) {
			t.Errorf("%d groups on the silent broker: %+v", len(leaves), r)
		}
		for _, leave := range leaves {
			leave()
		}
	})
}

// Without permission to list groups nothing is known of any.
func TestGroupsMayNotBeListed(t *testing.T) {
	simulate(t, func(w *world) {
		w.copied("t", 10, 10)
		w.us.commit("g", "t", 0, 4)
		for _, c := range []*cluster{w.us, w.eu} {
			fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListGroups}, TopLevel: true, Err: kerr.ClusterAuthorizationFailed, Count: -1})
			if r, err := follow.Groups(context.Background(), w.us.adm, w.eu.adm, groupsConfig); !errors.Is(err, kerr.ClusterAuthorizationFailed) {
				t.Errorf("%v: %+v", err, r)
			}
			fault.Remove()
		}
	})
}

func TestManyGroups(t *testing.T) {
	simulate(t, func(w *world) {
		const n = 450
		w.copied("t", 10, 10)
		for i := range n {
			w.us.commit(fmt.Sprintf("g%d", i), "t", 0, int64(i%10)+1)
		}
		fetches := 0
		w.eu.ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			fetches++
			w.eu.KeepControl()
			return nil, nil, false
		})
		if r := w.groups(groupsConfig); r.Committed != n || len(r.Skipped) > 0 {
			t.Errorf("committed %d, skipped %v", r.Committed, reasons(r))
		}
		if most := brokers * (n/200 + 1); fetches > most {
			t.Errorf("%d requests for %d groups, want at most %d", fetches, n, most)
		}
		if o := w.eu.committed("g17", "us.t", 0); o.At != 8 {
			t.Errorf("%+v", o)
		}
	})
}
