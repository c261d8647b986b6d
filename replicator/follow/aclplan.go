package follow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// translate turns the source's bindings into those that the mirrors should have.
func translate(source []Binding, cfg ACLConfig) (wanted []Binding, problems []ACLProblem) {
	var lockouts []Binding // denials that would be the link's too
	for _, b := range source {
		m, ok := atMirror(b, cfg)
		if !ok {
			continue
		}
		if !m.within(cfg.MirrorPrefix) {
			problems = append(problems, ACLProblem{b, fmt.Sprintf("mirror %q has not the prefix %q: not copied", m.Name, cfg.MirrorPrefix)})
			continue
		}
		for _, m.Operation = range b.readings() {
			switch {
			case m.denies() && m.concerns(cfg.Principal):
				lockouts = append(lockouts, m)
			case m.Principal != cfg.Principal:
				wanted = append(wanted, m)
			}
		}
	}
	wanted, more := withoutLockedOut(wanted, lockouts)
	if cfg.Principal != "" {
		wanted = append(wanted, Binding{Name: cfg.MirrorPrefix, Pattern: prefixed, Principal: cfg.Principal, Host: anyHost,
			Operation: kmsg.ACLOperationAll, Permission: kmsg.ACLPermissionTypeAllow})
	}
	slices.SortFunc(wanted, Binding.compare)
	return slices.Compact(wanted), append(problems, more...)
}

// atMirror moves a binding to the names of mirrors. ok is false for one that
// concerns nothing mirrored.
func atMirror(b Binding, cfg ACLConfig) (m Binding, ok bool) {
	m = b
	switch {
	case b.Pattern == literal && b.Name == anyTopic:
		m.Pattern, m.Name = prefixed, cfg.MirrorPrefix
		return m, true
	case b.Pattern == literal:
		if !cfg.Select(b.Name) {
			return m, false
		}
		m.Name = cfg.Mirror(b.Name)
		return m, true
	case b.Pattern == prefixed:
		// The source's bindings on its own mirrors may come from here: copied, they
		// would come back longer each time.
		m.Name = cfg.MirrorPrefix + b.Name
		return m, !cfg.Internal(b.Name)
	}
	return m, false
}

// withoutLockedOut carries out denials that must not be copied, because they would
// take the mirror from the link too: what they overrule is not allowed.
func withoutLockedOut(allowed, denials []Binding) (left []Binding, problems []ACLProblem) {
	unresolved := map[Binding]bool{}
	for _, a := range allowed {
		overruled := false
		for _, d := range denials {
			// Nobody reads what he may not describe.
			same := d.Operation == a.Operation || d.Operation == kmsg.ACLOperationDescribe && a.Operation == kmsg.ACLOperationRead
			if !a.allows() || !same || !d.concerns(a.Principal) {
				continue
			}
			switch {
			case d.covers(a) && (d.Host == anyHost || d.Host == a.Host):
				overruled = true
			case d.overlaps(a) && (d.Host == a.Host || a.Host == anyHost || d.Host == anyHost):
				unresolved[d] = true
			}
		}
		if !overruled {
			left = append(left, a)
		}
	}
	for _, d := range denials {
		if unresolved[d] {
			problems = append(problems, ACLProblem{d, "it would lock out the link too and is not copied; some that it denies are allowed by broader bindings: deny them by principal"})
			unresolved[d] = false
		}
	}
	return left, problems
}

// difference says what to make and what to remove; both lists are in order. What is
// allowed to the link stays: it got that before it could allow itself anything.
func difference(wanted, existing []Binding, cfg ACLConfig) (missing, surplus []Binding) {
	for _, b := range wanted {
		if !has(existing, b) {
			missing = append(missing, b)
		}
	}
	for _, b := range existing {
		own := b.Principal == cfg.Principal && b.allows()
		if b.within(cfg.MirrorPrefix) && !has(wanted, b) && !own && (cfg.Keep == nil || !cfg.Keep(b)) {
			surplus = append(surplus, b)
		}
	}
	return missing, surplus
}

// strangers finds who else may change mirrors.
func strangers(existing, removed []Binding, cfg ACLConfig) (found []Binding) {
	for _, b := range existing {
		prefix, exact := b.span()
		onMirrors := b.within(cfg.MirrorPrefix) || !exact && strings.HasPrefix(cfg.MirrorPrefix, prefix)
		if onMirrors && b.allows() && b.Principal != cfg.Principal && !slices.Contains(reading, b.Operation) && !slices.Contains(removed, b) {
			found = append(found, b)
		}
	}
	return found
}

func has(sorted []Binding, b Binding) bool {
	_, found := slices.BinarySearchFunc(sorted, b, Binding.compare)
	return found
}
