// Package follow keeps everything of a link around its data in step with the
// source: topics and their partition counts, topic configs, ACLs and the offsets
// of consumer groups; and it selects topics and groups by patterns.
//
// Topics, ACLs and Groups are passes: each reads both clusters, makes the
// destination as the source is, tells in its report what it did and what it could
// not do, and keeps nothing. A pass that is repeated without changes at the source
// alters nothing; one that was interrupted is finished by the next. A pass returns
// an error if it could not look at a cluster; what concerns one topic or group is in
// the report and never stops the others, and a binding that fails stops only those
// that would be too wide without it. Passes do not wait: a mirror
// made a moment ago may be missing from the brokers' metadata, and is then done
// next time.
//
// What is guaranteed: a mirror never gets fewer partitions; none of its configs
// lets the destination change, refuse or elect away what is copied (rules.go says
// which and why). ACLs touch nothing but bindings on mirrors' names, and let nobody
// but the link write there. A group's offset never goes back, is never past the
// mirror's end nor before its start, and carries no leader epoch.
//
// What is not: Kafka has no conditional commit. A consumer that joins a group,
// commits and leaves it between a pass's look at the group and its commit, some
// milliseconds, loses that progress and reads those records again. A group with
// members is safe from it: the broker refuses the commit.
//
// The functions are safe for concurrent use by any goroutine, but two passes of
// one kind for one link must not run at once.
package follow
