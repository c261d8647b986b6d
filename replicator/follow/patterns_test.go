package follow_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/follow"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		include, exclude string // separated by spaces
		yes, no          string
	}{
		{"session", "", "session", "sessions asession"},
		{"app-*", "", "app- app-1", "app xapp-1"},
		{"*", "", "a session", "__consumer_offsets evenkeel.links us.session eu_2.session"},
		{"*", "b* c", "a cc", "b bb c"},
		{"c", "c", "", "c"},
		{"c", "*", "", "c"},
		{"/a|b/", "", "a b", "ab ac xa b2"},
		{"/(?i)app-[0-9]+/", "", "app-1 APP-22", "app- xapp-1 app-1x"},
		{"a /b+/ c*", "/.*x/", "a b bb cd", "cx aa"},
		{"us.session __x *", "", "us.session __x y", "us.other __y"},
		{"us.*", "", "", "us.session"},
		{"/us\\.session/", "", "", "us.session"},
		{"*", "", "ap.session us_x.session us usual.x _", ""},
		{"", "a", "", "a b"},
	} {
		p, err := follow.NewPatterns(strings.Fields(c.include), strings.Fields(c.exclude))
		if err != nil {
			t.Fatal(err)
		}
		p = p.Sparing(follow.Internal("us", "eu"))
		for _, name := range strings.Fields(c.yes) {
			if !p.Match(name) {
				t.Errorf("include %q, exclude %q: %s is not selected", c.include, c.exclude, name)
			}
		}
		for _, name := range strings.Fields(c.no) {
			if p.Match(name) {
				t.Errorf("include %q, exclude %q: %s is selected", c.include, c.exclude, name)
			}
		}
	}
}

func TestZeroPatternsSelectNothing(t *testing.T) {
	if (follow.Patterns{}).Match("a") || (follow.Patterns{}).Match("") {
		t.Error("selected")
	}
}

func TestPatternsNameAllMistakes(t *testing.T) {
	bad := []string{"", "a*b", "**", "/", "/a", "//", "/(/", "/a)|(b/", " a", "/[/"}
	_, err := follow.NewPatterns([]string{"fine"}, bad)
	if events.KindOf(err) != events.KindInvalid {
		t.Fatalf("%v", err)
	}
	if n := strings.Count(err.Error(), "exclude pattern"); n != len(bad) {
		t.Errorf("%d of %d mistakes told: %v", n, len(bad), err)
	}
	for _, p := range bad {
		if _, err := follow.NewPatterns([]string{p}, nil); err == nil || !strings.Contains(err.Error(), "include pattern") {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func FuzzPatterns(f *testing.F) {
	f.Add("app-*", "/a.*/", "app-1")
	f.Add("/a)|(b/", "x", "b")
	f.Fuzz(func(t *testing.T, include, exclude, name string) {
		p, err := follow.NewPatterns([]string{include}, []string{exclude})
		if err != nil {
			return
		}
		without, err := follow.NewPatterns([]string{include}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if p.Match(name) && !without.Match(name) {
			t.Error("an exclusion adds")
		}
		same, err := follow.NewPatterns([]string{include}, []string{include})
		if err == nil && same.Match(name) {
			t.Error("exclude does not win")
		}
		spared := without.Sparing(func(string) bool { return true })
		exact := !strings.HasSuffix(include, "*") && !(len(include) > 1 && include[0] == '/')
		if spared.Match(name) != (exact && name == include) {
			t.Error("an internal name is selected by more than its name")
		}
	})
}

// Regexps select by the whole name, whatever is in them.
func TestRegexpsAreAnchored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-c]{1,3}`)
		a, b, name := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "name")
		p, err := follow.NewPatterns([]string{"/" + a + "|" + b + "/"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Match(name); got != (name == a || name == b) {
			t.Fatalf("%v", got)
		}
	})
}
