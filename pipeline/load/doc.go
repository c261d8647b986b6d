// Package load writes many events from files into the logs of one or more
// regions, through their nodes' APIs.
//
// Each event goes to the region that it names. Within a region events are
// written in the order of the input, one batch at a time, the regions side by
// side. A load is resumable and writes every event exactly once, whatever is
// killed when: the id of an event is its place in the input, the source is the
// hash of the input, and a small file notes up to where each region has
// answered. After an error or a restart the nodes are asked which of the events
// behind that point are in their logs already, and begin a new turn, in which
// they refuse what was sent in an earlier one; the rest is sent. (Only a request
// that a broker still holds when its node was killed, and writes after the new
// node has looked, could double an event.)
//
// The input is read twice: first every item is checked and all faults are told
// together, before anything is written; then it is sent. What depends on a node (how
// large a value it takes, how far ahead a clock) is checked in between, once all nodes
// have said what they take, for to mend an input is to make another one: what was
// written of the first would be written again.
package load
