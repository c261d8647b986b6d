package objstore_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
)

// What is locked is not deleted before its time, and said to be held a little longer: the
// store may have another clock than who asks.
func TestMemoryLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := objstore.NewMemory("b")
		create := func(name string) {
			t.Helper()
			if err := m.Create(t.Context(), name, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		create("free")
		m.LockNew(24 * time.Hour)
		create("retained")
		create("legal")
		if err := m.Lock("legal", objstore.Hold{Legal: true}); err != nil {
			t.Fatal(err)
		}
		holds := func(want ...bool) {
			t.Helper()
			got, err := m.Holds(t.Context(), []string{"free", "retained", "legal", "nothing"})
			if err != nil {
				t.Fatal(err)
			}
			for i, h := range got {
				if h.Holds(time.Now()) != want[i] {
					t.Errorf("object %d is held %s: %t", i, h, !want[i])
				}
			}
		}
		holds(false, true, true, false)
		for i, err := range m.DeleteAll(t.Context(), []string{"retained", "legal"}) {
			if !errors.Is(err, objstore.ErrAccess) {
				t.Errorf("deletion %d of what is locked: %v", i, err)
			}
		}
		time.Sleep(24*time.Hour + time.Minute)
		holds(false, true, true, false)
		time.Sleep(time.Hour)
		holds(false, false, true, false)
		if err := m.Delete(t.Context(), "retained"); err != nil {
			t.Errorf("its time is over: %v", err)
		}
		if err := m.Delete(t.Context(), "legal"); !errors.Is(err, objstore.ErrAccess) {
			t.Errorf("under a legal hold: %v", err)
		}
		if err := m.Lock("legal", objstore.Hold{}); err != nil {
			t.Fatal(err)
		}
		if err := m.Delete(t.Context(), "legal"); err != nil {
			t.Errorf("let go: %v", err)
		}
	})
}

var lockedBuckets atomic.Int64

// locked makes a bucket whose objects can be locked, and gives what a client can do with it.
func locked(t *testing.T) (*objstore.S3, *s3.Client, string) {
	t.Helper()
	creds := credentials.NewStaticCredentialsProvider(s3server.DefaultAccessKey, s3server.DefaultSecretKey, "")
	client := s3.New(s3.Options{BaseEndpoint: aws.String(server.URL()), Region: s3server.Region, UsePathStyle: true, Credentials: creds})
	name := fmt.Sprintf("locked-%d", lockedBuckets.Add(1))
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name, ObjectLockEnabledForBucket: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	cfg := s3Config()
	cfg.Bucket, cfg.Prefix = name, "folder"
	return openS3(t, cfg), client, name
}

// A real server's locks are told as they are, and it keeps to them.
func TestS3Locks(t *testing.T) {
	b, client, name := locked(t)
	names := fill(t, b, 40)
	until := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	_, retained := client.PutObjectRetention(t.Context(), &s3.PutObjectRetentionInput{
		Bucket: &name, Key: aws.String("folder/" + names[1]),
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: &until},
	})
	_, legal := client.PutObjectLegalHold(t.Context(), &s3.PutObjectLegalHoldInput{
		Bucket: &name, Key: aws.String("folder/" + names[2]), LegalHold: &types.ObjectLockLegalHold{Status: types.ObjectLockLegalHoldStatusOn},
	})
	if retained != nil || legal != nil {
		t.Fatal(retained, legal)
	}
	got, err := b.Holds(t.Context(), append(names, "nothing"))
	if err != nil {
		t.Fatal(err)
	}
	for i, hold := range got {
		switch {
		case i == 1 && (!hold.Until.Equal(until) || hold.Mode != "COMPLIANCE" || hold.Legal || !hold.Holds(time.Now())):
			t.Errorf("the retained one: %+v", hold)
		case i == 2 && (!hold.Until.IsZero() || !hold.Legal || !hold.Holds(time.Now())):
			t.Errorf("the one under a legal hold: %+v", hold)
		case i != 1 && i != 2 && hold != (objstore.Hold{}):
			t.Errorf("object %d: %+v", i, hold)
		}
	}
	for _, i := range []int{1, 2} {
		if err := b.Delete(t.Context(), names[i]); !errors.Is(err, objstore.ErrAccess) {
			t.Errorf("delete of %s: %v", names[i], err)
		}
	}
}

// Where nothing can be locked one request says so for all objects, in whatever words; what
// may not be asked is an error that says which rights are missing, and never "not held".
func TestS3HoldsThatCannotBeAsked(t *testing.T) {
	for name, test := range map[string]struct {
		query  string // of the request that is refused
		status int
		code   string
		want   error
	}{
		"no locks":              {},
		"unknown":               {"object-lock", http.StatusNotImplemented, "NotImplemented", nil},
		"unknown subresource":   {"object-lock", http.StatusBadRequest, "InvalidArgument", nil},
		"not allowed":           {"object-lock", http.StatusMethodNotAllowed, "MethodNotAllowed", nil},
		"no configuration":      {"object-lock", http.StatusNotFound, "ObjectLockConfigurationNotFoundError", nil},
		"no bucket":             {"object-lock", http.StatusNotFound, "NoSuchBucket", objstore.ErrNoBucket},
		"no right to know":      {"object-lock", http.StatusForbidden, "AccessDenied", objstore.ErrAccess},
		"out of order":          {"object-lock", http.StatusServiceUnavailable, "SlowDown", objstore.ErrUnavailable},
		"retention is a secret": {"retention", http.StatusForbidden, "AccessDenied", objstore.ErrAccess},
		"legal hold is one":     {"legal-hold", http.StatusForbidden, "AccessDenied", objstore.ErrAccess},
		"retention unavailable": {"retention", http.StatusServiceUnavailable, "SlowDown", objstore.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			_, _, lockedBucket := locked(t)
			p := &proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodHead || r.Method == http.MethodGet {
					asked.Add(1)
				}
				if test.query == "" || !r.URL.Query().Has(test.query) {
					return false
				}
				s3Error(w, test.status, test.code, "no")
				return true
			}}
			b := p.open(t, func(c *objstore.S3Config) {
				c.Attempts = 1
				if test.query == "retention" || test.query == "legal-hold" {
					c.Bucket = lockedBucket
				}
			})
			holds, err := b.Holds(t.Context(), fill(t, b, 20))
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if errors.Is(err, objstore.ErrAccess) && !strings.Contains(err.Error(), "s3:GetObjectRetention") {
				t.Errorf("it does not say what is missing: %v", err)
			}
			// One for the locks; the others, if any, are those that verified the uploads.
			if n := asked.Load(); err == nil && (n > 21 || len(holds) != 20) {
				t.Errorf("%d requests for %d objects", n, len(holds))
			}
		})
	}
}
