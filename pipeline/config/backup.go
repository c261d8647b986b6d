package config

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

var (
	bucketName   = regexp.MustCompile(`^[A-Za-z0-9._-]{3,255}$`)
	bucketFolder = regexp.MustCompile(`^[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*/?$`)
	awsRegion    = regexp.MustCompile(`^[a-z0-9-]+$`)
)

const maxFolderBytes = 255 // so no part is longer than stores on a file system take

func (b Backup) check(p *problems) {
	if b.Bucket == "" {
		p.add("backup.bucket", "missing: where do backups go? Leave the whole block out for none")
	}
	own := Copy{Bucket: b.Bucket, Prefix: b.Prefix, Endpoint: b.Endpoint, Region: b.Region, PathStyle: b.PathStyle}
	own.check(p, "backup")
	b.checkSealing(p)
	b.checkTimes(p)
	checkPatterns(p, "backup.groups", b.Groups)
	checkPatterns(p, "backup.groups_exclude", b.GroupsExclude)
	taken := map[string]string{own.place(): "the bucket that is copied from"}
	for _, name := range sortedKeys(b.Copies) {
		c, path := b.Copies[name], "backup.copies."+name
		if !copyName.MatchString(name) {
			p.add(path, "a copy's name has letters, digits and dashes, 1 to 63 of them")
		}
		if c.Bucket == "" {
			p.add(path+".bucket", "missing: where does the copy go?")
		}
		c.check(p, path)
		switch whose := taken[c.place()]; {
		case c.Bucket == "":
		case whose != "":
			p.add(path, "is %s", whose)
		default:
			taken[c.place()] = "the same bucket and prefix as those of copy " + clip(name)
		}
	}
}

// place makes comparable where a bucket's folder is.
func (c Copy) place() string {
	endpoint := c.Endpoint
	if u, err := parseURL(endpoint); err == nil {
		endpoint = addressOf(u)
	}
	return strings.Join([]string{endpoint, c.Bucket, strings.Trim(c.Prefix, "/")}, " ")
}

var (
	copyName     = regexp.MustCompile(`^[A-Za-z0-9-]{1,63}$`)
	storageClass = regexp.MustCompile(`^[A-Z0-9_]{1,40}$`)
)

// check checks where a bucket is; that there has to be one is the caller's.
func (c Copy) check(p *problems, path string) {
	if c.Bucket != "" && !bucketName.MatchString(c.Bucket) {
		p.add(path+".bucket", "want 3 to 255 letters, digits, dots, underscores and dashes, got %q", clip(c.Bucket))
	}
	if c.Prefix != "" && (len(c.Prefix) > maxFolderBytes || !bucketFolder.MatchString(c.Prefix) || hasDots(c.Prefix)) {
		p.add(path+".prefix", "want names of letters, digits and ._=- between slashes, none first, at most %d bytes, got %q", maxFolderBytes, clip(c.Prefix))
	}
	if c.Region != "" && !awsRegion.MatchString(c.Region) {
		p.add(path+".region", "want lower-case letters, digits and dashes, got %q", clip(c.Region))
	}
	if c.Endpoint != "" {
		c.checkEndpoint(p, path)
	}
	if c.StorageClass != "" && !storageClass.MatchString(c.StorageClass) {
		p.add(path+".storage_class", "want the name of a class such as STANDARD_IA, got %q", clip(c.StorageClass))
	}
}

// setDefaults is called before anything is read into a Backup.
func (b *Backup) setDefaults(string) {
	b.Encryption = encryptions[0]
	b.Keep.Full = 30 * 24 * time.Hour
	b.Keep.Delta, b.Keep.Delta10m, b.Keep.Delta60s = 7*24*time.Hour, 2*24*time.Hour, 24*time.Hour
	b.Keep.Segment = 24 * time.Hour
	b.KeepLast = 3
	b.MaxChain = 48
	b.Groups = []string{"*"}
	b.SampleBytesPerDay = 256 << 20
	b.Schedule.Full = 24 * time.Hour
	b.Schedule.Delta = time.Minute
	b.Schedule.Drill = 24 * time.Hour
	b.Schedule.DrillCopies = 24 * time.Hour
	b.Schedule.Prune = 24 * time.Hour
	b.Schedule.Segment = 3 * time.Second
	b.Schedule.Copy = 5 * time.Minute
}

