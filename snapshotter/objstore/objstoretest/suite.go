package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Run runs the suite. open returns an empty bucket, a new one for each call, and
// cleans up with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) objstore.Bucket) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, b objstore.Bucket)
	}{
		{"CreateAndRead", createAndRead},
		{"Empty", empty},
		{"Large", large},
		{"TooLarge", tooLarge},
		{"CreateNeverOverwrites", createNeverOverwrites},
		{"CreateIsIdempotent", createIsIdempotent},
		{"RacingCreators", racingCreators},
		{"RacingIdenticalCreators", racingIdenticalCreators},
		{"CreateKeepsNoBody", createKeepsNoBody},
		{"Range", ranges},
		{"NotFound", notFound},
		{"Delete", deletes},
		{"DeleteAll", deletesAll},
		{"FolderChurn", folderChurn},
		{"ListOrder", listOrder},
		{"ListPages", listPages},
		{"ListStops", listStops},
		{"Names", names},
		{"Cancelled", cancelled},
		{"Thaw", thaw},
		{"Holds", holds},
		{"Check", check},
		{"Probe", probe},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func createAndRead(t *testing.T, b objstore.Bucket) {
	body := []byte("hello, bucket")
	create(t, b, "folder/object-1.bin", body)
	wantBody(t, b, "folder/object-1.bin", body)
	info, err := b.Stat(t.Context(), "folder/object-1.bin")
	if err != nil || info.Name != "folder/object-1.bin" || info.Size != int64(len(body)) {
		t.Errorf("Stat = %+v, %v", info, err)
	}
	if info.Modified.IsZero() {
		t.Error("Stat: no Modified")
	}
}

func empty(t *testing.T, b objstore.Bucket) {
	create(t, b, "empty", nil)
	create(t, b, "empty", []byte{}) // the same bytes
	wantBody(t, b, "empty", nil)
	wantRange(t, b, "empty", 0, 0, nil)
	if err := b.Create(t.Context(), "empty", []byte("x")); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("Create over an empty object: %v, want ErrExists", err)
	}
}

// Objects of the usual class need no thawing.
func thaw(t *testing.T, b objstore.Bucket) {
	create(t, b, "object", []byte("body"))
	if ready, err := b.Thaw(t.Context(), "object", 1); err != nil || !ready {
		t.Errorf("Thaw = %t, %v", ready, err)
	}
	if _, err := b.Thaw(t.Context(), "object", 0); !errors.Is(err, objstore.ErrInvalid) {
		t.Errorf("Thaw for 0 days: %v, want ErrInvalid", err)
	}
	if _, err := b.Thaw(t.Context(), "nothing", 1); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("Thaw of nothing: %v, want ErrNotFound", err)
	}
}

