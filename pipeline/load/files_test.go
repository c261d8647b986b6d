package load_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

// tree makes files below a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, []byte(content))
	}
	return root
}

func openFiles(t *testing.T, root, prefix string) *load.Input {
	t.Helper()
	in, err := load.Files(root, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func filesOf(t *testing.T, in *load.Input) (list []string) {
	t.Helper()
	items, faults := read(t, in)
	for _, item := range items {
		list = append(list, describe(item))
	}
	return append(list, faults...)
}

func TestFiles(t *testing.T) {
	root := tree(t, map[string]string{"b.txt": "two", "a/x y": "one", "a/z/\u00fc": "", "c": "\x00\xff"})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b.txt", filepath.Join(root, "d")); err != nil { // not followed
		t.Fatal(err)
	}
	want := []string{`1  "p/a/x y"="one" - `, `2  "p/a/z/ü"="" - `, `3  "p/b.txt"="two" - `, `4  "p/c"="\x00\xff" - `}
	in := openFiles(t, root, "p/")
	if got := filesOf(t, in); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := filesOf(t, in); !slices.Equal(got, want) {
		t.Errorf("the second time: %q", got)
	}
	for name, same := range map[string]string{"a link to it": link, "a longer path": root + "/../root/."} {
		again := openFiles(t, same, "p/")
		if got := filesOf(t, again); !slices.Equal(got, want) || again.ID != in.ID {
			t.Errorf("%s: %q, the ID is the same: %v", name, got, again.ID == in.ID)
		}
	}
	if got := filesOf(t, openFiles(t, filepath.Join(root, "b.txt"), "")); !slices.Equal(got, []string{`1  "b.txt"="two" - `}) {
		t.Errorf("a single file: %q", got)
	}
	if got := filesOf(t, openFiles(t, filepath.Join(root, "d"), "")); !slices.Equal(got, []string{`1  "d"="two" - `}) {
		t.Errorf("a link to a file: %q", got)
	}
	if got := filesOf(t, openFiles(t, t.TempDir(), "")); got != nil {
		t.Errorf("an empty directory: %q", got)
	}
	if in, err := load.Files(filepath.Join(root, "none"), ""); err == nil {
		t.Errorf("no directory: %v", in)
	}
}

func TestFilesID(t *testing.T) {
	base := map[string]string{"a": "1", "b": "2"}
	id := openFiles(t, tree(t, base), "p").ID
	if again := openFiles(t, tree(t, base), "p").ID; again != id {
		t.Error("the same files elsewhere have another ID")
	}
	for name, other := range map[string]string{
		"prefix":  openFiles(t, tree(t, base), "q").ID,
		"content": openFiles(t, tree(t, map[string]string{"a": "1", "b": "3"}), "p").ID,
		"name":    openFiles(t, tree(t, map[string]string{"a": "1", "c": "2"}), "p").ID,
		"swapped": openFiles(t, tree(t, map[string]string{"a": "2", "b": "1"}), "p").ID,
		"more":    openFiles(t, tree(t, map[string]string{"a": "1", "b": "2", "c": ""}), "p").ID,
	} {
		if other == id {
			t.Errorf("%s: the ID is the same", name)
		}
	}
}

// A file that is not what it was is not written.
func TestFilesChange(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"content": func(path string) error { return os.WriteFile(path, []byte("new"), 0o600) },
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, map[string]string{"a": "1", "b": "2", "c": "3"})
			path := filepath.Join(root, "b")
			r := newRegion(us)
			cfg := configFor(t)
			cfg.SetBatchEvents(1)
			cfg.Checked = func(int, int) {
				if err := change(path); err != nil {
					t.Fatal(err)
				}
			}
			_, err := load.Run(t.Context(), openFiles(t, root, ""), nodesOf(r), cfg)
			wantKind(t, err, events.KindFailed, path)
			for _, log := range r.logs {
				for _, rec := range log {
					if string(rec.Key) != "a" {
						t.Errorf("%s = %s was written", rec.Key, rec.Value)
					}
				}
			}
		})
	}
}

func TestFilesTooLarge(t *testing.T) {
	root := tree(t, map[string]string{"a": "1", "z": "2"})
	large := filepath.Join(root, "large")
	writeFile(t, large, nil)
	if err := os.Truncate(large, events.MaxValueBytes+1); err != nil { // takes no space
		t.Fatal(err)
	}
	r := newRegion(us)
	_, err := load.Run(t.Context(), openFiles(t, root, ""), nodesOf(r), configFor(t))
	wantKind(t, err, events.KindInvalid, "nothing was loaded", ":2: ", large, "16777216")
	if r.count() > 0 {
		t.Error("something was written")
	}
	if err := os.Truncate(large, events.MaxValueBytes); err != nil {
		t.Fatal(err)
	}
	if got := filesOf(t, openFiles(t, root, "")); len(got) != 3 || strings.Contains(got[1], "more than") {
		t.Errorf("the largest that is possible: %.200q", got)
	}
}
