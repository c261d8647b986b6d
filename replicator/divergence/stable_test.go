package divergence_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

func TestStable(t *testing.T) {
	us, west, eu := testOrigins[0], testOrigins[1], testOrigins[2]
	said := func(o events.Origin, stream events.Stream, partition int32, deps string) divergence.Attestation {
		c, err := events.ParseContext(deps)
		if err != nil {
			t.Fatal(err)
		}
		return divergence.Attestation{Log: events.Log{Origin: o, Stream: stream, Partition: partition}, Applied: c}
	}
	for _, c := range []struct {
		name string
		said []divergence.Attestation
		want string
	}{
		{"nobody", nil, ""},
		{"one is missing", []divergence.Attestation{said(us, "session", 0, "us-east-1@9"), said(west, "session", 0, "us-east-1@9")}, ""},
		{"all", []divergence.Attestation{
			said(us, "session", 0, "eu-central-1_2@4,us-east-1@9"),
			said(west, "session", 0, "eu-central-1_2@5,us-east-1@7,us-west-1@3"),
			said(eu, "session", 0, "eu-central-1_2@6,us-east-1@8"),
		}, "eu-central-1_2/session/0@4,us-east-1/session/0@7"},
		{"partitions and streams are apart", []divergence.Attestation{
			said(us, "session", 0, "us-east-1@9"), said(west, "session", 1, "us-east-1@9"), said(eu, "config", 0, "us-east-1@9"),
		}, ""},
	} {
		if got := divergence.Stable(testOrigins, c.said).String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// What is stable has been folded by every region, and never goes down while no
// state is lost.
func TestStableIsFolded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"))
		before := events.Vector{}
		for range 200 {
			switch w.rng.IntN(4) {
			case 0:
				w.write(1 + w.rng.IntN(4))
			case 1:
				w.mirror(w.regions[w.rng.IntN(3)], w.regions[w.rng.IntN(3)], 1+w.rng.IntN(9))
			case 2:
				w.regions[w.rng.IntN(3)].apply(1 + w.rng.IntN(5))
			case 3:
				w.second()
			}
			stable := w.regions[0].judge.Stable()
			if order := stable.Compare(before); order != events.Equal && order != events.After {
				t.Fatalf("went from %s to %s", before, stable)
			}
			for log, next := range stable {
				for _, r := range w.regions {
					if r.folds[log].state().next < next {
						t.Fatalf("%s is stable up to %d, %s has folded %d", log, next, r.origin, r.folds[log].state().next)
					}
				}
				least, most, err := w.regions[0].judge.Known(log.Stream, log.Partition, time.Time{}) // however silent
				if err != nil || least.Next(log.Origin) != next {
					t.Fatalf("%s is stable up to %d, known are %s, %v", log, next, least, err)
				}
				for _, r := range w.regions {
					said := w.regions[0].judge.Applied(log)[r.origin]
					if said < next || said > most.Next(log.Origin) {
						t.Fatalf("%s has folded %s up to %d as it says, all up to %d, some up to %s", r.origin, log, said, next, most)
					}
				}
			}
			before = stable
		}
		w.quiesce()
		if len(w.regions[0].judge.Stable()) == 0 && slices.ContainsFunc(slices.Collect(maps.Values(w.regions[0].log)), func(l []record) bool { return len(l) > 0 }) {
			t.Fatal("all is folded everywhere and nothing is stable")
		}
	})
}

