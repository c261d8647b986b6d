package pipeline

import (
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// What failed is restored again as what it was, also by reports of before.
func TestRepeated(t *testing.T) {
	made := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	id, at := format.NewID(made, [4]byte{1}), made.Add(90*time.Second+time.Millisecond)
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
		"the newest, no plan":     {format.Trial{Aim: aimNewest, Error: "x"}, "", ""},
		"no id":                   {format.Trial{Aim: "backup x", Error: "x"}, "", ""},
		"no time":                 {format.Trial{Aim: "time x", Backup: id, Error: "x"}, "backup " + id, ""},
	} {
		if got, is := repeated(c.was); is != (c.aim != "") || got.aim != c.aim || got.instead != c.instead {
			t.Errorf("%s: %+v, %t", name, got, is)
		}
	}
}
