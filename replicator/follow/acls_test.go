package follow_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

const link = "User:link"

// secured are the options of clusters that know who asks.
func secured() []kfake.Opt {
	return []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "admin"),
		kfake.User("PLAIN", "link", "link"), kfake.User("PLAIN", "alice", "alice"), kfake.User("PLAIN", "bob", "bob")}
}

var aclConfig = follow.ACLConfig{
	Principal: link, MirrorPrefix: origin, Mirror: mirror, Internal: follow.Internal("us", "eu"),
	Select: func(topic string) bool { return !strings.HasPrefix(topic, "private") },
}

func (w *world) acls(cfg follow.ACLConfig) follow.ACLReport {
	w.Helper()
	r, err := follow.ACLs(context.Background(), w.us.client, w.eu.client, cfg)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

var operations = map[string]kmsg.ACLOperation{
	"READ": kmsg.ACLOperationRead, "WRITE": kmsg.ACLOperationWrite, "ALL": kmsg.ACLOperationAll, "DESCRIBE": kmsg.ACLOperationDescribe,
	"DESCRIBE_CONFIGS": kmsg.ACLOperationDescribeConfigs, "ALTER": kmsg.ACLOperationAlter, "DELETE": kmsg.ACLOperationDelete, "CREATE": kmsg.ACLOperationCreate,
}

// builder reads "alice may|not READ name[*|**]": one star for a prefix, two for
// the literal "*".
func builder(t *testing.T, binding string) *kadm.ACLBuilder {
	t.Helper()
	f := strings.Fields(binding)
	b := kadm.NewACLs().Operations(operations[f[2]]).ResourcePatternType(kadm.ACLPatternLiteral)
	principal, host := "User:"+f[0], "*"
	if name, at, ok := strings.Cut(principal, "@"); ok {
		principal, host = name, at
	}
	if f[1] == "may" {
		b.Allow(principal).AllowHosts(host)
	} else {
		b.Deny(principal).DenyHosts(host)
	}
	switch name, isPrefix := strings.CutSuffix(f[3], "*"); {
	case f[3] == "**":
		b.Topics("*")
	case isPrefix:
		b.Topics(name).ResourcePatternType(kadm.ACLPatternPrefixed)
	default:
		b.Topics(name)
	}
	return b
}

func (c *cluster) grant(list ...string) {
	c.t.Helper()
	for _, binding := range list {
		rs, err := c.adm.CreateACLs(context.Background(), builder(c.t, binding))
		c.do(err)
		c.do(rs[0].Err)
	}
}

func (c *cluster) revoke(list ...string) {
	c.t.Helper()
	for _, binding := range list {
		rs, err := c.adm.DeleteACLs(context.Background(), builder(c.t, binding))
		c.do(err)
		if len(rs) != 1 || len(rs[0].Deleted) != 1 {
			c.t.Fatalf("revoke %s: %+v", binding, rs)
		}
	}
}

// granted prints all bindings on topics as grant reads them, but for those of the
// link.
func (c *cluster) granted() (list []string) {
	c.t.Helper()
	rs, err := c.adm.DescribeACLs(context.Background(),
		kadm.NewACLs().Topics().Allow().AllowHosts().Deny().DenyHosts().Operations().ResourcePatternType(kadm.ACLPatternAny))
	c.do(err)
	for _, a := range rs[0].Described {
		if a.Principal == link && a.Operation == kmsg.ACLOperationAll {
			continue
		}
		who, may, name := strings.TrimPrefix(a.Principal, "User:"), "not", a.Name
		if a.Host != "*" {
			who += "@" + a.Host
		}
		if a.Permission == kmsg.ACLPermissionTypeAllow {
			may = "may"
		}
		if a.Pattern == kadm.ACLPatternPrefixed || a.Name == "*" {
			name += "*"
		}
		list = append(list, fmt.Sprintf("%s %s %s %s", who, may, a.Operation, name))
	}
	slices.Sort(list)
	return list
}

func TestACLsAreTranslated(t *testing.T) {
	for _, c := range []struct {
		name           string
		source, mirror []string
		problems       int
	}{
		{"reading", []string{"alice may READ a", "alice may DESCRIBE a", "alice may DESCRIBE_CONFIGS a"},
			[]string{"alice may READ us.a", "alice may DESCRIBE us.a", "alice may DESCRIBE_CONFIGS us.a"}, 0},
		{"writing", []string{"alice may WRITE a", "alice may ALTER a", "alice may DELETE a", "alice may CREATE a*"}, nil, 0},
		{"everything", []string{"alice may ALL a"}, []string{"alice may READ us.a", "alice may DESCRIBE us.a"}, 0},
		{"prefixes", []string{"alice may READ app-*"}, []string{"alice may READ us.app-*"}, 0},
		{"all topics", []string{"alice may READ **"}, []string{"alice may READ us.*"}, 0},
		{"hosts", []string{"alice@10.0.0.1 may READ a"}, []string{"alice@10.0.0.1 may READ us.a"}, 0},
		{"not selected", []string{"alice may READ private", "alice not READ private"}, nil, 0},
		{"denials", []string{"alice may READ app*", "alice not READ app-2", "alice not WRITE app-3", "bob not ALL a"},
			[]string{"alice may READ us.app*", "alice not READ us.app-2", "bob not READ us.a", "bob not DESCRIBE us.a", "bob not DESCRIBE_CONFIGS us.a"}, 0},
		{"bindings on mirrors", []string{"alice may READ eu.a*", "alice may READ eu.*", "alice may READ eu_2.*", "alice may READ __*", "alice may READ e*"},
			[]string{"alice may READ us.e*"}, 0},
		{"the link's", []string{"link may READ a", "link not READ a"}, nil, 0},
		{"a denial of all, overruling", []string{"alice may READ a", "bob may READ b", "* not READ a"}, []string{"bob may READ us.b"}, 0},
		{"a denial of all, of describing", []string{"alice may READ a", "* not DESCRIBE app*", "alice may READ app-1"}, []string{"alice may READ us.a"}, 0},
		{"a denial of all, within", []string{"alice may READ app*", "* not READ app-1"}, []string{"alice may READ us.app*"}, 1},
		{"a denial of all, from a host", []string{"alice may READ a", "*@10.0.0.1 not READ a"}, []string{"alice may READ us.a"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.us.grant(c.source...)
				theirs := []string{"bob may WRITE local", "bob may WRITE us*", "bob may READ us", "bob may ALL **"}
				w.eu.grant(theirs...)
				r := w.acls(aclConfig)
				want := slices.Sorted(slices.Values(append(c.mirror, theirs...)))
				if got := w.eu.granted(); !slices.Equal(got, want) {
					t.Errorf("at the destination:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				if len(r.Problems) != c.problems {
					t.Errorf("problems: %v", r.Problems)
				}
				if len(r.Created) != len(c.mirror)+1 || len(r.Removed) > 0 {
					t.Errorf("created %v, removed %v", r.Created, r.Removed)
				}
				if len(r.Strangers) != 2 { // the prefix and the star
					t.Errorf("strangers: %v", r.Strangers)
				}
				if r := w.acls(aclConfig); len(r.Created)+len(r.Removed) > 0 {
					t.Errorf("a repeated pass did something: %+v", r)
				}
			}, secured()...)
		})
	}
}

