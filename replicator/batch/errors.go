package batch

import (
	"errors"
	"fmt"
)

// ErrPartial says that the data ends within a batch, as fetched answers may:
// fetch again from that batch's offset, with a larger limit if it was the first.
var ErrPartial = errors.New("the data ends within a record batch")

// An OldFormatError says that there is a message of a format before v2, which
// Recoder.Old can convert.
type OldFormatError struct {
	Offset int64
	Magic  int8 // 0 or 1
}

func (e *OldFormatError) Error() string {
	return fmt.Sprintf("offset %d has the old message format v%d: it must be converted", e.Offset, e.Magic)
}

// A CorruptError says that bytes are no record batch, though they should be.
type CorruptError struct {
	Offset int64 // of the batch, as it says itself
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the record batch at offset %d is corrupt: %s", e.Offset, e.Reason)
}

func corrupt(offset int64, format string, args ...any) error {
	return &CorruptError{offset, fmt.Sprintf(format, args...)}
}

// A TooLargeError says that records cannot be put into a batch of the size that
// is allowed.
type TooLargeError struct {
	Offset       int64 // of the record, at the source
	Bytes, Limit int   // of the whole batch
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("offset %d makes a record batch of %d bytes, %d are allowed: put less into it, or raise max.message.bytes of the destination if it is alone", e.Offset, e.Bytes, e.Limit)
}

// A ControlError says that a batch holds control records, the marks of
// transactions, which nobody but a broker may write.
type ControlError struct{ Offset int64 }

func (e *ControlError) Error() string {
	return fmt.Sprintf("the record batch at offset %d holds the mark of a transaction, which cannot be copied", e.Offset)
}
