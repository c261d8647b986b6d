// Package trouble keeps what a client complains about. As long as something is wrong it is told
// again and again; that it is over is not told.
package trouble

import "time"

// stays is longer than the pauses of Kafka's clients between tries.
const stays = 15 * time.Second

// Recent is an error and when it was told last; nil: there was none.
type Recent struct {
	Err error
	At  time.Time
}

// IsFresh reports whether the error was told so shortly ago that it is likely to last.
func (r *Recent) IsFresh() bool { return r != nil && time.Since(r.At) < stays }
