package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

func names(t *testing.T, b objstore.Bucket) {
	segment := strings.Repeat("s", objstore.MaxSegmentBytes)
	for _, name := range []string{"a", "A.b_c-d=e/0", "...", ".hidden", "b/..b/c..", "shard=7/" + segment} {
		create(t, b, name, []byte(name))
		wantBody(t, b, name, []byte(name))
	}
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", "a b", "a\x00b", "a\nb", "ä", "a%2fb", "a?b", "a*", "a\\b", "a+b",
		segment + "s", strings.Repeat("long/", objstore.MaxNameBytes/5) + "xxxxx",
	} {
		_, _, get := b.Get(t.Context(), name)
		_, getRange := b.GetRange(t.Context(), name, 0, 1)
		_, stat := b.Stat(t.Context(), name)
		for op, err := range map[string]error{
			"Get": get, "GetRange": getRange, "Stat": stat,
			"Create": b.Create(t.Context(), name, nil), "Delete": b.Delete(t.Context(), name),
		} {
			if !errors.Is(err, objstore.ErrInvalid) {
				t.Errorf("%s(%.40q): %v, want ErrInvalid", op, name, err)
			}
		}
	}
	for _, prefix := range []string{"/a", "a//", "a b", "*"} {
		_, err := collectErr(b.List(t.Context(), prefix))
		wantKind(t, err, objstore.ErrInvalid)
	}
}

func cancelled(t *testing.T, b objstore.Bucket) {
	create(t, b, "there", []byte("body"))
	stopped, stop := context.WithCancel(t.Context())
	stop()
	late, stop := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer stop()
	for ctx, want := range map[context.Context]error{stopped: context.Canceled, late: context.DeadlineExceeded} {
		_, _, get := b.Get(ctx, "there")
		_, getRange := b.GetRange(ctx, "there", 0, 1)
		_, stat := b.Stat(ctx, "there")
		_, list := collectErr(b.List(ctx, ""))
		for op, err := range map[string]error{
			"Get": get, "GetRange": getRange, "Stat": stat, "List": list,
			"Create": b.Create(ctx, "not-there", nil), "Delete": b.Delete(ctx, "there"), "Check": b.Check(ctx),
		} {
			if !errors.Is(err, want) || errors.Is(err, objstore.ErrUnavailable) || objstore.IsTemporary(err) {
				t.Errorf("%s: %v, want %v and nothing else", op, err, want)
			}
		}
	}
	wantNames(t, b, "", []string{"there"})
	cancelledRead(t, b)
}

// cancelledRead gives up in the middle of a body.
func cancelledRead(t *testing.T, b objstore.Bucket) {
	create(t, b, "long", pattern(4, 4<<20))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	rc, _, err := b.Get(ctx, "long")
	if err != nil {
		t.Fatal(err)
	}
	defer closeBody(t, rc)
	if _, err := io.ReadFull(rc, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := io.Copy(io.Discard, rc); !errors.Is(err, context.Canceled) || objstore.IsTemporary(err) {
		t.Errorf("read after cancel: %v", err)
	}
}

func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	var e *objstore.Error
	if !errors.Is(err, kind) || !errors.As(err, &e) {
		t.Errorf("error %v, want *objstore.Error with %v", err, kind)
	}
}

func wantRange(t *testing.T, b objstore.Bucket, name string, offset, length int64, want []byte) {
	t.Helper()
	rc, err := b.GetRange(t.Context(), name, offset, length)
	if err != nil {
		t.Errorf("GetRange(%q, %d, %d): %v", name, offset, length, err)
		return
	}
	defer closeBody(t, rc)
	got, err := io.ReadAll(rc)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("GetRange(%q, %d, %d): %d bytes, %v", name, offset, length, len(got), err)
	}
}

func wantNames(t *testing.T, b objstore.Bucket, prefix string, want []string) {
	t.Helper()
	if got := collect(t, b.List(t.Context(), prefix)); !slices.Equal(got, want) {
		t.Errorf("List(%q):\n got %d %q\nwant %d %q", prefix, len(got), got, len(want), want)
	}
}

func collect(t *testing.T, list iter.Seq2[objstore.Info, error]) []string {
	t.Helper()
	got, err := collectErr(list)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return got
}

func collectErr(list iter.Seq2[objstore.Info, error]) (names []string, err error) {
	for info, err := range list {
		if err != nil {
			return names, err
		}
		names = append(names, info.Name)
	}
	return names, nil
}

func closeBody(t *testing.T, rc io.Closer) {
	t.Helper()
	if err := rc.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
