//go:build kafka

package kafkatest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator"
)

const createLinkTopic = "CREATE topic evenkeel.links"

// What a link needs, as README.md says it. TOPIC is a mirrored topic's name, or the
// prefix of its name, GROUP the same of a group whose offsets are followed.
var (
	grantsAtSource = []string{"READ topic TOPIC", "DESCRIBE_CONFIGS topic TOPIC"}
	grantsAtDest   = []string{
		"CREATE topic ORIGIN.*", "READ topic ORIGIN.*", "WRITE topic ORIGIN.*", "ALTER topic ORIGIN.*",
		"ALTER_CONFIGS topic ORIGIN.*",
		createLinkTopic, "READ topic evenkeel.links", "WRITE topic evenkeel.links", "DESCRIBE_CONFIGS topic evenkeel.links",
	}

	// With links.groups.
	groupGrantsAtSource = []string{"DESCRIBE group GROUP"}
	groupGrantsAtDest   = []string{"READ group GROUP"}

	// With links.principal.
	aclGrantsAtSource = []string{"DESCRIBE cluster"}
	aclGrantsAtDest   = []string{"ALTER cluster"}
)

var operations = map[string]kmsg.ACLOperation{
	"READ": kmsg.ACLOperationRead, "WRITE": kmsg.ACLOperationWrite, "CREATE": kmsg.ACLOperationCreate, "ALTER": kmsg.ACLOperationAlter,
	"DESCRIBE": kmsg.ACLOperationDescribe, "DESCRIBE_CONFIGS": kmsg.ACLOperationDescribeConfigs, "ALTER_CONFIGS": kmsg.ACLOperationAlterConfigs,
}

// binding reads "OPERATION topic NAME", where a name may end in a star, and the same of
// a group, and "OPERATION cluster".
func binding(t *testing.T, principal, text string) *kadm.ACLBuilder {
	t.Helper()
	words := strings.Fields(text)
	b := kadm.NewACLs().Allow(principal).AllowHosts("*").Operations(operations[words[0]]).ResourcePatternType(kadm.ACLPatternLiteral)
	if words[1] == "cluster" {
		return b.Clusters()
	}
	name, prefix := strings.CutSuffix(words[2], "*")
	switch {
	case name == "":
		name = "*" // literally: any
	case prefix:
		b.ResourcePatternType(kadm.ACLPatternPrefixed)
	}
	if words[1] == "group" {
		return b.Groups(name)
	}
	return b.Topics(name)
}

// grant lets a principal do what a list of bindings says.
func (s *secured) grant(principal string, list ...string) {
	s.t.Helper()
	for _, text := range list {
		made, err := s.admin.CreateACLs(s.ctx(), binding(s.t, principal, text))
		s.do(err)
		for _, m := range made {
			s.do(m.Err)
		}
	}
}

// linkGrants are bindings for the link that mirrors one topic, and follows the group
// of its name.
func linkGrants(w *world, lists ...[]string) []string {
	var all []string
	for _, text := range slices.Concat(lists...) {
		text = strings.ReplaceAll(text, "TOPIC", w.topic)
		text = strings.ReplaceAll(text, "GROUP", w.topic)
		all = append(all, strings.ReplaceAll(text, "ORIGIN", w.source.region.String()))
	}
	return all
}

// Links between brokers with TLS, authentication and an authorizer that lets nobody
// do what is not allowed.
func TestSecured(t *testing.T) {
	t.Parallel()
	source, dest := newSecured(t, sourceRegion), newSecured(t, destRegion)
	// All of them mirror into the same link topic; that which follows ACLs takes
	// what it finds on mirrors for its own, so it comes last.
	t.Run("no link topic", func(t *testing.T) { testLinkTopicMissing(t, source.in(t), dest.in(t)) })
	t.Run("password", func(t *testing.T) { testSecuredBytes(t, source.in(t), dest.in(t), "User:link-password", false) })
	t.Run("certificate", func(t *testing.T) { testSecuredBytes(t, source.in(t), dest.in(t), "User:CN=link-certificate", true) })
	t.Run("cannot connect", func(t *testing.T) { testCannotConnect(t, source.in(t), dest.in(t)) })
	t.Run("one grant is missing", func(t *testing.T) { testMissingGrants(t, source.in(t), dest.in(t)) })
	t.Run("a node", func(t *testing.T) { testNode(t, source.in(t), dest.in(t)) })
	t.Run("ACLs", func(t *testing.T) { testACLs(t, source.in(t), dest.in(t)) })
}

// securedWorld is a world of two clusters as their administrator sees them; its topic
// is there.
func securedWorld(t *testing.T, source, dest *secured) *world {
	t.Helper()
	w := worldOf(t, source.cluster, dest.cluster)
	w.source.create(w.topic, partitions)
	return w
}

