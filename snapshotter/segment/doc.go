// Package segment is the continuous backup: the archive of a shard's logs, a chain of
// small immutable objects, each with what came since the one before.
//
// The segments of a shard are numbered from 1 without gaps, and a number is created
// once (objstore.Creator). So of two archivers that work on one shard at once, one
// after a pause, say, only one can go on at any place, and the other learns of it
// (ErrTaken): the archive cannot fork, and holds every record once. Each segment says
// where each log's archive stands after it, with the hash chain of all records so far,
// so that one who reads a run of segments knows that none is missing, and an archiver
// needs only the newest to go on.
//
// What lies in a segment are Kafka's own record batches, at the offsets of the origin's
// log. Package format says what the object looks like, byte by byte.
//
// A Builder gathers records and makes the object, Append puts it into the bucket, Open
// reads it back and takes nothing on trust.
package segment
