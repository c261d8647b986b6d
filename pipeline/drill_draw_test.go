package pipeline

import (
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// What is known from the drill before is nothing new; what is, is.
func TestFailsAnew(t *testing.T) {
	ok, bad := format.Trial{Aim: aimNewest}, func(aim string) format.Trial { return format.Trial{Aim: aim, Error: "x"} }
	x, y := "time 2026-11-26T13:00:00Z", "time 2026-11-26T14:00:00Z"
	drill := func(trials ...format.Trial) *format.Drill { return &format.Drill{Trials: trials} }
	for name, c := range map[string]struct {
		now, before *format.Drill
		want        bool
	}{
		"all is well":       {drill(ok), drill(ok), false},
		"no drill before":   {drill(ok, bad(x)), nil, true},
		"known":             {drill(ok, bad(x)), drill(ok, bad(x)), false},
		"another one":       {drill(ok, bad(x), bad(y)), drill(ok, bad(x)), true},
		"the same backup":   {drill(ok, format.Trial{Aim: x, Backup: "a", Error: "x"}), drill(ok, format.Trial{Aim: y, Backup: "a", Error: "x"}), false},
		"another backup":    {drill(ok, format.Trial{Aim: x, Backup: "a", Error: "x"}), drill(ok, format.Trial{Aim: y, Backup: "b", Error: "x"}), true},
		"the newest failed": {drill(bad(aimNewest), bad(x)), drill(bad(aimNewest), bad(x)), true},
	} {
		if got := failsAnew(c.now, c.before); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What failed is restored again as what it was, also by reports of before.
func TestRepeated(t *testing.T) {
	made := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	id, at := format.NewID(made, [4]byte{1}), made.Add(90*time.Second+time.Millisecond)
	drilled := made.Add(time.Hour)
	time90 := "time 2026-11-26T12:01:30.001Z"
	for name, c := range map[string]struct {
		was          format.Trial
		aim, instead string // empty: it is not
	}{
		"it succeeded":            {format.Trial{Aim: "backup " + id}, "", ""},
		"a backup":                {format.Trial{Aim: "backup " + id, Error: "x"}, "backup " + id, ""},
		"a time":                  {format.Trial{Aim: time90, Backup: id, Error: "x"}, time90, id},
		"a time without a plan":   {format.Trial{Aim: time90, Error: "x"}, time90, ""},
		"the newest, a backup":    {format.Trial{Aim: aimNewest, Backup: id, StateTime: made, Error: "x"}, "backup " + id, ""},
		"the newest, by segments": {format.Trial{Aim: aimNewest, Backup: id, StateTime: at, Error: "x"}, time90, id},
		"the newest, no plan":     {format.Trial{Aim: aimNewest, Error: "x"}, "time 2026-11-26T13:00:00Z", ""},
		"no id":                   {format.Trial{Aim: "backup x", Error: "x"}, "time 2026-11-26T13:00:00Z", ""},
		"no time":                 {format.Trial{Aim: "time x", Backup: id, Error: "x"}, "backup " + id, ""},
	} {
		if got, is := repeated(c.was, drilled); is != (c.aim != "") || got.aim != c.aim || got.instead != c.instead {
			t.Errorf("%s: %+v, %t", name, got, is)
		}
	}
}