// encryptions are the known values of Backup.Encryption; the first is the default.
var encryptions = []string{"age", "none"}

func (b Backup) checkSealing(p *problems) {
	oneOf(p, "backup.encryption", b.Encryption, encryptions...)
	switch {
	case b.Encryption == "none" && len(b.Recipients) > 0:
		p.add("backup.recipients", "nothing is encrypted for them while backup.encryption is none")
	case b.Encryption == "age" && len(b.Recipients) == 0:
		p.add("backup.recipients", "missing: which keys are backups encrypted for? Want at least two, an operating key and a recovery key that no node holds; "+
			"make each with: evenkeel keys generate --out FILE. Or set backup.encryption to none: then whoever can read the bucket can read everything")
	case b.Encryption == "age":
		if _, err := seal.NewSealer(b.Recipients); err != nil {
			p.add("backup.recipients", "%s", err)
		}
	}
	if b.IdentityFile != "" && b.IdentityEnv != "" {
		p.add("backup.identity_env", "want identity_file or identity_env, not both")
	}
}

const (
	maxKeepLast = 10_000
	minSchedule = time.Minute
	maxSchedule = 366 * 24 * time.Hour
	minSegment  = 200 * time.Millisecond
	maxSegment  = time.Hour
	minDelta    = 30 * time.Second
	minChain    = 2

	maxSampleBytes = 1 << 50
)

func (b Backup) checkTimes(p *problems) {
	if b.Keep.Full < 0 {
		p.add("backup.keep.full", "want 0s or more, got %s", b.Keep.Full)
	}
	for _, keep := range []struct {
		key string
		age time.Duration
	}{{"delta", b.Keep.Delta}, {"delta_10m", b.Keep.Delta10m}, {"delta_60s", b.Keep.Delta60s}} {
		if keep.age < 0 {
			p.add("backup.keep."+keep.key, "want 0s or more, got %s", keep.age)
		}
	}
	checkEvery(p, "delta", b.Schedule.Delta, minDelta, "none")
	if b.Schedule.Delta != 0 {
		if b.Schedule.Segment == 0 {
			p.add("backup.schedule.delta", "want 0s, or a continuous backup (backup.schedule.segment): it tells what has changed")
		}
		between(p, "backup.max_chain", int64(b.MaxChain), minChain, format.MaxParents, "")
	}
	if b.Keep.Segment < 0 {
		p.add("backup.keep.segment", "want 0s or more, got %s", b.Keep.Segment)
	}
	between(p, "backup.keep_last", int64(b.KeepLast), 1, maxKeepLast, "")
	between(p, "backup.sample_bytes_per_day", b.SampleBytesPerDay, 0, maxSampleBytes, "")
	checkEvery(p, "full", b.Schedule.Full, minSchedule, "backups on demand only")
	checkEvery(p, "drill", b.Schedule.Drill, minSchedule, "drills on demand only")
	checkEvery(p, "drill_copies", b.Schedule.DrillCopies, minSchedule, "drills of copies on demand only")
	checkEvery(p, "prune", b.Schedule.Prune, minSchedule, "prunes on demand only")
	if t := b.Schedule.Segment; t != 0 && (t < minSegment || t > maxSegment) {
		p.add("backup.schedule.segment", "want %s to %s, or 0s for no continuous backup, got %s", minSegment, maxSegment, t)
	}
	checkEvery(p, "copy", b.Schedule.Copy, minSchedule, "copies on demand only")
}

// mostRestorable bounds what RestorableFor says.
const mostRestorable time.Duration = 100 * 365 * 24 * time.Hour

// RestorableFor is how old a state may be to which the region can be restored, as long as backups are made and pruned as
// the configuration says: what any rule keeps, the full backup of before that it may build on, and what it takes until the
// next backup that ages are counted back from, and until the next prune. Where full backups are made only on
// demand nobody knows how old the last of them are, and where prunes are, when anything goes: these are not in it.
func (b Backup) RestorableFor() time.Duration {
	last := mostRestorable
	if full := b.Schedule.Full; full < last/time.Duration(max(1, b.KeepLast)) {
		last = full * time.Duration(b.KeepLast)
	}
	kept := max(b.Keep.Full, b.Keep.Delta, b.Keep.Delta10m, b.Keep.Delta60s, b.Keep.Segment, last, prune.Grace)
	return min(kept, mostRestorable) + 2*b.Schedule.Full + b.Schedule.Prune
}

