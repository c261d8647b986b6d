// Package timeline says to which points a region can be brought back from its bucket,
// and how: it reads backups and the archive of segments, and restores nothing itself.
//
// A Target is what somebody asks for: all there is, a backup, a vector, offsets of some
// logs, or a time. Timeline.Plan turns it into a vector, which is where the restore goes
// exactly, and finds the backup to begin with and the segments to go on with.
//
// # A time as a vector
//
// Of each log the first record that came after the time is left out, and all behind it.
// A record came at its own timestamp, or when its segment was closed, whichever is
// earlier: so one record with a clock that is far ahead does not cut off what came
// after it. Of records that are not archived it is known only that they came before the
// backups that hold them.
//
// # What is read
//
// Segments have numbers without gaps, and how far each log is archived only grows with
// them. So the segment in which something is found is searched for, and few headers are
// read however long the archive is. Of the segments that a restore needs every header is
// read: they have to follow each other, and no offset may be missing.
package timeline