func TestACLsThatTheSourceDropped(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.grant("alice may READ a", "alice may READ app*", "alice not READ app-1", "bob may READ a")
		w.acls(aclConfig)
		w.us.revoke("alice may READ a", "alice may READ app*", "alice not READ app-1")
		w.eu.grant("bob may WRITE us.a", "alice may READ u*", "alice may READ us", "bob may ALL local")
		r := w.acls(aclConfig)
		if len(r.Removed) != 4 || len(r.Created) > 0 || len(r.Strangers) > 0 {
			t.Errorf("%+v", r)
		}
		if got := fmt.Sprint(w.eu.granted()); got != "[alice may READ u* alice may READ us bob may ALL local bob may READ us.a]" {
			t.Errorf("left: %s", got)
		}
	}, secured()...)
}

// What an operator has allowed the link, so that it may begin at all, is not taken from
// it, not even for a moment.
func TestACLsOfTheLinkItself(t *testing.T) {
	simulate(t, func(w *world) {
		w.eu.grant("link may WRITE us.*", "link may CREATE us.a", "link not READ us.a")
		r := w.acls(aclConfig)
		if got := fmt.Sprint(w.eu.granted()); got != "[link may CREATE us.a link may WRITE us.*]" {
			t.Errorf("left: %s", got)
		}
		if len(r.Removed) != 1 || len(r.Strangers) > 0 {
			t.Errorf("%+v", r)
		}
	}, secured()...)
}

func TestACLsThatAreKept(t *testing.T) {
	simulate(t, func(w *world) {
		w.eu.grant("bob may READ us.a", "bob may WRITE us.a", "alice may READ us.a")
		cfg := aclConfig
		cfg.Keep = func(b follow.Binding) bool { return b.Principal == "User:bob" }
		r := w.acls(cfg)
		if got := fmt.Sprint(w.eu.granted()); got != "[bob may READ us.a bob may WRITE us.a]" {
			t.Errorf("left: %s", got)
		}
		if len(r.Strangers) != 1 || r.Strangers[0].Operation != kmsg.ACLOperationWrite {
			t.Errorf("strangers: %v", r.Strangers)
		}
	}, secured()...)
}

// Links in both directions must not copy each other's copies.
func TestACLsBothWaysComeToAnEnd(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.grant("alice may READ **", "alice may READ app*", "alice may READ a")
		w.eu.grant("bob may READ **", "bob may READ app*", "bob may READ a")
		back := aclConfig
		back.MirrorPrefix, back.Mirror = "eu.", func(topic string) string { return "eu." + topic }
		patterns, err := follow.NewPatterns([]string{"*"}, nil)
		w.us.do(err)
		there := aclConfig
		there.Select = patterns.Sparing(aclConfig.Internal).Match
		back.Select = there.Select
		for pass := range 3 {
			r := w.acls(there)
			s, err := follow.ACLs(context.Background(), w.eu.client, w.us.client, back)
			w.us.do(err)
			if n := len(r.Created) + len(s.Created); pass > 0 && n > 0 {
				t.Fatalf("pass %d created %v and %v", pass, r.Created, s.Created)
			}
		}
		if n := len(w.eu.granted()); n != 6 {
			t.Errorf("%d bindings: %v", n, w.eu.granted())
		}
	}, secured()...)
}

