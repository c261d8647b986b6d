package follow

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// presence is which groups the destination has, and how they are.
type presence struct {
	listed     kadm.ListedGroups // all
	withCommit kadm.ListedGroups // those of types that commit offsets
	incomplete error             // some brokers did not answer
}

func readPresence(ctx context.Context, dest *kadm.Client) (presence, error) {
	// In this order: a group that is made meanwhile is then only in the second
	// list, where its state is.
	all, errAll := dest.ListGroups(ctx)
	some, errSome := dest.ListGroupsByType(ctx, consumers)
	err := errors.Join(errAll, errSome)
	var denied *kadm.AuthError
	var partly *kadm.ShardErrors
	if errors.As(err, &denied) || err != nil && (!errors.As(err, &partly) || partly.AllFailed) {
		return presence{}, fmt.Errorf("list groups of the destination: %w", err)
	}
	return presence{listed: all, withCommit: some, incomplete: err}, nil
}

// busy says why a group must be left alone; reason is empty if it need not.
func (p presence) busy(name string) (reason SkipReason, detail string) {
	g, commits := p.withCommit[name]
	_, listed := p.listed[name]
	switch {
	case commits && (g.State == "Empty" || g.State == "Dead"):
		return "", ""
	case commits && g.State == "":
		return SkipActive, "the broker does not tell its state"
	case commits:
		return SkipActive, "state " + g.State
	case p.incomplete != nil:
		return SkipFailed, fmt.Sprintf("its state at the destination is not known: %v", p.incomplete)
	case listed:
		return SkipType, ""
	}
	return "", ""
}

// refusedForMembers tells that a broker refused a commit from outside because the
// group has members.
func refusedForMembers(err error) bool {
	return errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.IllegalGeneration) ||
		errors.Is(err, kerr.StaleMemberEpoch)
}