// seenBy is the same world for others.
func (w *world) seenBy(source, dest *cluster) *world {
	return &world{T: w.T, source: source, dest: dest, topic: w.topic}
}

// followsGroup lets a link follow the group of its topic's name.
func followsGroup(w *world) func(*replicator.Config) {
	return func(c *replicator.Config) { c.Groups = patterns(w.T, w.topic) }
}

func testSecuredBytes(t *testing.T, source, dest *secured, principal string, certified bool) {
	w := securedWorld(t, source, dest)
	source.grant(principal, linkGrants(w, grantsAtSource, groupGrantsAtSource)...)
	dest.grant(principal, linkGrants(w, grantsAtDest, groupGrantsAtDest)...)
	name := strings.TrimPrefix(strings.TrimPrefix(principal, "User:"), "CN=")
	link := w.seenBy(source.asCertified(name), dest.asCertified(name))
	if !certified {
		link = w.seenBy(source.as(source.addUser(name)), dest.as(dest.addUser(name)))
	}
	l := link.start(followsGroup(w))
	load := w.load(1)
	w.await("there are records", patience, func() error {
		if load.acked.Load() < 500 {
			return fmt.Errorf("%d records; %v", load.acked.Load(), load.reason.Load())
		}
		return nil
	})
	load.stop()
	w.commit(w.source, w.topic, w.topic, map[int32]int64{0: 7})
	l.awaitMirrored()
	if n := w.sameOffsets(); int64(n) < load.acked.Load() {
		t.Errorf("%d records are the same, %d were written", n, load.acked.Load())
	}
	w.awaitCommitted(w.topic, w.mirror(), map[int32]int64{0: 7})
	w.source.configure(w.topic, "retention.ms", "7200000")
	w.awaitConfigs(map[string]string{"retention.ms": "7200000"})
	w.noProblems(l)
}

// noProblems checks that the link has nothing to complain about.
func (w *world) noProblems(l *link) {
	w.Helper()
	w.await("the link has no problems", patience, func() error {
		if found := complaints(l); len(found) > 0 {
			return errors.New(strings.Join(found, "; "))
		}
		return nil
	})
}

// complaints is all that a link says is not as it should be.
func complaints(l *link) (found []string) {
	d := l.Details()
	if d.Error != "" {
		found = append(found, d.Error)
	}
	for _, t := range d.Tasks {
		found = append(found, t.Problems...)
	}
	for _, p := range d.Partitions {
		if p.Reason != "" {
			found = append(found, p.Reason)
		}
	}
	return found
}

// A link that cannot connect says why, and tells nobody its password.
func testCannotConnect(t *testing.T, source, dest *secured) {
	w := securedWorld(t, source, dest)
	const secret = "not-the-password"
	stranger := &security{authority: newAuthority(t), user: admin, password: adminPassword}
	elsewhere := clusterAt(t, source.region, strings.Replace(source.address, "127.0.0.1", "localhost", 1), 1, source.security)
	cases := []struct {
		name         string
		source, dest *cluster
		want         []string
	}{
		{"wrong authority at the source", source.as(stranger), dest.cluster, []string{"us-east-1", "unknown authority"}},
		{"wrong authority at the destination", source.cluster, dest.as(stranger), []string{"us-west-1", "unknown authority"}},
		{"wrong host name", elsewhere, dest.cluster, []string{"us-east-1", "certificate", "localhost"}},
		{"wrong password at the source", source.as(source.by(admin, secret)), dest.cluster, []string{"us-east-1", "SASL_AUTHENTICATION_FAILED"}},
		{"wrong password at the destination", source.cluster, dest.as(dest.by(admin, secret)), []string{"us-west-1", "SASL_AUTHENTICATION_FAILED"}},
		{"unknown user", source.as(source.by("nobody", secret)), dest.cluster, []string{"us-east-1", "SASL_AUTHENTICATION_FAILED"}},
		{
			"no certificate", clusterAt(t, source.region, address(source.node.ports.other), 1, &security{authority: source.ca}), dest.cluster,
			[]string{"us-east-1", "certificate"},
		},
		{"no TLS", clusterAt(t, source.region, source.address, 1, nil), dest.cluster, []string{"us-east-1", "tls"}},
	}
	links := map[string]*link{}
	for _, c := range cases {
		mine := w.seenBy(c.source, c.dest)
		links[c.name] = mine.start()
	}
	for _, c := range cases {
		l := links[c.name]
		w.await(c.name+": the link says why it cannot connect", patience, func() error {
			s := l.Status()
			for _, text := range c.want {
				if s.Running || !strings.Contains(s.Error, text) {
					return fmt.Errorf("want %q in: %s", text, s.Error)
				}
			}
			return nil
		})
		t.Logf("%s: %s", c.name, l.Status().Error)
		l.stop()
		details, err := json.Marshal(l.Details())
		if err != nil {
			t.Fatal(err)
		}
		for _, password := range []string{secret, adminPassword} {
			if strings.Contains(l.log.String(), password) || strings.Contains(string(details), password) {
				t.Errorf("%s: the password is told:\n%s\n%s", c.name, l.log, details)
			}
		}
	}
}

