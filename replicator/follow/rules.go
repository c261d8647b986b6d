package follow

import (
	"errors"
	"maps"
	"slices"

	"github.com/evenkeel/evenkeel/events"
)

// class says who decides about a topic config of a mirror.
type class int

const (
	// local configs are the destination's own: not followed, set only by an
	// override. So is every config without a rule, such as a vendor's.
	local class = iota
	// followed configs are what they are at the source, nothing else.
	followed
	// overridable configs are followed unless the operator overrides them.
	overridable
	// forced configs have one right value at a mirror, whatever the source has.
	forced
)

// manner says what "as at the source" means for a followed config.
type manner int

const (
	// explicit: a value that is set at the source's topic is set at the mirror's;
	// one that is not is left to the destination's default.
	explicit manner = iota
	// effective: what holds at the source holds at the mirror, also where it comes
	// from a default of the source's brokers.
	effective
	// atLeast: like effective, for sizes; the mirror's is raised, never lowered.
	atLeast
)

// rule is what happens to one topic config.
type rule struct {
	class  class
	manner manner
	value  string // of a forced config
	reason string
}

// noLimit is the greatest value of a config that is a long.
const noLimit = "9223372036854775807"

// rules are the topic configs that the pass has an opinion on.
var rules = map[string]rule{
	"cleanup.policy": {class: followed, manner: effective,
		reason: "a mirror that compacts, or does not, against its log loses or keeps other records than it"},
	"max.message.bytes": {class: followed, manner: atLeast,
		reason: "a batch is as large at the mirror as at the source; after the source lowers it, larger ones may still wait to be copied"},
	"delete.retention.ms":       {class: followed, reason: "how long a consumer of the mirror may take to see a tombstone"},
	"min.compaction.lag.ms":     {class: followed, reason: "how long every record stays readable"},
	"max.compaction.lag.ms":     {class: followed, reason: "by when old values must be gone, often a promise about personal data"},
	"min.cleanable.dirty.ratio": {class: followed, reason: "when compaction runs"},

	"retention.ms": {class: overridable, manner: effective,
		reason: "consumers that move to the mirror expect the same past; some regions keep less, or more"},
	"retention.bytes":                         {class: overridable, manner: effective, reason: "as retention.ms"},
	"segment.bytes":                           {class: overridable, reason: "granularity of retention and compaction"},
	"segment.ms":                              {class: overridable, reason: "granularity of retention and compaction"},
	"segment.jitter.ms":                       {class: overridable, reason: "spreads the rolling of segments"},
	"segment.index.bytes":                     {class: overridable, reason: "a matter of the brokers' disks"},
	"index.interval.bytes":                    {class: overridable, reason: "a matter of the brokers' disks"},
	"file.delete.delay.ms":                    {class: overridable, reason: "a matter of the brokers' disks"},
	"flush.messages":                          {class: overridable, reason: "durability that the topic's owner asked for"},
	"flush.ms":                                {class: overridable, reason: "durability that the topic's owner asked for"},
	"preallocate":                             {class: overridable, reason: "a matter of the brokers' disks"},
	"compression.gzip.level":                  {reason: "without effect: a mirror's broker compresses nothing"},
	"compression.lz4.level":                   {reason: "without effect: a mirror's broker compresses nothing"},
	"compression.zstd.level":                  {reason: "without effect: a mirror's broker compresses nothing"},
	"min.insync.replicas":                     {reason: "fits the number of replicas, which is the destination's own"},
	"remote.storage.enable":                   {reason: "tiered storage is the destination's own, and cannot be set where there is none"},
	"remote.log.copy.disable":                 {reason: "as remote.storage.enable"},
	"remote.log.delete.on.disable":            {reason: "as remote.storage.enable"},
	"local.retention.ms":                      {reason: "as remote.storage.enable"},
	"local.retention.bytes":                   {reason: "as remote.storage.enable"},
	"leader.replication.throttled.replicas":   {reason: "names brokers of the source"},
	"follower.replication.throttled.replicas": {reason: "names brokers of the source"},
	"message.format.version":                  {reason: "deprecated, and a mirror never converts"},
	"message.downconversion.enable":           {reason: "about the destination's consumers"},

	"compression.type": {class: forced, value: "producer",
		reason: "with any other the broker decompresses and recompresses every batch: no longer the same bytes"},
	"message.timestamp.type": {class: forced, value: "CreateTime",
		reason: "with LogAppendTime the broker overwrites the records' timestamps"},
	"message.timestamp.before.max.ms": {class: forced, value: noLimit,
		reason: "the broker would refuse records that are old when they are copied"},
	"message.timestamp.after.max.ms": {class: forced, value: noLimit,
		reason: "what the source has accepted must be accepted; the default became one hour in Kafka 4.0"},
	"message.timestamp.difference.max.ms": {class: forced, value: noLimit,
		reason: "name of the former two before Kafka 3.6"},
	"unclean.leader.election.enable": {class: forced, value: "false",
		reason: "an unclean leader drops acknowledged records, after which the mirror is no prefix of its log"},
}

// ValidateOverrides reports every override that would make a mirror something
// else than a copy.
func ValidateOverrides(overrides map[string]string) error {
	var mistakes []error
	for _, key := range slices.Sorted(maps.Keys(overrides)) {
		switch r := rules[key]; r.class {
		case forced:
			mistakes = append(mistakes, events.Errorf(events.KindInvalid, "override of %s: it is always %s at a mirror: %s", key, r.value, r.reason))
		case followed:
			mistakes = append(mistakes, events.Errorf(events.KindInvalid, "override of %s: it always follows the source: %s", key, r.reason))
		case local, overridable:
		}
		if key == "" {
			mistakes = append(mistakes, events.Errorf(events.KindInvalid, "override without a name"))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return events.Errorf(events.KindInvalid, "%w", err)
	}
	return nil
}
