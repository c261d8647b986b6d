package objstore_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// An archived object is refused until it was thawed, is readable for so many days, and
// then it is archived again.
func TestMemoryArchives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := objstore.NewMemory("archive")
		if err := m.Create(t.Context(), "a", []byte("body")); err != nil {
			t.Fatal(err)
		}
		if err := m.Archive("a"); err != nil {
			t.Fatal(err)
		}
		refused := func() {
			t.Helper()
			_, _, err := m.Get(t.Context(), "a")
			_, rangeErr := m.GetRange(t.Context(), "a", 0, 1)
			if !errors.Is(err, objstore.ErrArchived) || !errors.Is(rangeErr, objstore.ErrArchived) || objstore.IsTemporary(err) {
				t.Errorf("%v, %v", err, rangeErr)
			}
		}
		thaw := func(want bool) {
			t.Helper()
			if ready, err := m.Thaw(t.Context(), "a", 2); ready != want || err != nil {
				t.Errorf("ready %t, %v", ready, err)
			}
		}
		refused()
		if info, err := m.Stat(t.Context(), "a"); err != nil || info.Class == "" || !info.Archived || !objstore.MayArchive(info.Class) {
			t.Errorf("%+v, %v", info, err)
		}
		thaw(false)
		time.Sleep(4*time.Hour - 1)
		refused()
		thaw(false)
		time.Sleep(time.Nanosecond)
		thaw(true)
		if info, err := m.Stat(t.Context(), "a"); err != nil || info.Archived {
			t.Errorf("%+v, %v", info, err)
		}
		body, err := objstore.ReadAll(t.Context(), m, "a", 10)
		if err != nil || string(body) != "body" {
			t.Errorf("%q, %v", body, err)
		}
		time.Sleep(48 * time.Hour)
		refused()
		thaw(false)
		time.Sleep(4 * time.Hour)
		thaw(true)
	})
}

// The words of S3 about archived objects, which the test server does not have.
func TestS3Archives(t *testing.T) {
	state := ""  // of x-amz-restore
	answer := "" // code with which RestoreObject is refused
	var asked []string
	p := &proxy{
		before: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost && r.URL.Query().Has("restore") {
				body, _ := io.ReadAll(r.Body)
				asked = append(asked, string(body))
				if answer != "" {
					s3Error(w, http.StatusConflict, answer, "no")
					return true
				}
				w.WriteHeader(http.StatusAccepted)
				return true
			}
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/cold") && state != `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"` {
				s3Error(w, http.StatusForbidden, "InvalidObjectState", "The operation is not valid for the object's storage class")
				return true
			}
			return false
		},
		after: func(r *http.Response) error {
			if r.Request.Method == http.MethodHead && strings.HasSuffix(r.Request.URL.Path, "/cold") {
				r.Header.Set("X-Amz-Storage-Class", "DEEP_ARCHIVE")
				if state != "" {
					r.Header.Set("X-Amz-Restore", state)
				}
			}
			return nil
		},
	}
	b := p.open(t)
	if err := b.Create(t.Context(), "cold", []byte("body")); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.Get(t.Context(), "cold")
	_, rangeErr := b.GetRange(t.Context(), "cold", 0, 1)
	if !errors.Is(err, objstore.ErrArchived) || !errors.Is(rangeErr, objstore.ErrArchived) || !strings.Contains(err.Error(), "thaw") {
		t.Errorf("%v, %v", err, rangeErr)
	}
	thaw := func(wantReady bool, wantAsked int) {
		t.Helper()
		if info, err := b.Stat(t.Context(), "cold"); err != nil || info.Archived == wantReady || !objstore.MayArchive(info.Class) {
			t.Errorf("%+v, %v", info, err)
		}
		ready, err := b.Thaw(t.Context(), "cold", 3)
		if ready != wantReady || err != nil || len(asked) != wantAsked {
			t.Errorf("ready %t, %v, asked %q", ready, err, asked)
		}
	}
	thaw(false, 1)
	if !strings.Contains(asked[0], "<Days>3</Days>") || !strings.Contains(asked[0], "Standard") {
		t.Errorf("asked %s", asked[0])
	}
	answer = "RestoreAlreadyInProgress"
	thaw(false, 2)
	state = `ongoing-request="true"`
	thaw(false, 2)
	state = `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`
	thaw(true, 2)
	if body, err := objstore.ReadAll(t.Context(), b, "cold", 10); err != nil || string(body) != "body" {
		t.Errorf("%q, %v", body, err)
	}
	state, answer = "", "AccessDenied"
	if _, err := b.Thaw(t.Context(), "cold", 3); !errors.Is(err, objstore.ErrAccess) {
		t.Errorf("refused: %v", err)
	}
}

// Objects go into the class that their names ask for.
func TestS3StorageClass(t *testing.T) {
	classes := map[string]string{}
	p := &proxy{before: func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			classes[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]] = r.Header.Get("X-Amz-Storage-Class")

		}
		return false
	}}
	b := p.open(t, func(c *objstore.S3Config) {
		c.StorageClass = func(name string) string {
			if strings.HasPrefix(name, "cold") {
				return "STANDARD_IA"
			}
			return ""
		}
	})
	for _, name := range []string{"cold-1", "warm"} {
		if err := b.Create(t.Context(), name, []byte("x")); err != nil {
			t.Error(err)
		}
	}
	if classes["cold-1"] != "STANDARD_IA" || classes["warm"] != "" {
		t.Errorf("classes: %q", classes)
	}
}
