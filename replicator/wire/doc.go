// Package wire speaks Kafka's protocol over connections of its own: requests
// of kmsg are written in the order in which they are sent, several may wait for
// their answers at once, and a connection that fails once is never used again.
//
// A link needs both. Batches that follow each other in one partition must reach
// the broker in that order, and a write that was meant for one connection must
// never be repeated on another, where it could arrive long after the state that it
// was made for has gone. A general client hides its connections and so can promise
// neither.
//
// What to dial, TLS and SASL come from the options of a kgo client, so there
// is one place where a cluster is configured.
//
// A Conn may be used from any goroutine; answers are handed out one after the
// other by a goroutine of the Conn.
package wire
