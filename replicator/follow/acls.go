package follow

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ACLConfig says which ACLs are copied and what they are turned into.
type ACLConfig struct {
	// Principal is the link's own at the destination, e.g. "User:evenkeel-link":
	// it may do everything with mirrors. Empty: no binding is made for the link.
	Principal string

	Select   func(topic string) bool   // required: topics that are mirrored
	Mirror   func(topic string) string // required: the mirror's name
	Internal func(name string) bool    // required: see Internal; prefixes of such names are not copied

	// MirrorPrefix begins the names of all mirrors of this origin, and of nothing
	// else: "<origin>.". Bindings on such names belong to the pass: at most one link
	// of an origin may follow ACLs into a region.
	MirrorPrefix string

	// Keep reports bindings on mirrors that are the operator's of the destination,
	// such as those of local consumers; they are left alone. nil: none.
	Keep func(Binding) bool
}

// ACLReport is what a pass over ACLs saw and did.
type ACLReport struct {
	// Disabled names the side ("source", "destination") that has no authorizer.
	// Without one at the destination there is nothing to do; without one at the
	// source nothing is copied, and nothing removed.
	Disabled string

	Created []Binding
	Removed []Binding

	// Strangers may do more with mirrors than read them, by bindings that are not
	// the pass's to remove: kept ones, and ones on more than mirrors.
	Strangers []Binding

	Problems []ACLProblem
}

// ACLProblem is a binding that could not be copied, made or removed.
type ACLProblem struct {
	Binding Binding
	Reason  string
}

// ACLs gives those who may read a topic at the source the right to read its
// mirror, takes what the source took, and lets nobody but the link write mirrors.
// The clients need DESCRIBE on the source cluster, ALTER on the destination's.
func ACLs(ctx context.Context, source, dest *kgo.Client, cfg ACLConfig) (ACLReport, error) {
	if cfg.MirrorPrefix == "" {
		return ACLReport{}, errors.New("follow ACLs: no prefix of mirrors' names: every binding of the destination would be taken for one on mirrors")
	}
	existing, err := bindings(ctx, dest)
	if errors.Is(err, kerr.SecurityDisabled) {
		return ACLReport{Disabled: "destination"}, nil
	}
	if err != nil {
		return ACLReport{}, fmt.Errorf("read ACLs of the destination: %w", err)
	}
	var report ACLReport
	atSource, err := bindings(ctx, source)
	if errors.Is(err, kerr.SecurityDisabled) {
		report.Disabled, atSource = "source", nil
	} else if err != nil {
		return ACLReport{}, fmt.Errorf("read ACLs of the source: %w", err)
	}

	wanted, problems := translate(atSource, cfg)
	report.Problems = problems
	missing, surplus := difference(wanted, existing, cfg)
	if report.Disabled != "" {
		surplus = nil
	}
	err = report.apply(ctx, dest, missing, surplus)
	report.Strangers = strangers(existing, report.Removed, cfg)
	return report, err
}

// apply never lets anybody do more for a moment than before or after: denials are
// there before what they restrict is allowed, and go after it. Where that fails,
// the second half waits for the next pass.
func (r *ACLReport) apply(ctx context.Context, dest *kgo.Client, missing, surplus []Binding) error {
	denyMore, allowMore := split(missing)
	denyLess, allowLess := split(surplus)
	type step struct {
		do       func(context.Context, *kgo.Client, []Binding) error
		bindings []Binding
	}
	for _, steps := range [][]step{{{r.remove, allowLess}, {r.remove, denyLess}}, {{r.create, denyMore}, {r.create, allowMore}}} {
		for _, s := range steps {
			problems := len(r.Problems)
			if err := s.do(ctx, dest, s.bindings); err != nil {
				return err
			}
			if len(r.Problems) > problems {
				break
			}
		}
	}
	return nil
}

func split(bs []Binding) (denying, allowing []Binding) {
	for _, b := range bs {
		if b.denies() {
			denying = append(denying, b)
		} else {
			allowing = append(allowing, b)
		}
	}
	return denying, allowing
}

