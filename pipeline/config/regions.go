package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
)

func (c *Config) checkRegions(p *problems) {
	if len(c.Regions) == 0 {
		p.add("regions", "missing: want at least this node's own")
	}
	if len(c.Regions) > events.MaxContextOrigins {
		p.add("regions", "%d regions: want at most %d", len(c.Regions), events.MaxContextOrigins)
		return
	}
	apis := map[string]events.Region{}
	seeds := map[string]events.Region{}
	for _, name := range sortedKeys(c.Regions) {
		path, r := child("regions", string(name)), c.Regions[name]
		if err := name.Validate(); err != nil {
			p.add(path, "%s", err)
		}
		if r.Incarnation == 0 {
			p.add(path+".incarnation", "want 1 or more, got 0")
		}
		c.checkRegionAPI(p, path+".api", name, apis)
		checkSeeds(p, path+".kafka.seeds", name, r.Kafka.Seeds, seeds)
		r.Kafka.TLS.check(p, path+".kafka.tls")
		r.Kafka.SASL.check(p, path+".kafka.sasl")
	}
}

// checkRegionAPI also sees that no region in taken has the same address.
func (c *Config) checkRegionAPI(p *problems, path string, name events.Region, taken map[string]events.Region) {
	text := c.Regions[name].API
	if text == "" {
		c.checkNoRegionAPI(p, path, name)
		return
	}
	u, err := parseURL(text)
	if err != nil {
		p.add(path, "%s", err)
		return
	}
	address := addressOf(u)
	if other, twice := taken[address]; twice {
		p.add(path, "region %s has the same address", other)
		return
	}
	taken[address] = name
}

// checkNoRegionAPI sees whether a region can do without a URL.
func (c *Config) checkNoRegionAPI(p *problems, path string, name events.Region) {
	host, ok := splitListen(c.API.Listen)
	_, ownIsKnown := c.Regions[c.Region]
	switch {
	case !ownIsKnown: // then it may be this one
	case name != c.Region:
		p.add(path, "missing: under which URL do clients and peers reach region %s?", clip(string(name)))
	case ok && isEverywhere(host):
		p.add(path, "missing: api.listen (%q) means all addresses of this machine; under which URL do clients and peers reach it?", c.API.Listen)
	}
}

// checkSeeds also sees that no region in taken has the same seed.
func checkSeeds(p *problems, path string, name events.Region, seeds []string, taken map[string]events.Region) {
	if len(seeds) == 0 {
		p.add(path, "missing: want at least one broker as host:port")
	}
	for i, seed := range seeds {
		at := indexed(path, i)
		address, ok := parseSeed(seed)
		other, twice := taken[address]
		switch {
		case !ok && strings.Contains(seed, "@"):
			p.add(at, "want host:port, without name and password")
		case !ok:
			p.add(at, "want host:port, got %q", clip(seed))
		case twice && other == name:
			p.add(at, "%s is given twice", seed)
		case twice:
			p.add(at, "%s is a seed of region %s too: each region needs a Kafka cluster of its own, for with one cluster mirrors would be mirrored again, without end", seed, other)
		default:
			taken[address] = name
		}
	}
}

func (t TLS) check(p *problems, path string) {
	if !t.Enabled {
		t.checkUnused(p, path)
		return
	}
	if t.CAFile != "" {
		if _, err := readAuthorities(t.CAFile); err != nil {
			p.add(path+".ca_file", "%s", err)
		}
	}
	certOK := checkReadable(p, path+".cert_file", t.CertFile)
	keyOK := checkReadable(p, path+".key_file", t.KeyFile)
	switch {
	case t.CertFile == "" && t.KeyFile != "":
		p.add(path+".cert_file", "missing: key_file needs it")
	case t.CertFile != "" && t.KeyFile == "":
		p.add(path+".key_file", "missing: cert_file needs it")
	case certOK && keyOK:
		if _, err := readCertificate(t.CertFile, t.KeyFile); err != nil {
			p.add(path+".cert_file", "%s", err)
		}
	}
}

// checkUnused refuses what suggests encryption where there is none.
func (t TLS) checkUnused(p *problems, path string) {
	if p.failed[path+".enabled"] {
		return
	}
	for _, f := range []struct{ key, value string }{
		{"ca_file", t.CAFile}, {"cert_file", t.CertFile}, {"key_file", t.KeyFile}, {"server_name", t.ServerName},
	} {
		if f.value != "" {
			p.add(path+"."+f.key, "without effect: connections are not encrypted unless tls.enabled is true")
		}
	}
}

func checkReadable(p *problems, path, file string) bool {
	if file == "" {
		return false
	}
	_, err := readAgain(file)
	if err != nil {
		p.add(path, "%s", err)
	}
	return err == nil
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (s SASL) check(p *problems, path string) {
	if s.Mechanism == "" {
		if s != (SASL{}) {
			p.add(path+".mechanism", "missing: want one of %s", strings.Join(mechanisms, ", "))
		}
		return
	}
	if !slices.Contains(mechanisms, s.Mechanism) {
		p.add(path+".mechanism", "want one of %s, got %q", strings.Join(mechanisms, ", "), clip(s.Mechanism))
	}
	if s.Username == "" {
		p.add(path+".username", "missing: mechanism %s needs it", clip(s.Mechanism))
	}
	inEnv := s.PasswordEnv != "" || s.Password != ""
	switch {
	case s.PasswordFile != "" && inEnv:
		p.add(path, "want one of password_file and password_env, got both")
	case s.PasswordFile != "":
		if _, err := s.password(); err != nil {
			p.add(path+".password_file", "%s", err)
		}
	case !inEnv:
		p.add(path, "no password: say where it is with password_file or password_env")
	case s.PasswordEnv != "" && !variableName.MatchString(s.PasswordEnv):
		// Not quoted: it may be the password itself.
		p.add(path+".password_env", "want the name of an environment variable: letters, digits and underscores")
	default:
		if _, err := s.password(); err != nil {
			p.add(path+".password_env", "%s", err)
		}
	}
}
