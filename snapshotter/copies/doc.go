// Package copies brings a region's backups and its archive into another bucket, of
// another region say, or of a cheaper class of storage, so that the loss of one bucket
// is no loss of them.
//
// A copy is the same objects under the same names, byte for byte and as they are
// sealed: no key is needed, and whoever restores from it does so as from the first
// bucket. As there, a manifest comes last: what can be seen in the copy can be
// restored from it. What is damaged at the source is named and not copied, and keeps nothing from being
// copied but what builds on it. What is there already is passed over, so a copy that broke off
// is just begun anew; and what somebody else has deleted of it, tables or segments among others,
// comes back. A copy is pruned by itself, by its own floors and plans; what was
// pruned there does not come back.
package copies
