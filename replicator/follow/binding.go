package follow

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Binding is one ACL on topics: who may, or may not, do what.
type Binding struct {
	Name       string // of a topic, or a prefix
	Pattern    kmsg.ACLResourcePatternType
	Principal  string
	Host       string
	Operation  kmsg.ACLOperation
	Permission kmsg.ACLPermissionType
}

func (b Binding) String() string {
	return fmt.Sprintf("%s %s from %s to %s topics %s %q", b.Permission, b.Principal, b.Host, b.Operation, b.Pattern, b.Name)
}

func (b Binding) compare(c Binding) int {
	return cmp.Or(strings.Compare(b.Name, c.Name), cmp.Compare(b.Pattern, c.Pattern), strings.Compare(b.Principal, c.Principal),
		strings.Compare(b.Host, c.Host), cmp.Compare(b.Operation, c.Operation), cmp.Compare(b.Permission, c.Permission))
}

func (b Binding) allows() bool { return b.Permission == kmsg.ACLPermissionTypeAllow }
func (b Binding) denies() bool { return b.Permission == kmsg.ACLPermissionTypeDeny }

// What a binding's pattern and principal may be besides a name.
const (
	literal  = kmsg.ACLResourcePatternTypeLiteral
	prefixed = kmsg.ACLResourcePatternTypePrefixed
	anyTopic = "*" // with a literal pattern
	anyHost  = "*"
	anyone   = "User:*"
)

// reading are the operations that a mirror knows for all but the link. READ
// allows to describe; DESCRIBE_CONFIGS stands alone.
var reading = []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs}

// readings is what is left of a binding's operation at a mirror. Who may do
// everything may read the mirror; who may do nothing may not read it either.
func (b Binding) readings() []kmsg.ACLOperation {
	switch {
	case slices.Contains(reading, b.Operation):
		return []kmsg.ACLOperation{b.Operation}
	case b.Operation == kmsg.ACLOperationAll && b.allows():
		return reading[:2]
	case b.Operation == kmsg.ACLOperationAll:
		return reading
	}
	return nil
}

// span is the names that a binding is about, as a prefix; exact: that name alone.
func (b Binding) span() (prefix string, exact bool) {
	if b.Pattern == literal && b.Name == anyTopic {
		return "", false
	}
	return b.Name, b.Pattern == literal
}

// covers reports whether b is about every topic that c is about.
func (b Binding) covers(c Binding) bool {
	outer, exact := b.span()
	inner, innerExact := c.span()
	if exact {
		return innerExact && inner == outer
	}
	return strings.HasPrefix(inner, outer)
}

// overlaps reports whether b and c are about some topic both. Two of these sets
// of names are either apart, or one is within the other.
func (b Binding) overlaps(c Binding) bool { return b.covers(c) || c.covers(b) }

// concerns reports whether the binding is about the principal.
func (b Binding) concerns(principal string) bool {
	return principal != "" && (b.Principal == principal || b.Principal == anyone)
}

// within reports whether b is about mirrors alone: those are the link's to make
// and to remove.
func (b Binding) within(mirrorPrefix string) bool {
	prefix, _ := b.span()
	return strings.HasPrefix(prefix, mirrorPrefix)
}
