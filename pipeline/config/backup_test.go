package config

import (
	"testing"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// What is let pass here must not be refused where it is used.
func TestBackupSuitsTheStore(t *testing.T) {
	for _, b := range []Backup{
		{Bucket: "abc"},
		{Bucket: "My_Bucket.1-x", Prefix: "a", Region: "us-east-1"},
		{Bucket: "abc", Prefix: "a/b=1/c.d/", Endpoint: "http://127.0.0.1:9000", PathStyle: true},
		{Bucket: "abc", Prefix: "a.../..b", Endpoint: "https://s3.example.com/"},
		{Bucket: "abc", Endpoint: "http://[::1]:9000", PathStyle: true},
		{Bucket: "abc", Endpoint: "http://localhost:9000"},
	} {
		p := &problems{}
		b.check(p)
		if err := p.err(""); err != nil {
			t.Errorf("%+v: %v", b, err)
		}
		store := objstore.S3Config{Bucket: b.Bucket, Prefix: b.Prefix, Endpoint: b.Endpoint, Region: b.Region, PathStyle: b.PathStyle}
		if err := store.Validate(); err != nil {
			t.Errorf("%+v: package objstore refuses it: %v", b, err)
		}
	}
}
