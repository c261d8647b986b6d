package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/evenkeel/evenkeel/cmd/cli"
)

// What becomes of a region is told to people, and to programs.
func TestChangeCommands(t *testing.T) {
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"result": %q}`, r.Method+" "+r.URL.Path)
	}))
	defer control.Close()
	for _, verb := range []string{"stop", "start", "wipe", "restore"} {
		said := fmt.Sprintf("%q", "POST /regions/us-east-1/"+verb)
		for format, want := range map[string]string{
			"table": "us-east-1: " + said + "\n",
			"json":  "{\n  \"region\": \"us-east-1\",\n  \"result\": " + said + "\n}\n",
		} {
			var out bytes.Buffer
			c := root()
			c.SetOut(&out)
			if code := cli.Main(c, []string{verb, "us-east-1", "--lab", control.URL, "-o", format}); code != 0 || out.String() != want {
				t.Errorf("%s -o %s: exit %d, %q", verb, format, code, out.String())
			}
		}
	}
}