// Every one of the grants that README.md names is needed: a link without it says that
// it is not authorized. Each has a user and a topic of its own.
func testMissingGrants(t *testing.T, source, dest *secured) {
	grants := slices.Concat(grantsAtSource, groupGrantsAtSource, grantsAtDest, groupGrantsAtDest)
	var all []*limited
	for i, missing := range append(grants, "") {
		if missing == createLinkTopic {
			continue // it is there by now, see testLinkTopicMissing
		}
		all = append(all, newLimited(securedWorld(t, source, dest), source, dest, fmt.Sprintf("link-%d", i), missing))
	}
	for _, l := range all {
		l.await()
	}
}

// limited is a link of which something is asked that it may not be authorized to do.
type limited struct {
	*link
	w       *world // as the administrator sees it
	missing string // grant; empty: none
	changed bool   // what the link has to follow
}

func newLimited(w *world, source, dest *secured, user, missing string) *limited {
	w.Helper()
	others := func(lists ...[]string) []string {
		return linkGrants(w, slices.DeleteFunc(slices.Concat(lists...), func(g string) bool { return g == missing }))
	}
	source.grant("User:"+user, others(grantsAtSource, groupGrantsAtSource)...)
	dest.grant("User:"+user, others(grantsAtDest, groupGrantsAtDest)...)
	w.source.writeAll(w.topic, 5)
	w.commit(w.source, w.topic, w.topic, map[int32]int64{0: 3})
	link := w.seenBy(source.as(source.addUser(user)), dest.as(dest.addUser(user))).start(followsGroup(w))
	return &limited{link: link, w: w, missing: missing}
}

// await waits until the link has done all that it may have to do, or says that it is not
// authorized to.
func (l *limited) await() {
	w := l.w
	w.Helper()
	w.await("without "+l.missing+": the link has done everything, or says why not", 2*patience, func() error {
		l.change()
		said := strings.Join(complaints(l.link), "; ")
		denied := strings.Contains(strings.ToLower(said), "authoriz")
		switch {
		case l.missing == "" && denied:
			w.Fatal(said)
		case l.missing != "" && denied:
			w.Logf("without %s: %s", l.missing, said)
			return nil
		case l.missing != "" || !l.changed:
			return fmt.Errorf("it says %q", said)
		case w.dest.config(w.mirror(), "retention.ms") != "7200000" || w.dest.ends(w.mirror())[partitions] != 0:
			return errors.New("the mirror does not follow")
		}
		return nil
	})
	if l.missing == "" {
		l.awaitMirrored()
		w.sameOffsets()
		w.awaitCommitted(w.topic, w.mirror(), map[int32]int64{0: 3})
		w.noProblems(l.link)
	}
	l.stop()
}

// change changes the source once there is a mirror, so that it has to be followed.
func (l *limited) change() {
	w := l.w
	w.Helper()
	topics, err := w.dest.admin.ListTopics(w.dest.ctx(), w.mirror())
	w.dest.do(err)
	if l.changed || !topics.Has(w.mirror()) || topics[w.mirror()].Err != nil {
		return
	}
	l.changed = true
	w.source.configure(w.topic, "retention.ms", "7200000")
	_, err = w.source.admin.CreatePartitions(w.source.ctx(), 1, w.topic)
	w.source.do(err)
}

// testLinkTopicMissing is for the first link ever, which makes the link topic.
func testLinkTopicMissing(t *testing.T, source, dest *secured) {
	w := securedWorld(t, source, dest)
	source.grant("User:first", linkGrants(w, grantsAtSource)...)
	dest.grant("User:first", slices.DeleteFunc(linkGrants(w, grantsAtDest), func(g string) bool { return g == createLinkTopic })...)
	l := w.seenBy(source.as(source.addUser("first")), dest.as(dest.addUser("first"))).start()
	w.await("the link says that it may not make its topic", patience, func() error {
		if s := l.Status(); !strings.Contains(s.Error, "TOPIC_AUTHORIZATION_FAILED") {
			return errors.New(s.Error)
		}
		return nil
	})
	t.Logf("it says: %s", l.Status().Error)
	dest.grant("User:first", createLinkTopic)
	l.awaitMirrored()
}

