package config

import (
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// Config describes one node of one region. Fields carry the name of their key
// in the file as tag.
type Config struct {
	// Region is the region that this node belongs to, one of Regions. Required.
	Region events.Region `yaml:"region"`

	// DataDir is the directory of this node's state and restores, on a disk of
	// its own if possible. No two processes may share one. Required.
	DataDir string `yaml:"data_dir"`

	// Partitions is the partition count of every stream's log and mirrors, and
	// so the number of shards; 1 to 1024, default 4. The same in every region.
	// It can not be changed later: keys would move to other partitions and the
	// order of their events would be lost.
	Partitions int32 `yaml:"partitions"`

	// Deployment names this deployment, the same in every region, where another one uses the
	// same Kafka cluster in any of them: it then has topics of attestations of its own. Letters,
	// digits, dots, underscores and dashes. Default: none, for deployments that have their
	// clusters to themselves. A named one needs a Group of its own, too.
	Deployment string `yaml:"deployment"`

	// Group is the id of the consumer group that this region's nodes form,
	// default "evenkeel": the same on all of them. Letters, digits, dots,
	// underscores and dashes. Nodes under a changed one do the others' work a
	// second time; no state is lost, since committed offsets are only for tools.
	Group string `yaml:"group"`

	// GroupProtocol is how the group shares out shards: "classic" (default), in which
	// the node says how soon it is missed (10 s), or "consumer" (KIP-848, Kafka 4), in
	// which the brokers say so (group.consumer.session.timeout.ms, 45 s unless changed).
	// Brokers that lack it give the classic one. The same on all nodes of a region.
	GroupProtocol string `yaml:"group_protocol"`

	// API is this node's own HTTP server.
	API API `yaml:"api"`

	// Streams are the families of events kept recoverable; the same in every
	// region. Default: session, registry, config, secrets and metrics, each with
	// its defaults. Streams given in the file replace these five.
	Streams map[events.Stream]Stream `yaml:"streams"`

	// Models are the read models to be kept, by name; see package projections. The
	// entries of one that is not among them any more are removed. Default:
	// event-counts alone, which costs next to nothing; an index of views nearly
	// doubles the cost of an event of its stream.
	Models []string `yaml:"models"`

	// Regions are all regions of the deployment, this one and its peers; the
	// same in every region. At least one, at most events.MaxContextOrigins.
	Regions map[events.Region]Region `yaml:"regions"`

	// Backup says where backups of this region go; nil: nowhere, and what needs
	// them answers "not configured".
	Backup *Backup `yaml:"backup"`

	// Restore says how a node takes shards out of backups.
	Restore Restore `yaml:"restore"`

	// Links are what the links from the other regions mirror into this one.
	Links Links `yaml:"links"`

	// Tombstones are what deletes leave behind.
	Tombstones Tombstones `yaml:"tombstones"`

	Log    Log    `yaml:"log"`
	Limits Limits `yaml:"limits"`
}

// API is the node's HTTP server.
type API struct {
	// Listen is the host:port to listen on, default 127.0.0.1:7400. With port 0
	// the system chooses one. Hosts other than loopback need AllowRemote.
	Listen string `yaml:"listen"`

	// AllowRemote permits to listen where other machines can connect. The API has
	// neither TLS nor authentication yet: whoever connects can read and write
	// everything, so something else has to guard it. Default false.
	AllowRemote bool `yaml:"allow_remote"`

	// Advertise is the URL under which the region's other nodes reach this one,
	// default that of Listen, if that names a single address. A region with one node
	// does not need it.
	Advertise string `yaml:"advertise"`

	// MaxBodyBytes is the largest body of a request, 1 KiB to 256 MiB, default
	// 8 MiB. A request may need it in memory.
	MaxBodyBytes int64 `yaml:"max_body_bytes"`
}

// Stream is one family of events.
type Stream struct {
	// Topic is the topic of the stream's log in every region, default the
	// stream's name. A changed one is another, empty log.
	Topic string `yaml:"topic"`

	// Merge is the name of the merge rule, default "lww"; see package
	// projections. A changed one needs all slices folded anew, in all regions at
	// once: meanwhile regions differ.
	Merge string `yaml:"merge"`

	// Secret says that commands which compare values do not show them. Default true
	// for a stream named secrets, else false.
	Secret bool `yaml:"secret"`

	Backup StreamBackup `yaml:"backup"`
}

// StreamBackup is what is different in the backup of a stream.
type StreamBackup struct {
	// Segment is how long one of the stream's events waits at most, once it was read,
	// until the segment that it is in is closed: at least 200ms; 0s (default): as
	// Schedule.Segment says. Default for a stream named secrets: 1s.
	Segment time.Duration `yaml:"segment"`
}

// Region is what this node has to know of a region.
type Region struct {
	// Incarnation counts, from 1 (the default), how often the region has lost its
	// logs for good and begun new ones. Raise it then, everywhere, and when a region
	// comes back that was taken out of the others' configuration, and only then:
	// a new one starts new mirrors, and an old one on new logs would take their
	// offsets for those of the lost ones. Of a region that comes back with its old logs
	// deletes would be undone: the others did not wait for it to know of them.
	Incarnation uint32 `yaml:"incarnation"`

	// API is the URL under which clients and peers reach the region's API.
	// Required for peers; default for the own region: that of API.Listen, if that
	// names a single address (else empty if its port is 0).
	API string `yaml:"api"`

	Kafka Kafka `yaml:"kafka"`
}

// Kafka is how to reach a region's Kafka cluster.
type Kafka struct {
	// Seeds are brokers to ask first, as host:port; at least one. No other region
	// may have the same one: mirrors would loop.
	Seeds []string `yaml:"seeds"`

	TLS  TLS  `yaml:"tls"`
	SASL SASL `yaml:"sasl"`
}

// TLS is how connections to Kafka are encrypted: TLS 1.2 or later. All files
// are in PEM.
type TLS struct {
	// Enabled is false by default. The other fields need it.
	Enabled bool `yaml:"enabled"`

	// CAFile holds the authorities to trust; empty: those of the system.
	CAFile string `yaml:"ca_file"`

	// CertFile and KeyFile are this client's certificate; both or none.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`

	// ServerName is the name expected in the brokers' certificates; empty: that
	// of the host connected to.
	ServerName string `yaml:"server_name"`
}

// SASL is how connections to Kafka are authenticated; without a Mechanism they
// are not.
type SASL struct {
	// Mechanism is "plain", "scram-sha-256" or "scram-sha-512". Plain sends the
	// password as it is: use it with TLS.
	Mechanism string `yaml:"mechanism"`

	Username string `yaml:"username"`

	// PasswordFile and PasswordEnv say where the password is: exactly one of
	// them. A line end at the end of the file is not part of the password. The
	// file is read anew for each connection, so the password may be changed while
	// the node runs.
	PasswordFile string `yaml:"password_file"`
	PasswordEnv  string `yaml:"password_env"`

	// Password is the value of PasswordEnv; put in by Load, no key of the file.
	Password Secret `yaml:"-"`
}

// Backup is the bucket to which this region's backups go. Credentials come from
// the environment, the way of the AWS tools.
type Backup struct {
	// Bucket is the bucket's name. Required.
	Bucket string `yaml:"bucket"`

	// Prefix is the folder within the bucket, default none. Backups under another
	// prefix are not seen.
	Prefix string `yaml:"prefix"`

	// Endpoint is the URL of the store: scheme, host and port; empty: AWS.
	Endpoint string `yaml:"endpoint"`

	// Region is the region that requests are signed for, default the node's.
	Region string `yaml:"region"`

	// PathStyle puts the bucket into the path of URLs instead of the host name, as
	// most stores other than AWS need it. Default false.
	PathStyle bool `yaml:"path_style"`

	// Encryption is "age" (default) or "none": then whoever can read the bucket can
	// read all values.
	Encryption string `yaml:"encryption"`

	// Recipients are the keys that backups are sealed for ("age1…"), at least two:
	// an operating key and a recovery key that no node holds. Any one opens them.
	Recipients []string `yaml:"recipients"`

	// IdentityFile and IdentityEnv say where the secret half of one of the keys is
	// (AGE-SECRET-KEY-…), at most one of them. A node needs it to restore, not to
	// back up. The file is read anew for each restore.
	IdentityFile string `yaml:"identity_file"`
	IdentityEnv  string `yaml:"identity_env"`

	// Identity is the value of IdentityEnv; put in by Load, no key of the file.
	Identity Secret `yaml:"-"`

	// Keep says how long backups are kept, counted back from the newest; older ones
	// are deleted by a prune (Schedule.Prune), and by nothing else.
	Keep Keep `yaml:"keep"`

	// KeepLast is how many of the newest full backups are kept however old they are, 1
	// to 10000, default 3.
	KeepLast int `yaml:"keep_last"`

	// MaxChain is how many backups a delta may build on, 2 to 1000, default 48: one that
	// would build on more is not made, but a full backup.
	MaxChain int `yaml:"max_chain"`

	// Groups are patterns of consumer groups whose committed offsets for the streams'
	// logs and mirrors go with each backup, so that "restore kafka" can give them back;
	// as Links.Groups. Default "*": all. The nodes' own group never is.
	Groups []string `yaml:"groups"`

	// GroupsExclude are patterns of groups that Groups does not mean.
	GroupsExclude []string `yaml:"groups_exclude"`

	// SampleBytesPerDay is how much of the bucket a node looks at between drills, object by object: at
	// hashes, and at what is in them if it can open them. Default 256 MiB, at most 1 PiB; each object counts for 64 KiB at
	// least. Whether any are missing is looked at as well. 0: neither.
	SampleBytesPerDay int64 `yaml:"sample_bytes_per_day"`

	// Schedule says when a node makes backups by itself.
	Schedule Schedule `yaml:"schedule"`

	// Copies are further buckets that get all backups and segments too, of other
	// regions say, by names of your own. They are read with --copy NAME, and pruned
	// as the bucket is.
	Copies map[string]Copy `yaml:"copies"`
}

// Copy is a bucket with a copy of a region's backups. The credentials are those of the
// first bucket.
type Copy struct {
	// Bucket, Prefix, Endpoint, Region and PathStyle are as of a Backup; Region is by
	// default that of the first bucket.
	Bucket    string `yaml:"bucket"`
	Prefix    string `yaml:"prefix"`
	Endpoint  string `yaml:"endpoint"`
	Region    string `yaml:"region"`
	PathStyle bool   `yaml:"path_style"`

	// StorageClass is the class of storage for tables, e.g. STANDARD_IA, GLACIER_IR or
	// DEEP_ARCHIVE, default the bucket's usual one. What is small stays in the usual
	// one, so that a copy can be listed and pruned. Out of classes that archive,
	// backups are to be thawed before they can be restored.
	StorageClass string `yaml:"storage_class"`
}

// Keep says how long each kind of backup is kept.
type Keep struct {
	// Full backups: default 30d. 0s: only those that KeepLast keeps, and those that the
	// points in time of Segment are restored from, which stay in any case.
	Full time.Duration `yaml:"full"`

	// Deltas by how far apart those are that build on each other: Delta those of an
	// hour or more, default 7d; Delta10m those of ten minutes, default 2d; Delta60s
	// the rest, default 1d. What any backup builds on that is kept stays as well.
	Delta    time.Duration `yaml:"delta"`
	Delta10m time.Duration `yaml:"delta_10m"`
	Delta60s time.Duration `yaml:"delta_60s"`

	// Segment is for how long points in time can be restored, counted back from the
	// newest backup: default 1d. Segments go that are older than the full backup which
	// the oldest of these points is restored from. 0s: only points since the newest.
	Segment time.Duration `yaml:"segment"`
}

// Schedule says how often each kind of backup is made.
type Schedule struct {
	// Full backups: default 24h, 1m to 366d, as all of these. 0s: only on demand.
	Full time.Duration `yaml:"full"`

	// Delta is how often what has changed since the last backup is backed up: default
	// 60s, at least 30s. 0s: never.
	Delta time.Duration `yaml:"delta"`

	// Drill is how often the newest state, and that of a random time, are restored to a
	// scratch place below the data directory, proved, and deleted again: default 24h, at least 1m. 0s: only on
	// demand. A node that cannot open backups drills none.
	Drill time.Duration `yaml:"drill"`

	// DrillCopies is how often one of the Copies is drilled likewise, each in its turn: with three of them each
	// is every third time, so that what drills cost does not grow with their number. Default 24h, at least 1m. 0s, or
	// a Drill of 0s: only on demand. What is archived is not thawed for it, and not drilled.
	DrillCopies time.Duration `yaml:"drill_copies"`

	// Prune is how often backups and segments are deleted that are not kept, in the bucket
	// and in its copies: default 24h, half an interval after full backups, at least 1m. 0s: only on demand.
	Prune time.Duration `yaml:"prune"`

	// Segment is the continuous backup: how long an event waits at most, once it was
	// read, until the segment that it is in is closed and goes to the bucket. Default
	// 3s, so that it is there within 5s, on a busy machine too; at least 200ms. 0s: no
	// continuous backup.
	Segment time.Duration `yaml:"segment"`

	// Copy is how often Copies are brought up to date: default 5m, at least 1m. 0s:
	// only on demand.
	Copy time.Duration `yaml:"copy"`
}

// Restore is how a node takes shards out of backups.
type Restore struct {
	// Instant has a node serve and fold a shard at once, reading the tables where they
	// are in the bucket, while it brings them here and then proves them. Default true.
	// False: a shard is served once all of it is here and proved.
	Instant bool `yaml:"instant"`

	// InstantFromBytes is how much a shard holds at least for that, 0 or more, default
	// 64 MiB: what is smaller is here and proved as soon.
	InstantFromBytes int64 `yaml:"instant_from_bytes"`
}

// Tombstones are what deletes leave behind, so that older writes of other regions do
// not bring the deleted back.
type Tombstones struct {
	// Keep is how old a tombstone is at least before it is collected, by the clock of
	// the delete and the time of its record; 1s to 87600h, default 24h; 0: never. It is collected only if every
	// region has folded it, and has said so lately, and no region holds anything under the key. What another
	// region holds that it has hidden for so long is made a tombstone by that region. Tombstones of a key
	// that several regions have written are kept as long as states of before can be restored in any region
	// (Config.HoldsTombstonesFor), if that is longer. A write whose clock is older than the delete
	// and that comes after that is seen again, in all regions alike.
	Keep time.Duration `yaml:"keep"`
}

// Log is what the process writes to standard error.
type Log struct {
	// Level is "debug", "info" (default), "warn" or "error".
	Level string `yaml:"level"`

	// Format is "text" (default) or "json".
	Format string `yaml:"format"`
}

// Limits protect the node and what depends on it.
type Limits struct {
	// MinFreeBytes of the disk of DataDir are kept free: what would use them is
	// refused or paused. Default 256 MiB; 0: no check.
	MinFreeBytes int64 `yaml:"min_free_bytes"`

	// MaxValueBytes is the largest value of one event written through the API, 1
	// to events.MaxValueBytes, default 1,000,000. Brokers have their own limit
	// (message.max.bytes, about 1 MiB by default): raise that first, in all
	// regions, or the mirrors of larger events stop. API.MaxBodyBytes is to be a third
	// larger and 64 KiB, at least.
	MaxValueBytes int64 `yaml:"max_value_bytes"`

	// MaxBatchBytes is how many bytes the records of one batch in a log may have once they are
	// decompressed, 32 MiB to 1 GiB, default 128 MiB. What the client makes of them (200 bytes
	// for a record, 40 for a header) may come to twice as much besides. A log with a larger one
	// is folded and archived up to there; set the same in all regions. A node needs a few times as
	// much memory.
	MaxBatchBytes int64 `yaml:"max_batch_bytes"`

	// MaxClockSkew is how far ahead of this node's clock the clock of an event may be
	// that a caller stamped, 1s to events.MaxFoldSkew, default 1m; and how far this
	// node's own readings follow those of others.
	MaxClockSkew time.Duration `yaml:"max_clock_skew"`

	// StopTimeout bounds a graceful stop, 1s to 10m, default 10s; what is not done
	// by then is left to the next start.
	StopTimeout time.Duration `yaml:"stop_timeout"`
}

// DefaultGroup is the consumer group of nodes that are not told another.
const DefaultGroup = "evenkeel"

const defaultMerge = "lww"

// Values of Config.GroupProtocol.
const (
	GroupClassic  = "classic"
	GroupConsumer = "consumer"
)

// Default is the configuration of an empty file: not valid yet, since it has no
// Region, DataDir and Regions.
func Default() Config {
	return Config{
		Partitions:    4,
		Group:         "evenkeel",
		GroupProtocol: GroupClassic,
		API:           API{Listen: "127.0.0.1:7400", MaxBodyBytes: 8 << 20},
		Streams:       defaultStreams(),
		Models:        []string{"event-counts"},
		Restore:       Restore{Instant: true, InstantFromBytes: 64 << 20},
		Links:         Links{WindowBytes: defaultWindowBytes},
		Tombstones:    Tombstones{Keep: 24 * time.Hour},
		Log:           Log{Level: "info", Format: "text"},
		Limits:        Limits{MinFreeBytes: 256 << 20, MaxValueBytes: 1_000_000, MaxBatchBytes: DefaultBatchBytes, MaxClockSkew: events.MaxClockSkew, StopTimeout: 10 * time.Second},
	}
}

// AttestationTopic is where a region of the deployment attests its logs.
func (c *Config) AttestationTopic() string {
	if c.Deployment == "" {
		return divergence.Topic
	}
	return divergence.Topic + "." + c.Deployment
}

func defaultStreams() map[events.Stream]Stream {
	streams := map[events.Stream]Stream{}
	for _, name := range []events.Stream{"session", "registry", "config", "secrets", "metrics"} {
		var s Stream
		s.setDefaults(string(name))
		streams[name] = s
	}
	return streams
}

// setDefaults is called by the decoder for each new entry of a map.
func (s *Stream) setDefaults(name string) {
	*s = Stream{Topic: name, Merge: defaultMerge}
	if name == secretsStream {
		s.Secret = true
		s.Backup.Segment = time.Second
	}
}

// secretsStream is a stream whose losses hurt most.
const secretsStream = "secrets"

func (r *Region) setDefaults(string) { r.Incarnation = 1 }

// Own is this node's region.
func (c *Config) Own() Region { return c.Regions[c.Region] }

// Origin is the origin of what is written in region r from now on.
func (c *Config) Origin(r events.Region) events.Origin {
	return events.Origin{Region: r, Incarnation: c.Regions[r].Incarnation}
}

// TopicOf is the topic of the region's cluster that holds a log.
func (c *Config) TopicOf(l events.Log) string {
	topic := c.Streams[l.Stream].Topic
	if l.Origin.Region == c.Region {
		return topic
	}
	return l.Origin.MirrorTopic(topic)
}

// Peers names the other regions, in order.
func (c *Config) Peers() []events.Region {
	return slices.DeleteFunc(sortedKeys(c.Regions), func(r events.Region) bool { return r == c.Region })
}

// StreamNames names the streams, in order.
func (c *Config) StreamNames() []events.Stream { return sortedKeys(c.Streams) }
