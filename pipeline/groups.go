package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/replicator/follow"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

const (
	groupsPerRequest = 200 // whose offsets are asked for at once

	// groupsPatience is how long a backup waits for the offsets of groups. It is made
	// without them rather than not at all.
	groupsPatience = 10 * time.Second
)

// consumerGroups are the groups whose offsets go with backups.
func consumerGroups(cfg *config.Config) (follow.Patterns, error) {
	groups, err := follow.NewPatterns(cfg.Backup.Groups, cfg.Backup.GroupsExclude)
	if err != nil {
		return groups, fmt.Errorf("backup.groups: %w", err)
	}
	return groups, nil
}

// groupsFor are the offsets of consumer groups for a backup that is begun. What cannot be
// had is told, and no reason to make no backup.
func (r *Region) groupsFor(ctx context.Context) *format.Groups {
	ctx, cancel := context.WithTimeout(ctx, groupsPatience)
	defer cancel()
	offsets, err := r.groupOffsets(ctx)
	var groups *format.Groups
	if err == nil {
		groups, err = snapshotter.SealGroups(r.backups.sealer, offsets)
	}
	r.backups.haveGroups(err)
	if err != nil {
		r.log.Warn("a backup goes without offsets of consumer groups", "error", err)
	}
	return groups
}

// groupOffsets reads what consumer groups have committed for logs and mirrors, under the
// offsets of the logs.
func (r *Region) groupOffsets(ctx context.Context) (offsets []format.GroupOffset, err error) {
	selected, err := consumerGroups(r.cfg)
	if err != nil || selected.Empty() {
		return nil, err
	}
	admin := kadm.NewClient(r.producer)
	names, err := r.groupNames(ctx, admin, selected)
	if err != nil {
		return nil, err
	}
	for chunk := range slices.Chunk(names, groupsPerRequest) {
		fetched := admin.FetchManyOffsets(ctx, chunk...)
		for _, name := range chunk {
			answer, ok := fetched[name]
			if !ok {
				answer.Err = errors.New("no broker has answered for it")
			}
			more, err := r.groupOffsetsOf(ctx, name, answer)
			if err != nil {
				return nil, err
			}
			offsets = append(offsets, more...)
		}
	}
	slices.SortFunc(offsets, func(a, b format.GroupOffset) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), a.Log.Compare(b.Log))
	})
	return offsets, nil
}

// groupNames are the groups that are selected. Brokers list, without a word, only those that a
// node may see: so groups that are named are asked about whether they are listed or not, and
// where no group can be seen at all that is an error. Groups of a broker that does not answer are
// missing, whatever others list.
func (r *Region) groupNames(ctx context.Context, admin *kadm.Client, selected follow.Patterns) ([]string, error) {
	listed, err := admin.ListGroupsByType(ctx, []string{"classic", "consumer"})
	if err != nil {
		return nil, fmt.Errorf("list consumer groups of %s: %w", r.cfg.Region, err)
	}
	seen := slices.DeleteFunc(slices.Concat(listed.Groups(), selected.Literals()), func(name string) bool { return name == "" || name == r.cfg.Group })
	if len(seen) == 0 && r.seesFewGroups(ctx) {
		return nil, events.Errorf(events.KindRefused, "no consumer group of %s can be seen but that of the nodes: there is no other, or they may not DESCRIBE it "+
			"(and if no group's offsets are wanted: backup.groups: [])", r.cfg.Region)
	}
	slices.Sort(seen)
	return slices.DeleteFunc(slices.Compact(seen), func(name string) bool { return !selected.Match(name) }), nil
}

// seesFewGroups reports whether the cluster lists only those groups that the node was given a right to, one
// by one or by prefix. A cluster that does not say so is taken to list all.
func (r *Region) seesFewGroups(ctx context.Context) bool {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeClusterAuthorizedOperations = true
	res, err := req.RequestWith(ctx, r.producer)
	if err != nil || res.ErrorCode != 0 || res.ClusterAuthorizedOperations == math.MinInt32 { // the last: not told
		return false
	}
	return !slices.Contains(kadm.DecodeACLOperations(res.ClusterAuthorizedOperations), kmsg.ACLOperationDescribe)
}

func (r *Region) groupOffsetsOf(ctx context.Context, group string, fetched kadm.FetchOffsetsResponse) (offsets []format.GroupOffset, err error) {
	if errors.Is(fetched.Err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if fetched.Err != nil {
		return nil, fmt.Errorf("offsets of group %s of %s: %w", group, r.cfg.Region, fetched.Err)
	}
	topics := r.cfg.Routes()
	for _, o := range fetched.Fetched.Sorted() {
		rt, known := topics[o.Topic]
		if !known || o.At < 0 || o.Partition < 0 || o.Partition >= r.cfg.Partitions {
			continue
		}
		if o.Err != nil {
			return nil, fmt.Errorf("offset of group %s of %s for topic %s, partition %d: %w", group, r.cfg.Region, o.Topic, o.Partition, o.Err)
		}
		log := rt.Log(o.Partition)
		next, err := r.worker.mirrors.InLog(ctx, log, o.At)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("offset of group %s for %s", group, log), err)
		}
		offsets = append(offsets, format.GroupOffset{Group: group, Log: log, Next: next, Metadata: o.Metadata})
	}
	return offsets, nil
}
