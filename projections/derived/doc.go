// Package derived keeps read models: what users of a service want to look up that
// is not a key (which sessions has a user? who offers a capability? how much
// happened in a minute?). A Model makes entries, key and value, of what a shard
// folds; they change in the shard's own Pebble batch, so they are never behind it and
// never ahead.
//
// # Two kinds of models
//
// A model of views has the function Rows: the entries of a key are a function of
// its view. The Store compares what Rows gives for the view before and after a batch
// and writes what is different. So entries are a function of the shard's vector by
// construction, whatever the order in which the origins' events arrived, and an
// entry goes when its view does. It is told of no event, and can be built at any time
// out of the state.
//
// A model of events has the function Fold: the entries of a log are a fold of its
// events, in its order, and nothing else. Entries of different logs lie side by side
// under one key and are added up by whoever reads them. It can count what views
// forget. Its entries cannot be had from the state, so they begin when the model does,
// and Status says since which cut; a rebuild reads the logs again, as far as they are there. A
// model that begins in a shard which has folded something is owed one (RebuildOwed).
//
// # What a model must be
//
// A pure function of what it is given: no clock, no randomness, no order of a map,
// nothing local, nothing kept in between. It is called from several goroutines, of
// different shards. Package derivedtest is the suite that a model passes.
//
// A function that returns an error or panics, or goes beyond the bounds of what a
// model may make, stops its model in that shard: nothing of the batch is in its
// entries, which are stale from then on, and the fold goes on. Its error is shown to
// operators and written to logs, so it must not quote payloads.
//
// # Guarantees
//
//   - Entries are what the model says of exactly the vector in the same snapshot
//     of the database, unless Status says that they are stale, and until when.
//   - A new model, a new version and Rebuild make a new generation of entries in
//     small steps while folding goes on. The old one is served until the new one is
//     complete and takes its place in one batch. A crash loses no step that was
//     followed by a batch which was not lost. So does Rebuild of a model of events, of
//     each log up to where the shard stands; from there on its events go into both.
//   - Entries are derived: no backup, digest or proof has them. A restored shard
//     builds them, those of events out of the logs.
//
// Not guaranteed: a key whose events are spread over several partitions, by
// producers with different partitioners, has a view of its own in each shard here.
//
// # Layout in the shard's database
//
//	'V' model 0x00 'm'                                       record: what the model is doing
//	'V' model 0x00 'e' generation key 0x00 0x01 source       entry; 0x00 in the key is written 0x00 0xff
//
// The source is stream 0x00 key for a model of views, the log for one of events.
package derived
