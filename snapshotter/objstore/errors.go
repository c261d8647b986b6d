package objstore

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of errors; see the package comment for the table. Kinds are only
// ever added.
var (
	ErrNotFound    = errors.New("no such object")
	ErrExists      = errors.New("name is taken by another object")
	ErrNoBucket    = errors.New("bucket does not exist")
	ErrAccess      = errors.New("access refused")
	ErrUnavailable = errors.New("unavailable")
	ErrCorrupt     = errors.New("data damaged")
	ErrInvalid     = errors.New("invalid request")
	ErrArchived    = errors.New("object is archived")
)

// The operations, as in Error.Op and Rule.Ops.
const (
	OpGet      = "get"
	OpGetRange = "get range"
	OpStat     = "stat"
	OpList     = "list"
	OpCreate   = "create"
	OpDelete   = "delete"
	OpCheck    = "check"
	OpThaw     = "thaw"
	OpHolds    = "look for locks"
)

// Error says what failed, where and what to try. It matches its Kind and its
// cause with errors.Is.
type Error struct {
	Op     string // one of the Op constants
	Bucket string // the String of the bucket, or empty
	Object string // full name within the bucket, or the prefix of a list, or empty
	Kind   error  // one of the kinds above, or nil if none fits
	Err    error  // the cause, without secrets, or nil
	Hint   string // what to try, or empty for the usual hint of the kind
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Bucket != "" {
		b.WriteString(e.Bucket + ": ")
	}
	b.WriteString(e.Op)
	if e.Object != "" {
		fmt.Fprintf(&b, " %q", e.Object)
	}
	if e.Kind != nil {
		b.WriteString(": " + e.Kind.Error())
	}
	if e.Err != nil {
		b.WriteString(": " + strings.TrimPrefix(e.Err.Error(), kindPrefix(e.Kind)))
	}
	if hint := e.hint(); hint != "" {
		b.WriteString("; " + hint)
	}
	return b.String()
}

// kindPrefix avoids saying the kind twice when the cause was built on it.
func kindPrefix(kind error) string {
	if kind == nil {
		return ""
	}
	return kind.Error() + ": "
}

func (e *Error) hint() string {
	if e.Hint != "" {
		return e.Hint
	}
	switch e.Kind {
	case ErrNoBucket:
		return "create it or check backup.bucket"
	case ErrAccess:
		return "check the credentials, their permissions on this bucket and this machine's clock"
	case ErrUnavailable:
		return "check backup.endpoint and the network, or try again later"
	case ErrArchived:
		return "have it thawed, which takes hours: evenkeel backup thaw"
	case ErrExists:
		return "names are never reused: look for a second writer"
	}
	return ""
}

// Unwrap gives errors.Is and errors.As the kind and the cause.
func (e *Error) Unwrap() []error {
	errs := make([]error, 0, 2)
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// IsTemporary reports whether the call that returned err may succeed later
// although nobody does anything: true for [ErrUnavailable], and for
// [ErrCorrupt] of a read. False for nil, for the caller's own cancelled context
// and for everything else.
func IsTemporary(err error) bool {
	if errors.Is(err, ErrUnavailable) {
		return true
	}
	var e *Error
	if errors.As(err, &e) && e.Kind == ErrCorrupt {
		return e.Op == OpGet || e.Op == OpGetRange
	}
	return false
}
