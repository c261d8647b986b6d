package pipeline

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// However entries are spread over nodes, and however short the pages of these are,
// reading page by page gives every entry once and in order.
func TestJoinModelPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.IntRange(1, 4).Draw(t, "nodes")
		var all []api.PagedRow
		for key := range rapid.IntRange(0, 12).Draw(t, "keys") {
			for shard := range uint32(6) {
				if rapid.Bool().Draw(t, "there") {
					next := binary.BigEndian.AppendUint32(fmt.Appendf(nil, "k%s%d", "abc"[:key%4], key), shard)
					all = append(all, api.PagedRow{ModelRow: api.ModelRow{Key: next}, Next: next})
				}
			}
		}
		slices.SortFunc(all, func(a, b api.PagedRow) int { return derived.CompareNext(a.Next, b.Next) })
		var got [][]byte
		var after []byte
		for range len(all) + 1 {
			limit := rapid.IntRange(1, 9).Draw(t, "limit")
			var pages []*api.ModelPage
			for n := range nodes {
				pages = append(pages, pageOf(all, after, nodes, n, rapid.IntRange(1, limit).Draw(t, "of a node")))
			}
			joined := joinModelPages(pages, limit)
			for _, row := range joined.Rows {
				got = append(got, row.Key)
			}
			if len(joined.Rows) > limit {
				t.Fatalf("%d rows, the limit is %d", len(joined.Rows), limit)
			}
			if after = joined.Next; after == nil {
				break
			}
		}
		var want [][]byte
		for _, row := range all {
			want = append(want, row.Next)
		}
		if !reflect.DeepEqual(got, want) || after != nil {
			t.Fatalf("read %q, and then %q\nwant %q", got, after, want)
		}
	})
}

// pageOf is the page that a node gives, which has every so many of the shards.
func pageOf(all []api.PagedRow, after []byte, nodes, node, limit int) *api.ModelPage {
	page := &api.ModelPage{}
	for _, row := range all {
		shard := int(binary.BigEndian.Uint32(row.Next[len(row.Next)-4:]))
		switch {
		case shard%nodes != node || after != nil && derived.CompareNext(row.Next, after) <= 0:
		case len(page.Rows) == limit:
			page.More = true
			return page
		default:
			page.Rows = append(page.Rows, row)
		}
	}
	return page
}
