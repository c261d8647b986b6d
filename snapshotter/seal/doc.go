// Package seal encrypts what is put into a bucket and decrypts what comes out of
// it, with age (https://age-encryption.org/v1): files that the age tool opens too,
// in authenticated chunks of 64 KiB.
//
// A Sealer seals for at least two keys, so that the loss of one is no loss of
// backups: an operating key, which nodes may hold to restore by themselves, and a
// recovery key, which is kept where no node is. An Opener holds identities, the
// secret halves; any one that fits opens. A Sealer holds no secret.
//
// Open reads from the beginning; OpenAt reads at any place, a chunk at the least.
//
// Keys are told apart by their ids (KeyID), which are safe to show. No error holds
// any part of an identity.
//
// All types are safe for concurrent use.
package seal
