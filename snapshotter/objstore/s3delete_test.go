package objstore_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

func wantIs(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%v, want %v", err, kind)
	}
}

func isDeleteAll(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("delete")
}

// fill makes objects in a bucket of its own.
func fill(t *testing.T, b objstore.Bucket, n int) (names []string) {
	t.Helper()
	for i := range n {
		names = append(names, fmt.Sprintf("o/%03d", i))
		if err := b.Create(t.Context(), names[i], []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func left(t *testing.T, b objstore.Bucket) (names []string) {
	t.Helper()
	for info, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

// Many objects go with one request, where the store knows it; where not, one by one, and
// it is asked once.
func TestS3DeletesAllAtOnce(t *testing.T) {
	for name, refuse := range map[string]func(http.ResponseWriter){
		"known":        nil,
		"not known":    func(w http.ResponseWriter) { s3Error(w, http.StatusNotImplemented, "NotImplemented", "no") },
		"not allowed":  func(w http.ResponseWriter) { s3Error(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "no") },
		"wants an MD5": func(w http.ResponseWriter) { s3Error(w, http.StatusBadRequest, "MissingContentMD5", "no") },
		"no such path": func(w http.ResponseWriter) { http.NotFound(w, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var many, single atomic.Int64
			p := proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case isDeleteAll(r):
					many.Add(1)
					if refuse != nil {
						refuse(w)
						return true
					}
				case r.Method == http.MethodDelete:
					single.Add(1)
				}
				return false
			}}
			b := objstore.Prefix(p.open(t), "all-"+strings.ReplaceAll(name, " ", "-"))
			names := fill(t, b, 20)
			for _, part := range [][]string{names[:10], names[10:19]} {
				for i, err := range b.DeleteAll(t.Context(), part) {
					if err != nil {
						t.Errorf("%s: %v", part[i], err)
					}
				}
			}
			if got := left(t, b); !slices.Equal(got, names[19:]) {
				t.Errorf("left: %v", got)
			}
			want := [2]int64{2, 0}
			if refuse != nil {
				want = [2]int64{1, 19}
			}
			if got := [2]int64{many.Load(), single.Load()}; got != want {
				t.Errorf("%d requests for many and %d for one, want %d", got[0], got[1], want)
			}
		})
	}
}

// What the store refuses of many is told of each; a request that is refused as a whole is
// told of all, and not tried one by one.
func TestS3DeletesAllButSome(t *testing.T) {
	p := proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		if !isDeleteAll(r) {
			return false
		}
		asked, _ := io.ReadAll(r.Body)
		folder := string(regexp.MustCompile(`<Key>([^<]*)o/000</Key>`).FindSubmatch(asked)[1])
		w.Header().Set("Content-Type", "application/xml")
		_, _ = fmt.Fprintf(w, `<DeleteResult><Error><Key>%[1]so/001</Key><Code>AccessDenied</Code><Message>locked</Message></Error>`+
			`<Error><Key>%[1]so/002</Key><Code>InternalError</Code><Message>later</Message></Error><Error><Key>%[1]so/003</Key><Code>NoSuchKey</Code></Error></DeleteResult>`, folder)
		return true
	}}
	errs := p.open(t).DeleteAll(t.Context(), []string{"o/000", "o/001", "o/002", "o/003"})
	for i, kind := range []error{nil, objstore.ErrAccess, objstore.ErrUnavailable, nil} {
		if kind == nil && errs[i] != nil || kind != nil && (errs[i] == nil || !strings.Contains(errs[i].Error(), fmt.Sprintf("o/00%d", i))) {
			t.Errorf("%d: %v, want %v", i, errs[i], kind)
		}
		if kind != nil {
			wantIs(t, errs[i], kind)
		}
	}
	refused := proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		if isDeleteAll(r) || r.Method == http.MethodDelete {
			s3Error(w, http.StatusForbidden, "AccessDenied", "no")
			return true
		}
		return false
	}}
	for _, err := range refused.open(t).DeleteAll(t.Context(), []string{"o/000", "o/001"}) {
		wantIs(t, err, objstore.ErrAccess)
	}
}
