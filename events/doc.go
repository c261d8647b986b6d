// Package events is the vocabulary of Evenkeel: the names of places (Region,
// Origin, Stream), of points in logs (Log, Position, Vector), of time (HLC,
// Epoch, Context), the Event itself, its form as a Kafka record, and the kinds
// of errors that every other package speaks in.
//
// Every textual form is canonical: Parse accepts exactly what String prints and
// nothing else, so that two texts are equal if and only if the values are. All
// values are plain data, safe to copy and compare, and safe to read from any
// goroutine; maps (Vector) belong to their holder and are not locked.
//
// The codec (Encode, Decode) speaks CloudEvents 1.0 in Kafka's binary content
// mode with the extension attributes hlc, deps and epoch. A record without any
// CloudEvents header is welcome too: it is a put of its value under its key, or
// a delete if the value is null, with the record's timestamp as the clock.
// Decode is a pure function of the record: no clock, no configuration, nothing
// local. Every length has a limit, see limits.go.
package events
