// Package schemas is the wire contract: what the payload of each known event
// type looks like, how it is encoded, and what must hold of it.
//
// There is one folder per family and version (session/v1, registry/v1, …) with
// the .proto file and the Go generated from it; one golden event per type in
// testdata, whose format is in testdata/README.md; and in this package the list
// of types (Lookup, All) with a strict reader of payloads (Check, Decode). The
// package imports nothing of Evenkeel, so that a producer can use it alone.
//
// # What is guaranteed
//
//   - A payload that Check accepts can be decoded and keeps the rules that its
//     .proto file states: lengths, ranges, required fields, known enum values.
//   - Check, Decode and everything else here are pure functions of their
//     arguments: no clock, no randomness, no configuration, nothing local. All
//     regions accept and refuse the same payloads. All of it may be called from
//     any goroutine.
//   - Work is bounded: MaxPayloadBytes, MaxJSONDepth.
//   - No error quotes a payload, not even one byte of it, because payloads may
//     be secret. Errors name the type, the content type, the field (from our
//     contract, never from the input) and the rule.
//
// # What is not guaranteed
//
//   - That a payload is true: nothing is compared with the record's key, its
//     headers, a clock or any state.
//   - That what stands in a secret's ciphertext is ciphertext. Its form is
//     checked (algorithm, nonce, key ids, age header), and fields that the
//     contract does not know are refused in this family.
//   - That a type is known: events of unknown types are welcome on a log, and
//     what becomes of them is for the caller to say.
//
// # Unknown fields
//
// Unknown fields and, in JSON, unknown members are accepted and left alone,
// except in the secrets family. An event that is in a log can not be taken back,
// and refusing it would stop the log in every region because one producer says
// more than we know: one that extends the contract for itself, or speaks a later
// revision. The payload is stored and mirrored as the bytes that came, so
// nothing is lost. A misspelt required field still shows, as an empty one.
//
// # Versions
//
// A released version is never changed: no field added, removed, renumbered,
// renamed or retyped, no rule made stricter. Logs and backups hold what was once
// written, for ever, and old software must go on reading what it reads. A change
// is a new version beside the old one (session/v2, erlmcp.session.started.v2)
// and a function that upcasts the old one on read; the old folder, type and
// golden event stay. Tests fail when a released version is touched: the golden
// files hold every field with a value in it, and the contract files beside them
// every name, number and type.
//
// # To add a type or a version
//
//  1. Write <family>/v<N>/evenkeel_<family>.proto with a comment on every field
//     (units, ranges) and the Go package comment in doc.go beside it.
//  2. Run go generate ./schemas (it lints, too) and keep what it writes.
//  3. In <family>.go, list the type and write its validate function: one line
//     per rule that the .proto file states. A new family is added to families
//     in types.go.
//  4. In samples_test.go add a sample with every field set, and in
//     rules_test.go what must be refused.
//  5. Run go test ./schemas -update: it writes the missing golden and contract
//     files and refuses to touch those that exist.
package schemas