// ACLs of the source are those of the mirrors, but nobody writes there besides the
// link, whatever he was allowed before.
func testACLs(t *testing.T, source, dest *secured) {
	w := securedWorld(t, source, dest)
	w.source.writeAll(w.topic, 5)
	people := map[string]*cluster{}
	for _, name := range []string{"alice", "bob", "carol", "dave", "eve"} {
		people[name] = dest.as(dest.addUser(name))
	}
	prefix := w.topic[:len(w.topic)-1] + "*"
	source.grant("User:alice", "READ topic "+w.topic)
	source.grant("User:bob", "READ topic "+prefix, "WRITE topic "+prefix)
	source.grant("User:carol", "READ topic *")
	dest.grant("User:eve", "READ topic "+w.mirror(), "WRITE topic "+w.mirror())

	for _, missing := range []struct {
		side *secured
		text string
	}{{source, "DESCRIBE cluster"}, {dest, "ALTER cluster"}} {
		w.withoutACLGrant(source, dest, missing.side, missing.text)
	}

	source.grant("User:link", linkGrants(w, grantsAtSource, aclGrantsAtSource)...)
	dest.grant("User:link", linkGrants(w, grantsAtDest, aclGrantsAtDest)...)
	l := w.seenBy(source.as(source.addUser("link")), dest.as(dest.addUser("link"))).start(followsACLs("User:link"))
	l.awaitMirrored()
	readers := map[string]bool{"alice": true, "bob": true, "carol": true}
	w.await("everybody may what he is to", patience, func() error {
		for name, who := range people {
			read, write := who.may(w.mirror(), kmsg.ACLOperationRead), who.may(w.mirror(), kmsg.ACLOperationWrite)
			if read != readers[name] || write {
				return fmt.Errorf("%s may read: %v, write: %v", name, read, write)
			}
		}
		return nil
	})
	for name, who := range people {
		if read, write := who.try(w.mirror()); read != readers[name] || write {
			t.Errorf("%s reads: %v, writes: %v", name, read, write)
		}
	}
	w.source.writeAll(w.topic, 5)
	l.awaitMirrored()
	w.sameOffsets()
	w.noProblems(l)
}

func followsACLs(principal string) func(*replicator.Config) {
	return func(c *replicator.Config) { c.Principal = principal }
}

// withoutACLGrant lets a link try to follow ACLs that lacks one grant.
func (w *world) withoutACLGrant(source, dest, side *secured, text string) {
	w.Helper()
	user := strings.ToLower("no-" + strings.ReplaceAll(text, " ", "-") + "-" + side.region.String())
	for _, s := range []*secured{source, dest} {
		list, acls := linkGrants(w, grantsAtSource), aclGrantsAtSource
		if s == dest {
			list, acls = linkGrants(w, grantsAtDest), aclGrantsAtDest
		}
		if s == side {
			acls = slices.DeleteFunc(slices.Clone(acls), func(g string) bool { return g == text })
		}
		s.grant("User:"+user, slices.Concat(list, acls)...)
	}
	l := w.seenBy(source.as(source.addUser(user)), dest.as(dest.addUser(user))).start(followsACLs("User:" + user))
	w.await("the link says that it may not follow ACLs", patience, func() error {
		if said := strings.Join(complaints(l), "; "); !strings.Contains(said, "CLUSTER_AUTHORIZATION_FAILED") {
			return fmt.Errorf("it says %q", said)
		}
		return nil
	})
	w.Logf("without %s at %s it says: %s", text, side.region, strings.Join(complaints(l), "; "))
	l.stop()
}

// may asks the authorizer what a client may do with a topic.
func (c *cluster) may(topic string, what kmsg.ACLOperation) bool {
	c.t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(c.ctx(), c.client)
	c.do(err)
	t := resp.Topics[0]
	return t.ErrorCode == 0 && t.AuthorizedOperations&(1<<what) != 0
}

// try reads and writes a topic, and tells what was allowed.
func (c *cluster) try(topic string) (reads, writes bool) {
	c.t.Helper()
	allowed := func(what string, err error) bool {
		// Who may write no topic gets no producer id.
		if err != nil && !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.ClusterAuthorizationFailed) {
			c.t.Fatalf("%s %s of %s: %v", what, topic, c.region, err)
		}
		return err == nil
	}
	reader := c.dial(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	reads = allowed("read", reader.PollFetches(c.ctx()).Err())
	writes = allowed("write", c.client.ProduceSync(c.ctx(), &kgo.Record{Topic: topic, Value: []byte("foreign")}).FirstErr())
	return reads, writes
}
