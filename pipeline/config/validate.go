package config

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

const (
	maxPartitions = 1024
	minBodyBytes  = 1 << 10
	maxBodyBytes  = 256 << 20
	maxGroupBytes = 200 // there are topics named after it

	maxDeploymentBytes = 100 // and mirrors of such after this

	minClockSkew   = time.Second
	minStopTimeout = time.Second
	maxStopTimeout = 10 * time.Minute
	minKeep        = time.Second
	maxKeep        = 87600 * time.Hour
	reservedTopic  = "evenkeel"
)

// Validate reports everything that is wrong with c as an *Error without File
// and lines, for a Config made in code. Load and Parse return only valid ones.
func (c *Config) Validate() error {
	p := &problems{}
	c.check(p)
	return p.err("")
}

func (c *Config) check(p *problems) {
	c.checkNode(p)
	c.checkAPI(p)
	c.checkStreams(p)
	c.checkModels(p)
	c.checkRegions(p)
	if c.Backup != nil {
		c.Backup.check(p)
	}
	c.checkLinks(p)
	c.checkLog(p)
	c.checkLimits(p)
}

func (c *Config) checkNode(p *problems) {
	switch _, known := c.Regions[c.Region]; {
	case c.Region == "":
		p.add("region", "missing: which of the regions is this node in?")
	case !known && len(c.Regions) > 0:
		p.add("region", "%q is none of the regions (%s)", clip(string(c.Region)), some(sortedKeys(c.Regions)))
	}
	if c.DataDir == "" {
		p.add("data_dir", "missing: which directory may this node keep its state in?")
	}
	between(p, "partitions", int64(c.Partitions), 1, maxPartitions, "")
	if len(c.Group) > maxGroupBytes || c.Group == "" || strings.Trim(c.Group, nameChars) != "" {
		p.add("group", "want 1 to %d letters, digits, dots, underscores and dashes, got %q", maxGroupBytes, clip(c.Group))
	}
	switch {
	case len(c.Deployment) > maxDeploymentBytes || strings.Trim(c.Deployment, nameChars) != "":
		p.add("deployment", "want at most %d letters, digits, dots, underscores and dashes, got %q", maxDeploymentBytes, clip(c.Deployment))
	case c.Deployment != "" && c.Group == DefaultGroup:
		p.add("group", "a deployment with a name needs a group of its own, for instance %s-%s", DefaultGroup, clip(c.Deployment))
	}
	oneOf(p, "group_protocol", c.GroupProtocol, GroupClassic, GroupConsumer)
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

func (c *Config) checkAPI(p *problems) {
	between(p, "api.max_body_bytes", c.API.MaxBodyBytes, minBodyBytes, maxBodyBytes, " bytes")
	if c.API.Advertise != "" {
		if _, err := parseURL(c.API.Advertise); err != nil {
			p.add("api.advertise", "%s", err)
		}
	}
	switch host, ok := splitListen(c.API.Listen); {
	case !ok:
		p.add("api.listen", "want host:port, got %q", clip(c.API.Listen))
	case !isLoopback(host) && !c.API.AllowRemote:
		p.add("api.listen", "%q lets other machines connect, and the API has no TLS and no authentication yet: whoever connects can read and write everything. "+
			"Listen on 127.0.0.1; or, if something else guards the address, set api.allow_remote to true", clip(c.API.Listen))
	}
}

func (c *Config) checkStreams(p *problems) {
	if len(c.Streams) == 0 {
		p.add("streams", "want at least one, or leave the key out for the default streams")
	}
	owners := map[string]events.Stream{}
	for _, name := range c.StreamNames() {
		path, s := child("streams", string(name)), c.Streams[name]
		if err := name.Validate(); err != nil {
			p.add(path, "%s", err)
		}
		c.checkTopic(p, path+".topic", s.Topic)
		// Brokers refuse topics that differ only in dots and underscores.
		key := strings.ReplaceAll(s.Topic, ".", "_")
		if owner, taken := owners[key]; taken {
			p.add(path+".topic", "%q is too much like the topic %q of stream %s: dots and underscores count as the same, and each stream needs its own", clip(s.Topic), clip(c.Streams[owner].Topic), owner)
		} else {
			owners[key] = name
		}
		if _, err := projections.LookupRule(s.Merge); err != nil {
			p.add(path+".merge", "%s", err)
		}
		if t := s.Backup.Segment; t != 0 && (t < minSegment || t > maxSegment) {
			p.add(path+".backup.segment", "want %s to %s, or 0s for what backup.schedule.segment says, got %s", minSegment, maxSegment, t)
		}
	}
}

func (c *Config) checkModels(p *problems) {
	for i, name := range c.Models {
		if _, err := projections.LookupModel(name); err != nil {
			p.add(indexed("models", i), "%s", err)
		} else if slices.Index(c.Models, name) < i {
			p.add(indexed("models", i), "%s is given twice", name)
		}
	}
}

func (c *Config) checkTopic(p *problems, path, topic string) {
	if err := events.ValidateTopic(topic); err != nil {
		p.add(path, "%s", err)
		return
	}
	if topic == reservedTopic || strings.HasPrefix(topic, reservedTopic+".") {
		p.add(path, "%q is reserved: Evenkeel's own topics are called so", topic)
	}
	if o, of, ok := events.ParseMirrorTopic(topic); ok {
		if _, known := c.Regions[o.Region]; known {
			p.add(path, "%q is the name of a mirror (of topic %q from %s); a log's topic may not begin with a region and a dot", topic, of, o)
		}
	}
}

func (c *Config) checkLog(p *problems) {
	oneOf(p, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(p, "log.format", c.Log.Format, "text", "json")
}

func (c *Config) checkLimits(p *problems) {
	if c.Limits.MinFreeBytes < 0 {
		p.add("limits.min_free_bytes", "want 0 or more bytes, got %d", c.Limits.MinFreeBytes)
	}
	c.checkSizes(p)
	between(p, "limits.max_batch_bytes", c.Limits.MaxBatchBytes, minBatchBytes, maxBatchBytes, " bytes")
	if t := c.Limits.MaxClockSkew; t < minClockSkew || t > events.MaxFoldSkew {
		p.add("limits.max_clock_skew", "want 1s to 5m, got %s; what is further ahead of its record is parked in every region", t)
	}
	if n := c.Restore.InstantFromBytes; n < 0 {
		p.add("restore.instant_from_bytes", "want 0 or more bytes, got %d", n)
	}
	if keep := c.Tombstones.Keep; keep != 0 && (keep < minKeep || keep > maxKeep) {
		p.add("tombstones.keep", "want 1s to 87600h, or 0 to keep them for ever, got %s", keep)
	}
	if t := c.Limits.StopTimeout; t < minStopTimeout || t > maxStopTimeout {
		p.add("limits.stop_timeout", "want 1s to 10m, got %s", t)
	}
}

// checkSizes checks how large values may be, and whether a request can hold such a one.
func (c *Config) checkSizes(p *problems) {
	const rest = 64 << 10 // the largest key, and what else is in a request
	value, body := c.Limits.MaxValueBytes, c.API.MaxBodyBytes
	between(p, "limits.max_value_bytes", value, 1, events.MaxValueBytes, " bytes")
	if value < 1 || value > events.MaxValueBytes || body < minBodyBytes || body > maxBodyBytes {
		return
	}
	if need := int64(base64.StdEncoding.EncodedLen(int(value))) + rest; need > body {
		p.add("limits.max_value_bytes", "%d bytes can take %d in a request, and api.max_body_bytes is %d: raise that, or lower this", value, need, body)
	}
}

func between(p *problems, path string, n, least, most int64, unit string) {
	if n < least || n > most {
		p.add(path, "want %d to %d%s, got %d", least, most, unit, n)
	}
}

func oneOf(p *problems, path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(path, "want one of %s, got %q", strings.Join(allowed, ", "), clip(value))
	}
}

// some lists names, but not too many.
func some[T ~string](names []T) string {
	const most = 8
	var b strings.Builder
	for i, name := range names {
		if i == most {
			b.WriteString(", …")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(clip(string(name)))
	}
	return b.String()
}

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
