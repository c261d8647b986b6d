// Package api is the node's interface to the outside: JSON-RPC 2.0 over HTTP
// POST at /rpc, served by Handler for any Node, and its Go client.
//
// Methods: put, outcome, load, landed, get, scan, history, status, lag, backup.create,
// backup.list, restore.run, restore.keys, restore.shards, links.list, links.show, links.pause, links.unpause,
// links.resume, links.verify, slices, backup.shards. Parameters are objects; an unknown field is an error.
// Keys and values are Bytes: a JSON string if they are UTF-8, else
// {"base64": "…"}, so that every byte survives.
//
// GET /watch follows changes of keys, with a JSON object a line (see Change), until
// the caller goes away.
//
// Vectors, which at_least and context are, are texts: positions in order, separated by
// commas. A context says what a read was of and goes back with a write; what a
// write answers as at_least goes with a read, which waits for it.
//
// The requests of a batch are done in order, one after the other; one without an
// id is done and not answered. When the caller goes away, its calls' contexts
// end. A node works on a bounded number of calls of each sort at one time, so
// many others wait, and the rest is turned away with HTTP 429, Retry-After and, in
// JSON-RPC, the code -32029; so are bodies that there is no memory for. Status is always
// answered. The client tries again a few times what was turned away. It waits for an answer as long as
// its caller does; but if nothing comes for some seconds, and GET /healthz brings nothing either, there is no node.
//
// Errors carry the kinds of package events in their codes (see codeOf); the
// client turns them back, so that a caller sees the same kind on both sides.
//
// There is no authentication yet: a node listens on loopback unless told
// otherwise.
//
// The nodes of a region ask each other by the same protocol, with a header that names
// the asking node (slices and backup.shards are only for them). Such a call is about
// what the node itself has; it is never forwarded again.
package api
