package follow

import (
	"errors"
	"regexp"
	"strings"

	"github.com/evenkeel/evenkeel/events"
)

// Patterns selects names of topics or groups: those that an include pattern
// matches and no exclude pattern does. The zero value selects nothing.
//
// A pattern is a name, a prefix followed by "*", or a regular expression (RE2)
// between slashes that must match the whole name: "session", "app-*", "*",
// "/app-[0-9]+/".
type Patterns struct {
	include, exclude set
	internal         func(name string) bool // nil: nothing is
}

// set is some patterns of one list.
type set struct {
	literals map[string]bool
	prefixes []string
	regexps  []*regexp.Regexp
}

// NewPatterns reads patterns. Its error names everything that is wrong.
func NewPatterns(include, exclude []string) (Patterns, error) {
	in, errIn := newSet("include", include)
	ex, errEx := newSet("exclude", exclude)
	if err := errors.Join(errIn, errEx); err != nil {
		return Patterns{}, events.Errorf(events.KindInvalid, "%w", err)
	}
	return Patterns{include: in, exclude: ex}, nil
}

// Sparing returns patterns that select names for which internal is true only if
// an include pattern is exactly that name.
func (p Patterns) Sparing(internal func(name string) bool) Patterns {
	p.internal = internal
	return p
}

// Match reports whether the name is selected.
func (p Patterns) Match(name string) bool {
	switch {
	case p.exclude.match(name):
		return false
	case p.include.literals[name]:
		return true
	case p.internal != nil && p.internal(name):
		return false
	}
	return p.include.match(name)
}

// Internal returns a function that tells the topics which no link mirrors unless
// told to by name: those of Kafka ("__*"), those of Evenkeel ("evenkeel.*"), and
// mirrors of the regions' logs ("<region>.*", of any incarnation). Links of which
// each mirrors the other's mirrors would never come to an end.
func Internal(regions ...events.Region) func(name string) bool {
	known := map[events.Region]bool{}
	for _, r := range regions {
		known[r] = true
	}
	return func(name string) bool {
		if strings.HasPrefix(name, "__") || strings.HasPrefix(name, "evenkeel.") {
			return true
		}
		first, _, dotted := strings.Cut(name, ".")
		if !dotted {
			return false
		}
		o, err := events.ParseOrigin(first)
		return err == nil && known[o.Region]
	}
}

func newSet(list string, patterns []string) (set, error) {
	s := set{literals: map[string]bool{}}
	var mistakes []error
	for _, p := range patterns {
		if err := s.add(p); err != nil {
			mistakes = append(mistakes, events.Errorf(events.KindInvalid, "%s pattern %q: %w", list, p, err))
		}
	}
	return s, errors.Join(mistakes...)
}

func (s *set) add(p string) error {
	if len(p) >= 2 && p[0] == '/' && p[len(p)-1] == '/' {
		source := p[1 : len(p)-1]
		if source == "" {
			return errors.New("empty regular expression: want /EXPRESSION/")
		}
		// By itself first: "a)|(b" is wrong and must not become right between
		// the parentheses of the anchored one.
		if _, err := regexp.Compile(source); err != nil {
			return err
		}
		re, err := regexp.Compile(`\A(?:` + source + `)\z`)
		if err != nil {
			return err
		}
		s.regexps = append(s.regexps, re)
		return nil
	}
	prefix, isPrefix := strings.CutSuffix(p, "*")
	switch {
	case p == "":
		return errors.New("empty: want a name, a prefix followed by *, or /EXPRESSION/")
	case strings.TrimSpace(p) != p:
		return errors.New("spaces around it")
	case strings.Contains(prefix, "*"):
		return errors.New("a * stands only at the end: for more, use /EXPRESSION/")
	case strings.HasPrefix(p, "/"):
		return errors.New("a regular expression also ends with a slash: /EXPRESSION/")
	case isPrefix:
		s.prefixes = append(s.prefixes, prefix)
	default:
		s.literals[p] = true
	}
	return nil
}

func (s *set) match(name string) bool {
	if s.literals[name] {
		return true
	}
	for _, p := range s.prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	for _, re := range s.regexps {
		if re.MatchString(name) {
			return true
		}
	}
	return false
}
