// Package backupbench measures backups and restores, on a bucket of the embedded S3
// server on disk, sealed, beside what the disk and that server give to plain copying in
// the same run.
//
// Each part of it is a Section with a file of its own. A section measures one thing,
// adds rows, and fills in its figures of the summary, which are held against what is
// aimed at. Ratios travel to other machines, absolute figures do not.
package backupbench
