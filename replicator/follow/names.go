package follow

import (
	"maps"
	"slices"
)

// Empty reports whether nothing can match, because nothing is included.
func (p Patterns) Empty() bool {
	return len(p.include.literals)+len(p.include.prefixes)+len(p.include.regexps) == 0
}

// Literals are the names that are included as they are, in order.
func (p Patterns) Literals() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(p.include.literals)), func(name string) bool { return !p.Match(name) })
}
