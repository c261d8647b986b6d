// Package prune deletes old backups, by reference and from a stored plan, while
// others publish, restore and prune at the same time. Nothing is locked.
//
// A prune first stores a floor: from then on nothing with an id at or below it is
// published. Then it takes stock, and stores a plan with the floor's number, which
// says of every backup at or below the floor whether it is kept. Then it deletes:
// manifests that are not kept, then tables that no manifest refers to. Floors and
// plans are immutable and stay for ever, so a prune that died is carried on by the
// next one, whoever runs it.
//
// Never deleted are: what is above the floor, the newest backup that can be restored, those that hold
// what no newer one does, the full ones that the promised points in time are restored from, the
// newest that a restore drill has proved, what a running restore has pinned, a backup of which Object Lock holds an object, and what any of these builds on. If a manifest cannot be read, nothing at all
// is deleted, for nobody knows what it refers to.
package prune