// HoldsTombstonesFor is how long tombstones of keys that several regions have written have to stay, in all regions, because
// this one may be restored to before them.
func (c *Config) HoldsTombstonesFor() time.Duration {
	if c.Backup == nil {
		return c.Tombstones.Keep
	}
	return max(c.Tombstones.Keep, c.Backup.RestorableFor())
}

// checkEvery checks how often something is done. Never is 0s: an interval that is longer than
// time has been counted has its last slot in the future, and would always be due.
func checkEvery(p *problems, key string, every, least time.Duration, never string) {
	switch {
	case every != 0 && every < least:
		p.add("backup.schedule."+key, "want at least %s, or 0s for %s, got %s", least, never, every)
	case every > maxSchedule:
		p.add("backup.schedule."+key, "want at most 366d, or 0s for %s, got %s", never, every)
	}
}

// SegmentLimits are how long events of each stream wait for their segments; nil: there
// is no continuous backup.
func (c *Config) SegmentLimits() map[events.Stream]time.Duration {
	if c.Backup == nil || c.Backup.Schedule.Segment == 0 {
		return nil
	}
	limits := map[events.Stream]time.Duration{}
	for name, s := range c.Streams {
		limits[name] = cmp.Or(s.Backup.Segment, c.Backup.Schedule.Segment)
	}
	return limits
}

// exampleRecipients stand in example.yaml and in the README. Nobody has their
// identities: what is sealed for them is lost.
var exampleRecipients = []string{
	"age1765utfnlhrlxy2m0u3majhnhw4zl7a89gcpww0l8dg77frsvj5sqcxxakk",
	"age1dv0ql64pnkqghr3jeudlnt32dkqx4tyyd6x0ss2yz3rlk0zjtv9qmvmn8p",
}

// Sealer seals backups as configured.
func (b Backup) Sealer() (*seal.Sealer, error) {
	if b.Encryption == "none" {
		return seal.None(), nil
	}
	for _, r := range b.Recipients {
		if slices.Contains(exampleRecipients, r) {
			return nil, events.Errorf(events.KindRefused, "backup.recipients: %s is that of the example, to which nobody has the identity; make your own with: evenkeel keys generate --out FILE", r)
		}
	}
	s, err := seal.NewSealer(b.Recipients)
	if err != nil {
		return nil, events.Errorf(events.KindInvalid, "backup.recipients: %w", err)
	}
	return s, nil
}

// Opener opens the region's backups: with what is given, or, if that is nil, as is configured.
func (c *Config) Opener(given *seal.Opener) (*seal.Opener, error) {
	if given != nil || c.Backup == nil {
		return given, nil
	}
	return c.Backup.Opener()
}

// Opener opens backups with the configured identity, which is read anew. Without one
// it opens what is not sealed. No error holds any part of an identity.
func (b Backup) Opener() (*seal.Opener, error) {
	switch {
	case b.IdentityFile != "":
		return ReadIdentity(b.IdentityFile)
	case b.IdentityEnv == "":
		return nil, nil
	case b.Identity == "":
		return nil, events.Errorf(events.KindInvalid, "backup.identity_env: the variable %s is not set, or empty", clip(b.IdentityEnv))
	}
	return seal.NewOpener("the variable "+clip(b.IdentityEnv), b.Identity.Reveal())
}

func (c Copy) checkEndpoint(p *problems, of string) {
	path := of + ".endpoint"
	switch u, err := parseURL(c.Endpoint); {
	case err != nil:
		p.add(path, "%s", err)
	case strings.Trim(u.Path, "/") != "":
		p.add(path, "want only scheme, host and port; bucket and folder have keys of their own")
	case isIPAddress(u.Hostname()) && !c.PathStyle:
		p.add(path, "is an IP address, which needs %s.path_style to be true", of)
	}
}

// hasDots tells of "." and "..", which some stores take for directories.
func hasDots(folder string) bool {
	return slices.ContainsFunc(strings.Split(folder, "/"), func(s string) bool { return s == "." || s == ".." })
}
