package pipeline_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/refill"
)

// as makes a Kafka client that of a user.
func as(user string) kgo.Opt {
	return kgo.SASL(plain.Auth{User: user, Pass: user}.AsMechanism())
}

// secure has the regions' clusters allow users what they have ACLs for, and an admin, who is the test, everything.
// Nodes are the user node.
func (w *world) secure(users map[string][]kfake.ACL) {
	w.Helper()
	for _, r := range w.regions {
		r.down()
		r.kafkaOpts = []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "admin")}
		for user, acls := range users {
			r.kafkaOpts = append(r.kafkaOpts, kfake.User("PLAIN", user, user, acls...))
		}
		r.dialOpts = []kgo.Opt{as("admin")}
		r.opts = append(r.opts, as("node"))
		if err := os.RemoveAll(r.dir); err != nil { // a cluster that is there already knows its ACLs
			w.Fatal(err)
		}
		r.up()
	}
}

// readmeACLs are the rows of the README's table of ACLs that a filter takes, for the topics and groups of these
// tests.
func readmeACLs(t *testing.T, take func(at string) bool) (acls []kfake.ACL) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(readme), "| at | operations | on |\n|---|---|---|\n")
	if !ok {
		t.Fatal("README.md has no table of ACLs")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	names := map[string][]string{ // that those of the README stand for
		"session": {"session", "config"}, "app": {"readers"}, "evenkeel": {"evenkeel"}, "evenkeel.": {"evenkeel."},
		"evenkeel.attestations": {"evenkeel.attestations"}, "evenkeel.links": {"evenkeel.links"}, "us-east-1.": {us.String() + ".", west.String() + ".", eu.String() + "."},
	}
	operations := map[string]kmsg.ACLOperation{
		"READ": kmsg.ACLOperationRead, "WRITE": kmsg.ACLOperationWrite, "CREATE": kmsg.ACLOperationCreate, "ALTER": kmsg.ACLOperationAlter, "DESCRIBE": kmsg.ACLOperationDescribe,
		"DESCRIBE_CONFIGS": kmsg.ACLOperationDescribeConfigs, "ALTER_CONFIGS": kmsg.ACLOperationAlterConfigs,
	}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			t.Fatalf("%q", line)
		}
		if !take(cells[1]) {
			continue
		}
		for _, on := range regexp.MustCompile("(topic|topics prefixed|group) `([^`]+)`").FindAllStringSubmatch(cells[3], -1) {
			resource, pattern := kmsg.ACLResourceTypeTopic, kmsg.ACLResourcePatternTypeLiteral
			switch on[1] {
			case "topics prefixed":
				pattern = kmsg.ACLResourcePatternTypePrefixed
			case "group":
				resource = kmsg.ACLResourceTypeGroup
			}
			if names[on[2]] == nil {
				t.Fatalf("%s in %q", on[0], line)
			}
			for _, name := range names[on[2]] {
				for operation := range strings.SplitSeq(strings.TrimSpace(cells[2]), ", ") {
					if operations[operation] == 0 {
						t.Fatalf("operation %q in %q", operation, line)
					}
					acls = append(acls, kfake.ACL{Resource: resource, Name: name, Pattern: pattern, Operation: operations[operation], Allow: true})
				}
			}
		}
	}
	return acls
}

func isLinks(at string) bool   { return strings.Contains(at, "with `links.") } // which is not configured here
func isRestore(at string) bool { return strings.Contains(at, "restore kafka") }
func isGroups(at string) bool  { return strings.Contains(at, ".groups") }

// With the ACLs that the README lists nodes and links work, backups hold what consumer groups have
// committed, and a region comes back after its Kafka was lost.
func TestReadmeACLs(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		w.secure(map[string][]kfake.ACL{
			"node": readmeACLs(t, func(at string) bool {
				return !isLinks(at) && !(isRestore(at) && !strings.Contains(at, "each other region"))
			}),
			"restorer": readmeACLs(t, func(at string) bool { return !isLinks(at) }),
		})
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		a.cfg.Backup.Groups = []string{"*"}
		archives(a)
		for _, r := range w.regions {
			r.start()
		}
		lived(a, b, c)
		a.commit("readers", map[string]map[int32]int64{"session": {0: 1}, "us-west-1.session": {0: 1}})
		a.backup()
		held := map[events.Log][]*kgo.Record{}
		for p := range int32(partitions) {
			held[events.Log{Origin: events.FirstOrigin(us), Stream: "session", Partition: p}] = a.committed("session", p)
		}
		for _, r := range w.regions {
			r.consistent()
			if problems := r.status().Problems; len(problems) > 0 {
				t.Errorf("%s: %q", r.cfg.Region, problems)
			}
			for line := range strings.Lines(r.log.String()) {
				if strings.Contains(line, "AUTHORIZATION_FAILED") {
					t.Errorf("%s is not allowed something: %s", r.cfg.Region, line)
				}
			}
		}

		a.lose()
		job := a.refillJob()
		job.KafkaOpts = []kgo.Opt{kgo.Dialer(w.net.DialContext), as("restorer")}
		done, err := refill.Run(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		a.holds(held, false)
		if len(done.Groups) != 1 || done.Groups[0].Skipped != "" {
			t.Errorf("%+v", done.Groups)
		}
		if _, err := pipeline.Restore(w.Context(), a.job()); err != nil {
			t.Fatal(err)
		}
		a.start()
		goOn(b, c)
		settle(w.regions)
		for _, r := range w.regions {
			r.consistent()
		}
	}, us, west, eu)
}

