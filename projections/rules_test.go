package projections_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
)

// Whatever rule is registered, its own tests run the suite of laws over it, fuzz it, and
// package mergetest knows what it means.
func TestEveryRuleHasItsLaws(t *testing.T) {
	for _, rule := range projections.Rules() {
		if mergetest.Models[rule.Name()] == nil {
			t.Errorf("%s: mergetest.Models lacks it", rule.Name())
		}
		if streamOf(rule.Name()) == "" {
			t.Errorf("%s: no stream of the tests of shards is folded by it", rule.Name())
		}
		_, dir, _ := strings.Cut(reflect.TypeOf(rule).PkgPath(), "/projections/")
		laws, fuzzed := suitesOf(t, dir)
		if !laws {
			t.Errorf("%s: no test in %s runs a mergetest.Suite", rule.Name(), dir)
		}
		if !fuzzed {
			t.Errorf("%s: nothing in %s fuzzes with a mergetest.Suite", rule.Name(), dir)
		}
	}
}

// streamOf is a stream whose rule has a name, or nothing.
func streamOf(rule string) string {
	for s, r := range ruleOf {
		if r.Name() == rule {
			return s.String()
		}
	}
	return ""
}

// suitesOf says whether the tests of a package make a suite, and run and fuzz it.
func suitesOf(t *testing.T, dir string) (laws, fuzzed bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	made := false
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, _ := decl.(*ast.FuncDecl)
			ast.Inspect(decl, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CompositeLit:
					made = made || isSelector(n.Type, "mergetest", "Suite")
				case *ast.SelectorExpr:
					of, _ := n.X.(*ast.Ident)
					isOfT := of != nil && (of.Name == "t" || of.Name == "f") // of the test itself
					laws = laws || f != nil && strings.HasPrefix(f.Name.Name, "Test") && n.Sel.Name == "Run" && !isOfT
					fuzzed = fuzzed || f != nil && strings.HasPrefix(f.Name.Name, "Fuzz") && n.Sel.Name == "Fuzz" && !isOfT
				}
				return true
			})
		}
	}
	return made && laws, made && fuzzed
}

func isSelector(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	of, _ := s.X.(*ast.Ident)
	return of != nil && of.Name == pkg && s.Sel.Name == name
}