// The rights that result are those intended, as the broker judges.
func TestWhoMayWriteAMirror(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.grant("alice may ALL a")
		w.eu.create("us.a", 1, nil)
		w.acls(aclConfig)
		produce := func(user string) error {
			c := w.eu.dial(false, kgo.SASL(plain.Auth{User: user, Pass: user}.AsMechanism()), kgo.DisableIdempotentWrite(), kgo.RecordRetries(0))
			defer c.Close()
			return c.ProduceSync(context.Background(), &kgo.Record{Topic: "us.a"}).FirstErr()
		}
		if err := produce("link"); err != nil {
			t.Errorf("the link may not: %v", err)
		}
		if err := produce("alice"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("alice: %v", err)
		}
	}, secured()...)
}

func TestACLsWithoutAnAuthorizer(t *testing.T) {
	off := kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeACLs}, TopLevel: true, Err: kerr.SecurityDisabled, Count: -1}
	simulate(t, func(w *world) {
		w.us.grant("alice may READ a")
		w.acls(aclConfig)
		back := w.us.Fault(off)
		if r := w.acls(aclConfig); r.Disabled != "source" || len(r.Removed)+len(r.Created) > 0 {
			t.Errorf("without one at the source: %+v", r)
		}
		back.Remove()
		w.eu.Fault(off)
		w.us.grant("alice may READ b")
		if r := w.acls(aclConfig); r.Disabled != "destination" || len(r.Created) > 0 {
			t.Errorf("without one at the destination: %+v", r)
		}
	}, secured()...)
}

// Unknown is never good: what cannot be read is no reason to remove anything.
func TestACLsThatCannotBeRead(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.grant("alice may READ a")
		w.acls(aclConfig)
		for _, c := range []*cluster{w.us, w.eu} {
			fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeACLs}, TopLevel: true, Err: kerr.ClusterAuthorizationFailed, Count: -1})
			if r, err := follow.ACLs(context.Background(), w.us.client, w.eu.client, aclConfig); !errors.Is(err, kerr.ClusterAuthorizationFailed) {
				t.Errorf("%v: %+v", err, r)
			}
			fault.Remove()
		}
		if got := fmt.Sprint(w.eu.granted()); got != "[alice may READ us.a]" {
			t.Errorf("left: %s", got)
		}
	}, secured()...)
}

// A denial that could not be made keeps what it restricts from being allowed.
func TestACLsAreNeverWiderThanMeant(t *testing.T) {
	simulate(t, func(w *world) {
		w.us.grant("alice may READ app*", "alice not READ app-1")
		w.eu.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateACLs}, Resource: "us.app-1", Err: kerr.PolicyViolation})
		r := w.acls(aclConfig)
		if len(r.Problems) != 1 || len(w.eu.granted()) != 0 {
			t.Errorf("%v; %v", r.Problems, w.eu.granted())
		}
		w.acls(aclConfig)
		if got := fmt.Sprint(w.eu.granted()); got != "[alice may READ us.app* alice not READ us.app-1]" {
			t.Errorf("%s", got)
		}
		w.us.revoke("alice may READ app*", "alice not READ app-1")
		w.eu.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DeleteACLs}, Resource: "us.app", Err: kerr.PolicyViolation})
		w.acls(aclConfig)
		if got := fmt.Sprint(w.eu.granted()); got != "[alice may READ us.app* alice not READ us.app-1]" {
			t.Errorf("%s", got)
		}
	}, secured()...)
}

func TestManyACLs(t *testing.T) {
	simulate(t, func(w *world) {
		names := make([]string, 700)
		for i := range names {
			names[i] = fmt.Sprintf("t%d", i)
		}
		b := kadm.NewACLs().Operations(kmsg.ACLOperationRead, kmsg.ACLOperationWrite).Topics(names...).Allow("User:alice").AllowHosts("*")
		_, err := w.us.adm.CreateACLs(context.Background(), b)
		w.us.do(err)
		if r := w.acls(aclConfig); len(r.Created) != len(names)+1 || len(r.Problems) > 0 {
			t.Errorf("created %d, problems %v", len(r.Created), r.Problems)
		}
		_, err = w.us.adm.DeleteACLs(context.Background(), b)
		w.us.do(err)
		if r := w.acls(aclConfig); len(r.Removed) != len(names) {
			t.Errorf("removed %d", len(r.Removed))
		}
	}, secured()...)
}

func TestACLsWithoutAPrefix(t *testing.T) {
	if _, err := follow.ACLs(context.Background(), nil, nil, follow.ACLConfig{}); err == nil {
		t.Error("no error")
	}
}