// bindingsPerRequest bounds requests that make or remove bindings.
const bindingsPerRequest = 500

func (r *ACLReport) create(ctx context.Context, client *kgo.Client, bs []Binding) error {
	for chunk := range slices.Chunk(bs, bindingsPerRequest) {
		req := kmsg.NewPtrCreateACLsRequest()
		for _, b := range chunk {
			c := kmsg.NewCreateACLsRequestCreation()
			c.ResourceType, c.ResourceName, c.ResourcePatternType = kmsg.ACLResourceTypeTopic, b.Name, b.Pattern
			c.Principal, c.Host, c.Operation, c.PermissionType = b.Principal, b.Host, b.Operation, b.Permission
			req.Creations = append(req.Creations, c)
		}
		resp, err := req.RequestWith(ctx, client)
		if err == nil && len(resp.Results) != len(chunk) {
			err = fmt.Errorf("%d answers for %d bindings", len(resp.Results), len(chunk))
		}
		if err != nil {
			return fmt.Errorf("create %d ACLs at the destination, the first of them %s: %w", len(chunk), chunk[0], err)
		}
		for i, result := range resp.Results {
			r.note(&r.Created, chunk[i], "create", result.ErrorCode, result.ErrorMessage)
		}
	}
	return nil
}

func (r *ACLReport) remove(ctx context.Context, client *kgo.Client, bs []Binding) error {
	for chunk := range slices.Chunk(bs, bindingsPerRequest) {
		req := kmsg.NewPtrDeleteACLsRequest()
		for _, b := range chunk {
			f := kmsg.NewDeleteACLsRequestFilter() // of no wildcards: it matches b alone
			f.ResourceType, f.ResourceName, f.ResourcePatternType = kmsg.ACLResourceTypeTopic, &b.Name, b.Pattern
			f.Principal, f.Host, f.Operation, f.PermissionType = &b.Principal, &b.Host, b.Operation, b.Permission
			req.Filters = append(req.Filters, f)
		}
		resp, err := req.RequestWith(ctx, client)
		if err == nil && len(resp.Results) != len(chunk) {
			err = fmt.Errorf("%d answers for %d bindings", len(resp.Results), len(chunk))
		}
		if err != nil {
			return fmt.Errorf("delete %d ACLs at the destination, the first of them %s: %w", len(chunk), chunk[0], err)
		}
		for i, result := range resp.Results {
			code, message := result.ErrorCode, result.ErrorMessage
			for _, m := range result.MatchingACLs {
				if code == 0 {
					code, message = m.ErrorCode, m.ErrorMessage
				}
			}
			r.note(&r.Removed, chunk[i], "delete", code, message)
		}
	}
	return nil
}

func (r *ACLReport) note(done *[]Binding, b Binding, what string, code int16, message *string) {
	err := kerr.ErrorForCode(code)
	if err == nil {
		*done = append(*done, b)
		return
	}
	if message != nil {
		err = withMessage(err, *message)
	}
	r.Problems = append(r.Problems, ACLProblem{b, fmt.Sprintf("%s at the destination: %v", what, err)})
}

// bindings reads all ACLs on topics, in order.
func bindings(ctx context.Context, client *kgo.Client) ([]Binding, error) {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType = kmsg.ACLResourceTypeTopic
	req.ResourcePatternType = kmsg.ACLResourcePatternTypeAny
	req.Operation = kmsg.ACLOperationAny
	req.PermissionType = kmsg.ACLPermissionTypeAny
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		if resp.ErrorMessage != nil {
			return nil, withMessage(err, *resp.ErrorMessage)
		}
		return nil, err
	}
	var all []Binding
	for _, r := range resp.Resources {
		for _, a := range r.ACLs {
			all = append(all, Binding{Name: r.ResourceName, Pattern: r.ResourcePatternType,
				Principal: a.Principal, Host: a.Host, Operation: a.Operation, Permission: a.PermissionType})
		}
	}
	slices.SortFunc(all, Binding.compare)
	return slices.Compact(all), nil
}
