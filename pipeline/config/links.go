package config

import (
	"strconv"
	"strings"

	"github.com/evenkeel/evenkeel/replicator/follow"
)

// Links are what the links from the other regions mirror into this one.
//
// A pattern is a name, a prefix followed by "*", or a regular expression (RE2)
// between slashes that must match the whole name: see follow.Patterns.
type Links struct {
	// Include are patterns of topics of the other regions to be mirrored besides
	// the logs of the streams and what regions attest of them, which always are. A topic that is named must exist
	// there: the link says that it waits for it. Topics of Kafka and of Evenkeel and
	// mirrors are taken only if they are named. Default none.
	Include []string `yaml:"include"`

	// Exclude are patterns of topics that Include does not mean. A stream's topic and
	// evenkeel.attestations cannot be excluded. Mirrors that exist stay, and get no more records.
	Exclude []string `yaml:"exclude"`

	// Groups are patterns of consumer groups whose offsets are kept in step, so that
	// their members can go on here. Offsets of groups with members here are left
	// alone. Default none.
	Groups []string `yaml:"groups"`

	// GroupsExclude are patterns of groups that Groups does not mean.
	GroupsExclude []string `yaml:"groups_exclude"`

	// Overrides are topic configs of all mirrors that this region sets itself, e.g.
	// "retention.ms"; others follow the source. Those that would make a mirror
	// something else than a copy are refused. Mirrors that exist are altered.
	Overrides map[string]string `yaml:"overrides"`

	// Principal is whom this region's cluster knows the links as, e.g. "User:link".
	// With it ACLs follow the source's, and nobody else may write to mirrors: a wrong
	// one locks the links themselves out. Default empty: ACLs are left alone.
	Principal string `yaml:"principal"`

	// WindowBytes bounds what each link fetches ahead, 1 MiB to 4 GiB, default 64 MiB.
	// Batches that are framed anew (tiny or compacted ones) are in memory besides, up to
	// as much again. Far regions need at least bandwidth times round trip.
	WindowBytes int64 `yaml:"window_bytes"`

	// RateBytesPerSecond bounds what each link reads of its source, on average.
	// Default 0: no limit. A source that is written to faster gets ever further ahead.
	RateBytesPerSecond int64 `yaml:"rate_bytes_per_second"`
}

const (
	defaultWindowBytes = 64 << 20
	minWindowBytes     = 1 << 20
	maxWindowBytes     = 4 << 30
)

func (c *Config) checkLinks(p *problems) {
	l := c.Links
	checkPatterns(p, "links.include", l.Include)
	checkPatterns(p, "links.exclude", l.Exclude)
	checkPatterns(p, "links.groups", l.Groups)
	checkPatterns(p, "links.groups_exclude", l.GroupsExclude)
	c.checkStreamsStay(p)
	if len(l.Exclude) > 0 && len(l.Include) == 0 && !p.failed["links.include"] {
		p.add("links.exclude", "without effect: links.include names no topics besides those of the streams")
	}
	if len(l.GroupsExclude) > 0 && len(l.Groups) == 0 && !p.failed["links.groups"] {
		p.add("links.groups_exclude", "without effect: links.groups names no groups")
	}
	for _, key := range sortedKeys(l.Overrides) {
		path := child("links.overrides", key)
		if err := follow.ValidateOverrides(map[string]string{key: l.Overrides[key]}); err != nil {
			p.add(path, "%s", err)
		} else if l.Overrides[key] == "" {
			p.add(path, "want a value; leave the key out to follow the source")
		}
	}
	if kind, name, ok := strings.Cut(l.Principal, ":"); l.Principal != "" && (!ok || kind == "" || name == "" || name == "*") {
		p.add("links.principal", "want the principal of one client as TYPE:NAME, such as User:evenkeel, got %q", clip(l.Principal))
	}
	between(p, "links.window_bytes", l.WindowBytes, minWindowBytes, maxWindowBytes, " bytes")
	if l.RateBytesPerSecond < 0 {
		p.add("links.rate_bytes_per_second", "want 0 or more bytes a second, got %d", l.RateBytesPerSecond)
	}
}

func checkPatterns(p *problems, path string, patterns []string) {
	for i, pattern := range patterns {
		if _, err := follow.NewPatterns([]string{pattern}, nil); err != nil {
			_, reason, _ := strings.Cut(err.Error(), strconv.Quote(pattern)+": ")
			p.add(indexed(path, i), "pattern %q: %s", clip(pattern), reason)
		}
	}
}

// checkStreamsStay sees that no stream loses its mirrors, and the attestations
// neither.
func (c *Config) checkStreamsStay(p *problems) {
	for i, pattern := range c.Links.Exclude {
		excluded, err := follow.NewPatterns([]string{pattern}, nil)
		if err != nil {
			continue
		}
		if topic := c.AttestationTopic(); excluded.Match(topic) {
			p.add(indexed("links.exclude", i), "%q excludes the topic %s, which is always mirrored: regions could not be compared", clip(pattern), topic)
		}
		for _, name := range c.StreamNames() {
			if topic := c.Streams[name].Topic; excluded.Match(topic) {
				p.add(indexed("links.exclude", i), "%q excludes the topic %q of stream %s, which is always mirrored", clip(pattern), clip(topic), name)
				break
			}
		}
	}
}
