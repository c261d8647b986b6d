package objstore_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// A writer that loses an answer calls again with the same bytes; another writer
// of the same name finds out that it lost.
func Example() {
	ctx := context.Background()
	var store objstore.Bucket = objstore.NewMemory("example")
	store = faults.New(store, faults.Rule{Ops: []string{objstore.OpCreate}, Nth: 1, Effect: faults.FailAfter})
	bucket := objstore.Prefix(store, "region-a")

	err := bucket.Create(ctx, "manifests/0001", []byte("mine"))
	fmt.Println("first try, temporary:", objstore.IsTemporary(err))
	fmt.Println("second try:", bucket.Create(ctx, "manifests/0001", []byte("mine")))
	err = bucket.Create(ctx, "manifests/0001", []byte("theirs"))
	fmt.Println("other writer lost:", errors.Is(err, objstore.ErrExists))

	for info, err := range bucket.List(ctx, "manifests/") {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(info.Name, info.Size)
	}
	// Output:
	// first try, temporary: true
	// second try: <nil>
	// other writer lost: true
	// manifests/0001 4
}
