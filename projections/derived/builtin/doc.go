// Package builtin are the read models that come with Evenkeel. None of them fails,
// whatever a payload holds: what it cannot read of a view it has no entries for.
package builtin