// Nothing is known while a region is silent, folds otherwise, or lags behind its own log; logs of former incarnations count
// like others, and what some region alone has is told.
func TestKnown(t *testing.T) {
	us, west, eu := testOrigins[0], testOrigins[1], testOrigins[2]
	now := time.UnixMilli(1_750_000_000_000)
	judge := divergence.NewJudge(divergence.Config{
		Origin: us, Origins: testOrigins, Logs: allLogs(), Format: func(events.Stream) uint32 { return testFormat },
	}, newScene(t), now)
	made, lagging := now, false
	say := func(o events.Origin, deps string, format uint32) {
		t.Helper()
		c, err := events.ParseContext(deps)
		if err != nil {
			t.Fatal(err)
		}
		a := divergence.Attestation{Log: events.Log{Origin: o, Stream: "session"}, Applied: c, Format: format, Made: made, Lagging: lagging}
		if err := judge.Attested(o, a, now); err != nil {
			t.Fatal(err)
		}
	}
	want := func(least, most, why string) {
		t.Helper()
		a, b, err := judge.Known("session", 0, now)
		if a.String() != least || b.String() != most || (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%s to %s, %v; want %s to %s, %s", a, b, err, least, most, why)
		}
	}
	want("", "", "no attestation of us-east-1/session/0")
	say(us, "eu-central-1@7,eu-central-1_2@4,us-east-1@9", testFormat)
	say(west, "eu-central-1@9,eu-central-1_2@5,us-east-1@7,us-west-1@3", testFormat)
	want("", "", "no attestation of eu-central-1_2/session/0")
	say(eu, "eu-central-1@8,eu-central-1_2@6,us-east-1@8", testFormat+1)
	want("", "", "eu-central-1 runs another version")
	say(eu, "eu-central-1@8,eu-central-1_2@6,us-east-1@8", testFormat)
	want("eu-central-1@7,eu-central-1_2@4,us-east-1@7", "eu-central-1@9,eu-central-1_2@6,us-east-1@9,us-west-1@3", "")
	lagging = true
	say(west, "eu-central-1@9,eu-central-1_2@5,us-west-1@2", testFormat)
	want("", "", "us-west-1 lags behind its own log us-west-1/session/0")
	lagging = false
	say(west, "eu-central-1@9,eu-central-1_2@5,us-east-1@7,us-west-1@3", testFormat)
	want("eu-central-1@7,eu-central-1_2@4,us-east-1@7", "eu-central-1@9,eu-central-1_2@6,us-east-1@9,us-west-1@3", "")
	// It counts when an attestation was made, not when it came; and none is made in the future.
	now = now.Add(divergence.SilentAfter + time.Second)
	made = now.Add(time.Hour)
	say(us, "eu-central-1@7,eu-central-1_2@4,us-east-1@9", testFormat)
	made = now.Add(-divergence.SilentAfter)
	say(west, "eu-central-1@9,eu-central-1_2@5,us-east-1@7,us-west-1@3", testFormat)
	made = made.Add(-time.Millisecond)
	say(eu, "eu-central-1@8,eu-central-1_2@6,us-east-1@8", testFormat)
	want("", "", "eu-central-1 is silent: its newest attestation of eu-central-1_2/session/0 was made 2m0s ago")
	made = now
	say(eu, "eu-central-1@8,eu-central-1_2@6,us-east-1@8", testFormat)
	want("eu-central-1@7,eu-central-1_2@4,us-east-1@7", "eu-central-1@9,eu-central-1_2@6,us-east-1@9,us-west-1@3", "")
	now = now.Add(time.Millisecond)
	want("", "", "us-west-1 is silent")
	made = now
	say(west, "eu-central-1@9,eu-central-1_2@5,us-east-1@7,us-west-1@3", testFormat)
	now = now.Add(divergence.SilentAfter - time.Millisecond)
	want("eu-central-1@7,eu-central-1_2@4,us-east-1@7", "eu-central-1@9,eu-central-1_2@6,us-east-1@9,us-west-1@3", "")
	now = now.Add(2 * time.Millisecond)
	want("", "", "us-east-1 is silent")
	applied := judge.Applied(events.Log{Origin: west, Stream: "session"})
	if want := map[events.Origin]int64{us: 0, west: 3, eu: 0}; !maps.Equal(applied, want) {
		t.Errorf("%v, want %v", applied, want)
	}
}

// The longest hold of any region counts, as each said last.
func TestHeld(t *testing.T) {
	now := time.UnixMilli(1_750_000_000_000)
	judge := divergence.NewJudge(divergence.Config{
		Origin: testOrigins[0], Origins: testOrigins, Logs: allLogs(), Format: func(events.Stream) uint32 { return testFormat },
	}, newScene(t), now)
	for i, c := range []struct {
		origin     int
		told, want time.Duration
	}{{0, time.Hour, time.Hour}, {1, 3 * time.Hour, 3 * time.Hour}, {2, 0, 3 * time.Hour}, {2, 2 * time.Hour, 3 * time.Hour}, {1, time.Minute, 2 * time.Hour}} {
		now = now.Add(time.Second)
		a := divergence.Attestation{Log: events.Log{Origin: testOrigins[c.origin], Stream: "session"}, Format: testFormat, Made: now, Held: c.told}
		if err := judge.Attested(a.Log.Origin, a, now); err != nil {
			t.Fatal(err)
		}
		if got := judge.Held(); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
}

// Whoever attests any log of a stream in another format has a shard that it folds otherwise, and all begins
// anew when it does not any more; other streams do not matter.
func TestAlike(t *testing.T) {
	now := time.UnixMilli(1_750_000_000_000)
	judge := divergence.NewJudge(divergence.Config{
		Origin: testOrigins[0], Origins: testOrigins, Logs: allLogs(), Format: func(events.Stream) uint32 { return testFormat },
	}, newScene(t), now)
	say := func(log events.Log, format uint32) {
		t.Helper()
		now = now.Add(time.Second)
		if err := judge.Attested(log.Origin, divergence.Attestation{Log: log, Format: format}, now); err != nil {
			t.Fatal(err)
		}
	}
	stream := allLogs()[0].Stream
	notAlike := func(why string) {
		t.Helper()
		if _, err := judge.Alike(stream); events.KindOf(err) != events.KindNotReady {
			t.Errorf("%s: %v", why, err)
		}
	}
	alikeSince := func(want time.Time) {
		t.Helper()
		if since, err := judge.Alike(stream); err != nil || !since.Equal(want) {
			t.Errorf("alike since %s, %v; want %s", since, err, want)
		}
	}
	var logs []events.Log
	for _, log := range allLogs() {
		if log.Stream != stream {
			say(log, testFormat+1)
			continue
		}
		logs = append(logs, log)
		notAlike("not all are attested")
		say(log, testFormat)
	}
	alikeSince(now.Add(-time.Duration(len(allLogs())-1-slices.Index(allLogs(), logs[len(logs)-1])) * time.Second))
	since := now
	for _, log := range logs {
		say(log, testFormat)
	}
	if got, err := judge.Alike(stream); err != nil || got.After(since) {
		t.Errorf("alike since %s, %v, though nothing has changed", got, err)
	}
	for _, log := range logs {
		say(log, testFormat+1)
		say(log, testFormat+2)
		notAlike(log.String())
		say(log, testFormat)
		alikeSince(now)
	}
	if _, err := judge.Alike("nonsense"); err == nil {
		t.Error("a stream that there is not is alike")
	}
}