// groupsProblem makes sure that status says of backups that they go without what groups have committed, and why.
func (r *region) groupsProblem(parts ...string) {
	r.w.Helper()
	text := strings.Join(r.status().Problems, "\n")
	for _, part := range append(parts, "backup.groups") {
		if !strings.Contains(text, part) {
			r.w.Errorf("status does not say %q: %s", part, text)
		}
	}
}

// groupsOf are the groups whose offsets the newest backup has.
func (r *region) groupsOf() []string {
	r.w.Helper()
	plan, err := refill.Plan(r.w.Context(), r.refillJob())
	if err != nil {
		r.w.Fatal(err)
	}
	names := map[string]bool{}
	for _, g := range plan.Groups {
		names[g.Group] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Kafka lists only those groups that one may DESCRIBE, and says nothing of the others. A node that may see none knows
// that it may not, and one that is told a name asks about it.
func TestBackupOfGroupsThatAreNotSeen(t *testing.T) {
	long(t)
	for _, groups := range [][]string{{"*"}, {"readers"}, {"read*", "/wri.*/"}} {
		t.Run(fmt.Sprint(groups), func(t *testing.T) {
			simulate(t, func(w *world) {
				w.secure(map[string][]kfake.ACL{"node": readmeACLs(t, func(at string) bool { return !isLinks(at) && !isGroups(at) })})
				r := w.regions[0]
				r.cfg.Backup.Groups = groups
				archivedRegion(r, func() {})
				r.commit("readers", map[string]map[int32]int64{"session": {1: 1}})
				r.backup()
				want := "no consumer group of us-east-1 can be seen"
				if groups[0] == "readers" {
					want = kerr.GroupAuthorizationFailed.Message
				}
				r.groupsProblem(want)
				if got := r.groupsOf(); len(got) > 0 {
					t.Errorf("%v", got)
				}
			}, us)
		})
	}
}

// Where a cluster hides nothing there may be no group, and a named one that is not there is no trouble.
func TestBackupWithoutGroups(t *testing.T) {
	for _, groups := range [][]string{{"*"}, {"readers"}} {
		one(t, func(r *region) {
			r.cfg.Backup.Groups = groups
			archivedRegion(r, func() {})
			r.backup()
			if problems := r.status().Problems; len(problems) > 0 {
				t.Errorf("%v: %q", groups, problems)
			}
		})
	}
}

// A broker that does not say which groups it has may have any: no backup is made with those of the others alone.
func TestBackupOfGroupsOfSomeBrokers(t *testing.T) {
	simulate(t, func(w *world) {
		r := w.regions[0]
		r.down()
		r.kafkaOpts = []kfake.Opt{kfake.NumBrokers(2), kfake.Ports(r.port, r.port+100)}
		r.up()
		r.cfg.Backup.Groups = []string{"*"}
		archivedRegion(r, func() {})
		for i := range 10 { // some have their coordinator here, some there
			r.commit(fmt.Sprint("readers-", i), map[string]map[int32]int64{"session": {1: 1}})
		}
		first := r.backup()
		if got := r.groupsOf(); len(got) != 10 {
			t.Fatalf("%v", got)
		}
		r.kafka.ControlKey(int16(kmsg.ListGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
			r.kafka.KeepControl()
			if r.kafka.CurrentNode() == 0 {
				return nil, nil, false
			}
			res := req.ResponseKind().(*kmsg.ListGroupsResponse)
			res.ErrorCode = kerr.UnknownServerError.Code
			return res, nil, true
		})
		r.backup()
		r.groupsProblem(kerr.UnknownServerError.Message)
		plan, err := refill.Plan(w.Context(), r.refillJob())
		if err != nil || plan.GroupsOf != first.ID || len(plan.Groups) != 10 {
			t.Errorf("%+v, %v: want what backup %s has", plan, err, first.ID)
		}
	}, us)
}
