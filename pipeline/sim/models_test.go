package sim_test

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/sim"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// rowsOf reads all entries of a model through a node, page by page.
func rowsOf(t *testing.T, n *sim.Node, model string) (rows []string, err error) {
	p := api.QueryModelParams{Name: model, Limit: 4}
	for {
		page, err := n.Process().QueryModel(t.Context(), p)
		if err != nil {
			return nil, err
		}
		if len(page.Rows) > p.Limit || len(page.Stale) > 0 {
			t.Errorf("%s: %+v", n, page)
		}
		for _, row := range page.Rows {
			rows = append(rows, fmt.Sprintf("%s of %s%s: %s", row.Key, row.Of, row.Log, row.Value))
		}
		if page.Next == nil {
			return rows, nil
		}
		p.After = page.Next
	}
}

// Whichever node is asked for a read model, the answer is that of all shards, in order
// and page by page; while a shard has no owner there is none.
func TestSimModels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2, Models: []string{"event-counts", "sessions-by-user"}}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		r := w.Regions[0]
		spread(t, r)
		for i := range 30 {
			if err := w.Regions[i%3].Put(t.Context(), fmt.Sprintf("s-%02d", i), fmt.Sprintf(`{"user": "user-%d"}`, i%7)); err != nil {
				t.Fatal(err)
			}
		}
		w.Settle()
		var want []string
		for user := range 7 {
			for i := user; i < 30; i += 7 {
				want = append(want, fmt.Sprintf("user-%d of s-%02d: ", user, i))
			}
		}
		rebuilt := func() {
			for _, n := range r.Nodes {
				if got, err := rowsOf(t, n, "sessions-by-user"); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %v, %v\nwant %v", n, got, err, want)
				}
			}
		}
		rebuilt()
		for _, n := range r.Nodes {
			list, err := n.Process().ListModels(t.Context())
			if err != nil || len(list.Models) != 2 || list.Models[1].States[derived.Running] != 3 || list.Models[1].Missing != 0 {
				t.Errorf("%s: %+v, %v", n, list, err)
			}
			d, err := n.Process().RebuildModel(t.Context(), api.RebuildModelParams{Name: "sessions-by-user"})
			for begun := time.Now(); err == nil && d.States[derived.Running] < 3 && time.Since(begun) < time.Minute; time.Sleep(100 * time.Millisecond) {
				d, err = n.Process().ShowModel(t.Context(), api.ShowModelParams{Name: d.Name})
			}
			if err != nil || d.States[derived.Running] != 3 || len(d.Shards) != 3 {
				t.Errorf("%s: %+v, %v", n, d, err)
			}
			rebuilt()
		}
		r.Nodes[0].Kill()
		var asked sync.WaitGroup
		for what, ask := range map[string]func(node *sim.Node) error{
			"query": func(n *sim.Node) error { _, err := rowsOf(t, n, "event-counts"); return err },
			"list":  func(n *sim.Node) error { _, err := n.Process().ListModels(t.Context()); return err },
			"rebuild": func(n *sim.Node) error {
				_, err := n.Process().RebuildModel(t.Context(), api.RebuildModelParams{Name: "sessions-by-user"})
				return err
			},
		} {
			asked.Go(func() {
				if err := ask(r.Nodes[1]); events.KindOf(err) != events.KindNotReady || !strings.Contains(err.Error(), "shard ") || !strings.Contains(err.Error(), "node ") {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		asked.Wait()
		time.Sleep(15 * time.Second)
		w.Settle()
		if got, err := rowsOf(t, r.Nodes[1], "sessions-by-user"); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v, %v\nwant %v", got, err, want)
		}
		r.Nodes[0].Start()
	})
}

// A model that only some of the nodes are configured to have is shown as absent where it
// is, and neither answered nor rebuilt in part.
func TestSimModelOfSomeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		r := w.Regions[0]
		r.Nodes[1].Stop()
		r.Nodes[1].Models = []string{"event-counts", "sessions-by-user"}
		r.Nodes[1].Start()
		spread(t, r)
		w.Settle()
		for _, n := range r.Nodes {
			d, err := n.Process().ShowModel(t.Context(), api.ShowModelParams{Name: "sessions-by-user"})
			absent := len(ownOf(t, r.Nodes[0]))
			if err != nil || d.States[api.ModelAbsent] != absent || d.Missing < absent || len(d.Shards) != 3 {
				t.Errorf("%s: %+v, %v", n, d, err)
			}
			_, err = rowsOf(t, n, "sessions-by-user")
			if events.KindOf(err) != events.KindNotFound {
				t.Errorf("%s: %v", n, err)
			}
			_, err = n.Process().RebuildModel(t.Context(), api.RebuildModelParams{Name: "sessions-by-user"})
			if events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "shard ") {
				t.Errorf("%s: %v", n, err)
			}
		}
	})
}
