package divergence

import (
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// SilentAfter is how old the newest attestation of a log may be, by the clock of the region that has made
// it, before that region counts as silent: a few times what passes between those of an idle log, so that a
// shard can move meanwhile.
const SilentAfter = 6 * IdleInterval

// Known is what the newest attestations say of a stream's partition: what every region has
// folded of each origin's log, and what some region has, among them logs of former
// incarnations. Whoever writes knows of the former from now on; what else there was when the regions
// said so is in the latter, since each has its own log. An error says which region has not said it lately, speaks of
// another fold than this one's, or lags behind its own log: if all have lost what they had of it, nobody speaks of
// what is there.
func (j *Judge) Known(stream events.Stream, partition int32, now time.Time) (least, most events.Context, err error) {
	for i, o := range j.cfg.Origins {
		log := events.Log{Origin: o, Stream: stream, Partition: partition}
		t, ok := j.tracks[log]
		if !ok {
			return nil, nil, events.Errorf(events.KindNotReady, "no attestation of %s has come yet", log)
		}
		if err := j.speaks(t); err != nil {
			return nil, nil, err
		}
		if silent := now.Sub(t.made); silent > SilentAfter {
			return nil, nil, events.Errorf(events.KindNotReady, "%s is silent: its newest attestation of %s was made %s ago", o.Region, log, silent.Round(time.Second))
		}
		if t.newest.Lagging {
			return nil, nil, events.Errorf(events.KindNotReady, "%s lags behind its own log %s, or has stopped to fold it", o.Region, log)
		}
		if i == 0 {
			least = t.newest.Applied
		}
		least, most = meet(least, t.newest.Applied), most.Join(t.newest.Applied)
	}
	return least, most, nil
}

// Behind is by how much a clock is behind that of some region, as far as attestations tell: nothing at least.
func (j *Judge) Behind(now time.Time) (behind time.Duration) {
	for _, t := range j.order {
		if !t.heard.IsZero() {
			behind = max(behind, t.newest.Made.Sub(now))
		}
	}
	return behind
}

// Held is the longest for which any region holds tombstones of keys that several regions have written, as the newest
// attestations tell.
func (j *Judge) Held() (longest time.Duration) {
	for _, t := range j.order {
		if !t.heard.IsZero() {
			longest = max(longest, t.newest.Held)
		}
	}
	return longest
}

// Alike is since when, without interruption, of all logs of a stream attestations have come in this region's format, and none
// in another since: then no node of any region that has a shard folds otherwise than this one. It is an error if it is not so.
func (j *Judge) Alike(stream events.Stream) (since time.Time, err error) {
	l := j.likes[stream]
	if l == nil || l.unlike > 0 {
		return time.Time{}, events.Errorf(events.KindNotReady, "not all logs of stream %s are attested, and by the same version as this node's", stream)
	}
	return l.since, nil
}

// speaks says, if it is not so, that a log is attested in this region's format.
func (j *Judge) speaks(t *track) error {
	switch {
	case t.heard.IsZero():
		return events.Errorf(events.KindNotReady, "no attestation of %s has come yet", t.log)
	case t.newest.Format != j.cfg.Format(t.log.Stream):
		return events.Errorf(events.KindNotReady, "%s runs another version, as it attests with %s", t.log.Origin.Region, t.log)
	}
	return nil
}

// Applied is up to where each region has folded a log, as the newest attestations of its own log of
// that stream and partition say. A region that has attested nothing is not in it.
func (j *Judge) Applied(log events.Log) map[events.Origin]int64 {
	applied := map[events.Origin]int64{}
	for _, o := range j.cfg.Origins {
		if t, ok := j.tracks[events.Log{Origin: o, Stream: log.Stream, Partition: log.Partition}]; ok && !t.heard.IsZero() {
			applied[o] = t.newest.Applied.Next(log.Origin)
		}
	}
	return applied
}

// likeness is how many logs of a stream are attested in another format than this region's, or not at all
// yet, and since when there are none of them.
type likeness struct {
	unlike int
	since  time.Time
}

// change counts a log that was attested anew.
func (l *likeness) change(was, is bool, now time.Time) {
	switch {
	case was && !is:
		l.unlike++
	case is && !was:
		if l.unlike--; l.unlike == 0 {
			l.since = now
		}
	}
}
