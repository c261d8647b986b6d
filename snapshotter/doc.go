// Package snapshotter takes backups: it copies frozen shards as sorted tables
// into a bucket and publishes a manifest for them, last.
//
// A backup exists if and only if its manifest does, and then it is complete:
// every table is in the bucket, verified, before the manifest is created, under
// a name that is never used again (package objstore). A backup that is broken off
// leaves tables without a manifest, which nothing refers to.
//
// The packages below: format says what a manifest is, byte by byte; objstore
// talks to buckets; catalog finds backups in a bucket; restore brings one back.
// This package and those below know nothing of Pebble or of folds: what is
// backed up comes in through Cut, what is restored goes out through
// restore.Target.
package snapshotter
