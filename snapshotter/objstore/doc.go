// Package objstore is the object store as the backups see it: a flat set of
// immutable, named byte strings in one bucket.
//
// # Contract
//
// The interfaces are split by guarantee, not by vendor. A [Reader] reads, a
// [Creator] adds, a [Deleter] removes, a [Bucket] does all three. Whoever
// only reads asks for a Reader.
//
//   - An object never changes. Create is the only write there is; it stores a
//     whole new object or nothing, and never overwrites.
//   - A name is used once. After Delete it stays retired for ever, because a
//     late or repeated Create of a forgotten name would otherwise bring back
//     what a collector removed. Stores cannot enforce this; [Memory] does, and
//     remembers who tried. What was lost in another way (a lifecycle rule, a hand)
//     may come back with the same bytes.
//   - Of any number of racing Creates of one name with different bytes exactly
//     one succeeds, the others get [ErrExists]. Create is idempotent for
//     identical bytes: if the name already holds exactly these bytes, Create
//     succeeds. So a caller that lost an answer simply calls again.
//   - A successful Create is verified: a SHA-256 travels with the upload and is
//     checked by the store, and afterwards the store is asked what it holds.
//   - After Create has returned, every Get, Stat and List of any client sees the
//     object (strong consistency, as S3 has had since 2020).
//   - List is in ascending byte order of the names. It is not a snapshot: objects
//     created or deleted while it runs may or may not be in it. A List that broke
//     ends with an error; it never just ends.
//   - Names are letters, digits and "._=-" in segments divided by "/" (see
//     [ValidateName]). No name is a folder of another one ("a" beside "a/b"):
//     S3 allows that, stores on a file system cannot.
//
// # Not guaranteed
//
// Get checks the length always, the content only where the store returns a
// checksum; GetRange checks the length only. Whoever needs certainty compares
// hashes kept elsewhere (a manifest). Reads that broke in the middle are not
// resumed here. [Info.Modified] is the store's clock and proves nothing. A
// listing proves what exists, never what does not.
//
// # Errors
//
// Every error of a Bucket is an [*Error], matched by kind with errors.Is:
//
//	kind             temporary  meaning
//	ErrNotFound      no         no object of this name
//	ErrExists        no         the name is taken by other bytes
//	ErrNoBucket      no         the bucket itself is missing
//	ErrAccess        no         credentials missing, wrong, expired or not permitted
//	ErrInvalid       no         the caller's mistake: name, size or range
//	ErrUnavailable   yes        network, timeout or 5xx, after all retries
//	ErrArchived      no         it is to be thawed before it can be read (Thaw)
//	ErrCorrupt       reads      bytes missing or changed; one more read may help,
//	                            a repeated Create does not
//
// When the caller gave up, the error has no kind and matches context.Canceled or
// context.DeadlineExceeded. Any other [*Error] without a kind is a permanent fault
// that fits none of these, such as a wrong region.
//
// [IsTemporary] is the one classification: true means that the
// same call may succeed later without anybody doing anything; callers retry a
// bounded number of times. Errors never contain keys, signatures or query
// strings.
//
// # Implementations
//
// [S3] speaks to AWS S3 and compatible stores, which must honour If-None-Match
// atomically ([Probe] finds out); [Memory] is the fake that asserts the contract;
// [Prefix] narrows a bucket to a folder; package faults breaks calls as told. All pass
// the one suite in objstoretest. Package s3server is an S3 server for the lab and
// for tests.
//
// All implementations are safe for concurrent use. No method starts a goroutine
// that outlives it.
package objstore
