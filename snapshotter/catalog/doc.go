// Package catalog finds backups in a bucket, publishes them and pins them. The
// bucket is the only catalogue: what has a manifest exists, unless the newest plan
// of package prune says that it came too late.
//
// What publishes, reads and prunes at the same time needs no lock; the order of
// reads and writes in here is what makes that safe, and snapshotter/DESIGN.md argues
// it.
package catalog