// Nothing holds objects that nobody has locked, nor those that are not there.
func holds(t *testing.T, b objstore.Bucket) {
	create(t, b, "folder/object", []byte("body"))
	got, err := b.Holds(t.Context(), []string{"folder/object", "nothing"})
	if err != nil || len(got) != 2 || got[0] != (objstore.Hold{}) || got[1] != (objstore.Hold{}) || got[0].Holds(time.Now()) {
		t.Errorf("Holds = %+v, %v", got, err)
	}
	if got, err := b.Holds(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("Holds of nothing = %+v, %v", got, err)
	}
	if _, err := b.Holds(t.Context(), []string{"folder/object", "/"}); !errors.Is(err, objstore.ErrInvalid) {
		t.Errorf("Holds of no name: %v, want ErrInvalid", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Holds(ctx, []string{"folder/object"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Holds of a caller that has gone: %v", err)
	}
}

func large(t *testing.T, b objstore.Bucket) {
	body := pattern(1, 16<<20)
	create(t, b, "large", body)
	create(t, b, "large", body)
	wantBody(t, b, "large", body)
	wantRange(t, b, "large", 9<<20-1, 1<<20+2, body[9<<20-1:10<<20+1])
}

func tooLarge(t *testing.T, b objstore.Bucket) {
	err := b.Create(t.Context(), "too-large", make([]byte, objstore.MaxObjectBytes+1))
	wantKind(t, err, objstore.ErrInvalid)
	_, err = b.Stat(t.Context(), "too-large")
	wantKind(t, err, objstore.ErrNotFound)
}

func createNeverOverwrites(t *testing.T, b objstore.Bucket) {
	create(t, b, "once", []byte("first"))
	for _, other := range []string{"other", "first and more", "", "firsT"} {
		err := b.Create(t.Context(), "once", []byte(other))
		wantKind(t, err, objstore.ErrExists)
		if objstore.IsTemporary(err) {
			t.Errorf("IsTemporary(%v)", err)
		}
	}
	wantBody(t, b, "once", []byte("first"))
}

func createIsIdempotent(t *testing.T, b objstore.Bucket) {
	body := pattern(2, 300_000)
	for range 3 {
		create(t, b, "again", body)
	}
	wantBody(t, b, "again", body)
}

// racingCreators starts 32 creators of one name at once: exactly one may win, and
// its bytes must be the ones stored.
func racingCreators(t *testing.T, b objstore.Bucket) {
	for round := range 3 {
		name := fmt.Sprintf("race/%d", round)
		errs := race(32, func(i int) error {
			return b.Create(t.Context(), name, pattern(uint64(i), 4096))
		})
		winner, winners := -1, 0
		for i, err := range errs {
			switch {
			case err == nil:
				winner = i
				winners++
			case !errors.Is(err, objstore.ErrExists):
				t.Errorf("creator %d: %v, want ErrExists", i, err)
			}
		}
		if winners != 1 {
			t.Fatalf("round %d: %d creators won, want 1", round, winners)
		}
		wantBody(t, b, name, pattern(uint64(winner), 4096))
	}
}

func racingIdenticalCreators(t *testing.T, b objstore.Bucket) {
	body := pattern(3, 4096)
	for i, err := range race(16, func(int) error { return b.Create(t.Context(), "same", body) }) {
		if err != nil {
			t.Errorf("creator %d: %v", i, err)
		}
	}
	wantBody(t, b, "same", body)
}

func createKeepsNoBody(t *testing.T, b objstore.Bucket) {
	body := []byte("as it was")
	create(t, b, "kept", body)
	copy(body, "otherwise")
	wantBody(t, b, "kept", []byte("as it was"))
}

func ranges(t *testing.T, b objstore.Bucket) {
	body := []byte("0123456789")
	create(t, b, "range", body)
	for _, r := range []struct{ offset, length int64 }{{0, 10}, {0, 1}, {9, 1}, {3, 4}, {0, 0}, {5, 0}, {10, 0}} {
		wantRange(t, b, "range", r.offset, r.length, body[r.offset:r.offset+r.length])
	}
	for _, r := range []struct{ offset, length int64 }{
		{0, 11}, {9, 2}, {10, 1}, {11, 0}, {100, 5}, {-1, 1}, {0, -1}, {5, 1<<63 - 1},
	} {
		rc, err := b.GetRange(t.Context(), "range", r.offset, r.length)
		if err == nil {
			t.Errorf("GetRange(%d, %d) succeeded", r.offset, r.length)
			closeBody(t, rc)
			continue
		}
		wantKind(t, err, objstore.ErrInvalid)
	}
}

func notFound(t *testing.T, b objstore.Bucket) {
	create(t, b, "folder/there", nil)
	for _, name := range []string{"nothing", "folder", "folder/not-there", "no/such/folder"} {
		_, _, err := b.Get(t.Context(), name)
		wantKind(t, err, objstore.ErrNotFound)
		_, err = b.GetRange(t.Context(), name, 0, 1)
		wantKind(t, err, objstore.ErrNotFound)
		_, err = b.GetRange(t.Context(), name, 0, 0)
		wantKind(t, err, objstore.ErrNotFound)
		_, err = b.Stat(t.Context(), name)
		wantKind(t, err, objstore.ErrNotFound)
		if objstore.IsTemporary(err) {
			t.Errorf("IsTemporary(%v)", err)
		}
		var e *objstore.Error
		if !errors.As(err, &e) || !strings.HasSuffix(e.Object, name) || !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %q: %v", name, err)
		}
	}
}

func deletes(t *testing.T, b objstore.Bucket) {
	create(t, b, "a/gone", []byte("x"))
	create(t, b, "a/stays", []byte("y"))
	for _, name := range []string{"a/gone", "a/gone", "a/never", "never/there"} {
		if err := b.Delete(t.Context(), name); err != nil {
			t.Errorf("Delete(%q): %v", name, err)
		}
	}
	_, err := b.Stat(t.Context(), "a/gone")
	wantKind(t, err, objstore.ErrNotFound)
	wantBody(t, b, "a/stays", []byte("y"))
	wantNames(t, b, "", []string{"a/stays"})
}

// deletesAll deletes more objects than a store does in one request. What is not there is
// gone, as is what is named twice; a name that is none is told, and the others go.
func deletesAll(t *testing.T, b objstore.Bucket) {
	var names []string
	errs := race(8, func(i int) error {
		for n := i; n < 1_203; n += 8 {
			if err := b.Create(t.Context(), fmt.Sprintf("many/%04d", n), []byte("x")); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	create(t, b, "other", []byte("y"))
	for n := range 1_202 {
		names = append(names, fmt.Sprintf("many/%04d", n))
	}
	names = append(names, "many/0007", "never/there", "no//name", "many/0008")
	errs = b.DeleteAll(t.Context(), names)
	if len(errs) != len(names) {
		t.Fatalf("%d answers for %d names", len(errs), len(names))
	}
	for i, err := range errs {
		if names[i] == "no//name" {
			wantKind(t, err, objstore.ErrInvalid)
		} else if err != nil {
			t.Errorf("%s: %v", names[i], err)
		}
	}
	wantNames(t, b, "", []string{"many/1202", "other"})
	if errs := b.DeleteAll(t.Context(), nil); len(errs) > 0 {
		t.Errorf("of nothing: %v", errs)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range b.DeleteAll(ended, []string{"other", "many/1202"}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v", err)
		}
	}
	wantNames(t, b, "", []string{"many/1202", "other"})
}

// folderChurn creates and deletes in one folder at once, where a store on a file
// system may remove a folder that it believes empty under a new object.
func folderChurn(t *testing.T, b objstore.Bucket) {
	errs := race(8, func(i int) error {
		for j := range 12 {
			name := fmt.Sprintf("churn/deep/%d-%d", i, j)
			if err := b.Create(t.Context(), name, []byte(name)); err != nil {
				return err
			}
			if _, err := b.Stat(t.Context(), name); err != nil {
				return err
			}
			if err := b.Delete(t.Context(), name); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	wantNames(t, b, "", nil)
}

// listOrder has names whose order differs between bytes and path segments: "-"
// and "." sort before "/", digits and letters after it.
func listOrder(t *testing.T, b objstore.Bucket) {
	all := []string{
		"a-b/1", "a.b", "a/b/c", "a/b-c", "a/b.c", "a/b0", "a/z", "a0", "aA", "a_", "b=1/x", "B", "Z/1", "Z-1", "_x", "0/0/0", "00",
	}
	for _, name := range rand.Perm(len(all)) {
		create(t, b, all[name], []byte(all[name]))
	}
	slices.Sort(all)
	for _, prefix := range []string{"", "a", "a/", "a/b", "a-", "B", "b", "b=1/", "Z", "0/0/", "nothing", "a/b/c", "a/b/c/d"} {
		var want []string
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		wantNames(t, b, prefix, want)
		for _, after := range append([]string{"A", "a/b/", "a/b/d", "zz"}, all...) {
			rest := slices.DeleteFunc(slices.Clone(want), func(name string) bool { return name <= after })
			if got := collect(t, b.ListAfter(t.Context(), prefix, after)); !slices.Equal(got, rest) {
				t.Errorf("ListAfter(%q, %q): %q, want %q", prefix, after, got, rest)
			}
		}
	}
	for info, err := range b.List(t.Context(), "a") {
		if err != nil || info.Size != int64(len(info.Name)) || info.Modified.IsZero() {
			t.Errorf("List: %+v, %v", info, err)
		}
	}
}

// listPages has more objects than fit in a page of S3, with the page's edge in
// the middle of a folder and around folders.
func listPages(t *testing.T, b objstore.Bucket) {
	const objects = 1100
	want := make([]string, objects)
	for i := range want {
		want[i] = fmt.Sprintf("pages/%02d/%06d", i/90, i)
	}
	errs := race(16, func(w int) error {
		for i := w; i < objects; i += 16 {
			if err := b.Create(t.Context(), want[i], nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	wantNames(t, b, "", want)
	wantNames(t, b, "pages/", want)
	wantNames(t, b, "pages/11/00", want[990:1080])
	for _, n := range []int{0, 50, 999, 1098, 1099} {
		if got := collect(t, b.ListAfter(t.Context(), "pages/", want[n])); !slices.Equal(got, want[n+1:]) {
			t.Errorf("ListAfter name %d: %d names, want %d", n, len(got), objects-n-1)
		}
	}
}

func listStops(t *testing.T, b objstore.Bucket) {
	for i := range 5 {
		create(t, b, fmt.Sprintf("stop/%d", i), nil)
	}
	var got []string
	for info, err := range b.List(t.Context(), "stop/") {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, info.Name); len(got) == 2 {
			break
		}
	}
	if !slices.Equal(got, []string{"stop/0", "stop/1"}) {
		t.Errorf("got %q", got)
	}
	list := b.List(t.Context(), "stop/")
	for range 2 { // a sequence can be ranged over again
		if got := collect(t, list); len(got) != 5 {
			t.Errorf("got %q", got)
		}
	}
}

func check(t *testing.T, b objstore.Bucket) {
	if err := b.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if b.String() == "" {
		t.Error("String is empty")
	}
}

func probe(t *testing.T, b objstore.Bucket) {
	if err := objstore.Probe(t.Context(), b, "probe/1"); err != nil {
		t.Error(err)
	}
	wantNames(t, b, "", nil)
}

// race runs n calls of f at once and returns their errors.
func race(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

func create(t *testing.T, b objstore.Bucket, name string, body []byte) {
	t.Helper()
	if err := b.Create(t.Context(), name, body); err != nil {
		t.Fatalf("Create(%q): %v", name, err)
	}
}

func wantBody(t *testing.T, b objstore.Bucket, name string, want []byte) {
	t.Helper()
	got, err := objstore.ReadAll(context.WithoutCancel(t.Context()), b, name, objstore.MaxObjectBytes)
	if err != nil {
		t.Fatalf("reading %q: %v", name, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%q has %d other bytes, want %d", name, len(got), len(want))
	}
}

// pattern makes n bytes that no other seed makes.
func pattern(seed uint64, n int) []byte {
	body := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(body) // cannot fail
	return body
}
