// Package snapshotter takes backups: it copies frozen shards as sorted tables
// into a bucket, sealed, and publishes a manifest for them, last.
//
// A backup exists if and only if its manifest does, and then it is complete:
// every table is in the bucket, verified, before the manifest is created, under
// a name that is never used again (package objstore). A backup that is broken off
// leaves tables without a manifest, which nothing refers to and package prune
// collects.
//
// Full does it all. Where several nodes hold the shards of a region, each copies its
// own with Shards, under one id (NewID), and one of them calls Publish.
//
// A delta holds what has changed since another backup, its parent, and is published with
// PublishDelta. Restored on top of its parents it is as good as a full backup. Which
// parent a delta builds on decides how long chains grow: catalog.ParentFor.
//
// The packages below: format says what is in a bucket, byte by byte; objstore
// talks to buckets; seal encrypts; catalog finds, publishes and pins backups;
// inventory takes stock of them; timeline says to which points a region can be brought
// back, and how; restore brings one back; verify checks them; prune
// deletes old ones. This package and those below know nothing of Pebble or of folds:
// what is backed up comes in through Cut, what is restored goes out through
// restore.Target.
package snapshotter
