// Package s3server runs an S3 server inside the process, with its data in a
// directory: versitygw's gateway over plain files.
//
// It is for the lab and for tests only. The daemon must never import it: the
// gateway drags in several hundred packages.
//
// # What it is good for
//
// Conditional writes are atomic, checksums sent with an upload are verified and
// returned, listings are in byte order: what package objstore asks of a store.
// Objects are ordinary files under <Dir>/data/<bucket>/. The data survives
// [Server.Close] and the process, and is there again after a [Start] on the same
// directory.
//
// # What it is not
//
//   - Not durable against a power cut: the gateway does not sync files.
//   - A subset: buckets, objects, multipart uploads, listings, and Object Lock of
//     buckets that a client makes with it. Copying, versions, policies, ACLs, tags
//     and lifecycle are answered with NotImplemented or as unset.
//   - Without versions, a deletion of a locked object is refused; on AWS it hides the
//     object behind a marker. A bucket's default retention is not written to its
//     objects, as AWS does; lock each of them.
//   - Names are paths: no object can be the folder of another one, no part
//     between two slashes can exceed 255 bytes, and names under ".sgwtmp/" are
//     the gateway's own.
//   - One per process, because the gateway keeps process-wide settings. A second
//     Start while one runs fails.
//
// # How it is put together
//
//	client ─► listener (front.go) ─► unix socket ─► gateway ─► rooted (backend.go) ─► files
//
// The gateway binds its own address and waits up to ten seconds for clients when
// it stops. The listener in front of it gives a port that is known before the
// gateway starts, is free again when Close returns, and cuts connections at once.
// The gateway's file backend works in the process's current directory; rooted
// gives it absolute paths instead, so that the current directory stays what it is
// except for a moment inside Start, once per Start. A program that resolves
// relative paths on another goroutine during that moment must not; make paths
// absolute first.
//
// Nothing is written to stdout or stderr. All functions are safe for concurrent
// use.
package s3server
