// Package evenkeel_test holds the repository to its own rules: imports go only
// downwards, every package says what it is for, and the README's map is true.
package evenkeel_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/evenkeel/evenkeel"

// layers ranks the top level: a package may import packages of lower rank, and
// those of its own top-level folder. Folders of equal rank are siblings and
// never import each other.
var layers = map[string]int{
	"schemas":     0,
	"events":      1,
	"projections": 2, "snapshotter": 2, "replicator": 2,
	"pipeline": 3,
	"cmd":      4,
}

// pkg is one package of the repository, by its folder.
type pkg struct {
	imports     map[string]bool // of other code; all import paths
	testImports map[string]bool
	documented  bool
	files       int // without tests
}

func readPackages(t *testing.T) map[string]*pkg {
	t.Helper()
	packages := map[string]*pkg{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && name != "." || d.Name() == "testdata" || d.Name() == "build" || strings.HasSuffix(d.Name(), ".data")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		if packages[dir] == nil {
			packages[dir] = &pkg{imports: map[string]bool{}, testImports: map[string]bool{}}
		}
		packages[dir].take(f, strings.HasSuffix(name, "_test.go"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

func (p *pkg) take(f *ast.File, test bool) {
	imports := p.imports
	if test {
		imports = p.testImports
	} else {
		p.files++
		p.documented = p.documented || f.Doc.Text() != ""
	}
	for _, i := range f.Imports {
		name, _ := strconv.Unquote(i.Path.Value) // the parser has checked it
		imports[name] = true
	}
}

// ours gives the folder of an import path of this repository.
func ours(importPath string) (dir string, ok bool) {
	return strings.CutPrefix(importPath, module+"/")
}

func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func mayImport(from, to string) bool {
	return top(from) == top(to) || layers[top(to)] < layers[top(from)]
}

func TestImportsGoDownwards(t *testing.T) {
	for dir, p := range readPackages(t) {
		if dir == "." {
			continue
		}
		if _, known := layers[top(dir)]; !known {
			t.Errorf("%s: top-level folder %s has no place in the layers", dir, top(dir))
		}
		all := maps.Clone(p.imports)
		maps.Copy(all, p.testImports)
		for importPath := range all {
			if to, ok := ours(importPath); ok && !mayImport(dir, to) {
				t.Errorf("%s imports %s: imports go only downwards: schemas < events < projections, snapshotter, replicator < pipeline < cmd", dir, to)
			}
		}
	}
}

// The rule itself can say no.
func TestMayImport(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"events", "schemas", true},
		{"schemas", "events", false},
		{"projections", "snapshotter/format", false},
		{"replicator", "projections/digest", false},
		{"pipeline/lab", "snapshotter/objstore", true},
		{"pipeline/api", "pipeline", true},
		{"pipeline", "cmd/cli", false},
		{"cmd/evenkeel", "events", true},
	} {
		if got := mayImport(c.from, c.to); got != c.want {
			t.Errorf("mayImport(%s, %s) = %v", c.from, c.to, got)
		}
	}
}

// The daemon must not carry the embedded Kafka and S3 servers of the lab.
func TestDaemonIsLean(t *testing.T) {
	packages := readPackages(t)
	reached := map[string]bool{}
	var visit func(dir string)
	visit = func(dir string) {
		if reached[dir] {
			return
		}
		reached[dir] = true
		for importPath := range packages[dir].imports {
			if to, ok := ours(importPath); ok {
				visit(to)
			}
			for _, heavy := range []string{"github.com/twmb/franz-go/pkg/kfake", "github.com/versity/versitygw"} {
				if strings.HasPrefix(importPath, heavy) {
					t.Errorf("cmd/evenkeel reaches %s through %s", importPath, dir)
				}
			}
		}
	}
	visit("cmd/evenkeel")
	if !reached["pipeline"] {
		t.Error("cmd/evenkeel does not reach pipeline: this test looks at nothing")
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	for dir, p := range readPackages(t) {
		if p.files > 0 && !p.documented {
			t.Errorf("%s has no package comment", dir)
		}
		switch path.Base(dir) {
		case "common", "util", "utils", "types", "helpers", "internal":
			t.Errorf("%s: no package of that name: say what it is for", dir)
		}
	}
}

// mapRow is a row of the README's package map: | `folder` | what it is for |.
var mapRow = regexp.MustCompile("(?m)^\\| `([a-z0-9/-]+)` \\| [^|]+ \\|$")

func TestReadmeMapIsTrue(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var inReadme, inTree []string
	for _, m := range mapRow.FindAllStringSubmatch(string(readme), -1) {
		inReadme = append(inReadme, m[1])
	}
	for dir, p := range readPackages(t) {
		if p.files > 0 && dir != "." && !generated(dir) {
			inTree = append(inTree, dir)
		}
	}
	slices.Sort(inReadme)
	slices.Sort(inTree)
	for _, dir := range inTree {
		if !slices.Contains(inReadme, dir) {
			t.Errorf("%s is missing from the README's map", dir)
		}
	}
	for _, dir := range inReadme {
		if !slices.Contains(inTree, dir) {
			t.Errorf("the README's map has %s, the tree has not", dir)
		}
	}
}

// generated tells the versions of a schema family, which the map sums up.
func generated(dir string) bool {
	ok, _ := path.Match("schemas/*/v*", dir) // the pattern is well formed
	return ok
}
