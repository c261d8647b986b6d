package events

import (
	"errors"
	"fmt"
)

// Kind classifies an error for those who act on it: the exit code of the
// command line and the error code of the API are both derived from it. The
// numbers are the exit codes and never change; kinds are only appended.
type Kind int

// The kinds of errors.
const (
	KindFailed       Kind = 1 // anything else
	KindInvalid      Kind = 2 // the caller's input is wrong
	KindPartial      Kind = 3 // some of it was done
	KindRefused      Kind = 4 // a rule forbids it
	KindNotFound     Kind = 5
	KindInconsistent Kind = 6 // divergence, or a proof that failed
	KindNotReady     Kind = 7 // not yet, or not at present: try again
)

var kindNames = map[Kind]string{
	KindFailed:       "failed",
	KindInvalid:      "invalid",
	KindPartial:      "partial",
	KindRefused:      "refused",
	KindNotFound:     "not found",
	KindInconsistent: "inconsistent",
	KindNotReady:     "not ready",
}

func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Error is an error with a Kind. Its text is that of the error within.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of the given kind; %w works as in fmt.Errorf.
func Errorf(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// KindOf tells the kind of the outermost Error in err's chain, KindFailed if
// there is none, and 0 for a nil error.
func KindOf(err error) Kind {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindFailed
}
