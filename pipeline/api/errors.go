package api

import (
	"errors"

	"github.com/creachadair/jrpc2"

	"github.com/evenkeel/evenkeel/events"
)

// Error codes: those that JSON-RPC defines where one fits, else -32000 minus
// the exit code of the kind.
const codeBase = -32000

// codeBusy is that of ErrBusy, of the kind not ready.
const codeBusy jrpc2.Code = -32029

// codeOfError is the code of an error that a node answers with.
func codeOfError(err error) jrpc2.Code {
	if errors.Is(err, ErrBusy) {
		return codeBusy
	}
	return codeOf(kindOfAnswer(err))
}

func codeOf(kind events.Kind) jrpc2.Code {
	if kind == events.KindInvalid {
		return jrpc2.InvalidParams
	}
	return jrpc2.Code(codeBase - int(kind))
}

// kindOf is the inverse of codeOf.
func kindOf(code jrpc2.Code) events.Kind {
	switch code {
	case jrpc2.InvalidParams, jrpc2.InvalidRequest, jrpc2.ParseError, jrpc2.MethodNotFound:
		return events.KindInvalid
	case codeBusy, jrpc2.Cancelled, jrpc2.DeadlineExceeded:
		return events.KindNotReady
	}
	if kind := events.Kind(codeBase - int(code)); kind >= events.KindFailed && kind <= events.KindNotReady {
		return kind
	}
	return events.KindFailed
}
