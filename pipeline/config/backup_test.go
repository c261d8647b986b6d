package config

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
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
		b.Encryption, b.KeepLast = "none", 1
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

// Keys that work are taken, and those of the example are not sealed for.
func TestSealer(t *testing.T) {
	_, a, _ := seal.Generate(false, time.Now())
	_, b, _ := seal.Generate(false, time.Now())
	if s, err := (Backup{Encryption: "age", Recipients: []string{a, b}}).Sealer(); err != nil || len(s.Keys()) != 2 {
		t.Errorf("two keys: %v", err)
	}
	if s, err := (Backup{Encryption: "none"}).Sealer(); err != nil || len(s.Keys()) != 0 {
		t.Errorf("none: %v", err)
	}
	for _, r := range exampleRecipients {
		if _, err := (Backup{Encryption: "age", Recipients: []string{a, r}}).Sealer(); events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "example") {
			t.Errorf("a key of the example: %v", err)
		}
	}
	if _, err := (Backup{Encryption: "age"}).Sealer(); events.KindOf(err) != events.KindInvalid {
		t.Errorf("no key: %v", err)
	}
}

// An identity comes from a file or a variable, and shows up nowhere.
func TestOpener(t *testing.T) {
	file, recipient, _ := seal.Generate(false, time.Now())
	secret := file[strings.Index(file, "AGE-SECRET-KEY-1"):]
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	write(t, good, []byte(file))
	write(t, bad, []byte(secret[:50]))
	for name, b := range map[string]Backup{
		"file":     {IdentityFile: good},
		"variable": {IdentityEnv: "ID", Identity: Secret(secret)},
	} {
		o, err := b.Opener()
		if err != nil || o.Fits([]string{seal.KeyID(recipient)}) != nil {
			t.Errorf("%s: %v", name, err)
		}
		if text := fmt.Sprintf("%+v %#v", b, b); strings.Contains(text, secret[16:30]) {
			t.Errorf("%s is shown: %s", name, text)
		}
	}
	for name, b := range map[string]Backup{
		"no file":         {IdentityFile: good + "x"},
		"damaged":         {IdentityFile: bad},
		"directory":       {IdentityFile: dir},
		"not set":         {IdentityEnv: "ID"},
		"damaged, by env": {IdentityEnv: "ID", Identity: Secret(secret[:50])},
	} {
		o, err := b.Opener()
		if o != nil || events.KindOf(err) != events.KindInvalid || strings.Contains(err.Error(), secret[16:24]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if o, err := (Backup{}).Opener(); err != nil || o.Fits(nil) != nil || o.Fits([]string{"x"}) == nil {
		t.Errorf("none: %v", err)
	}
}

// A key that was made works, is for its owner's eyes, and is never overwritten.
func TestGenerateIdentity(t *testing.T) {
	for _, postQuantum := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "key")
		recipient, err := GenerateIdentity(path, postQuantum)
		if err != nil {
			t.Fatal(err)
		}
		o, err := ReadIdentity(path)
		if err != nil || o.Recipients()[0] != recipient {
			t.Errorf("%v, %s", err, recipient)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %s, %v", info.Mode(), err)
		}
		if _, err := GenerateIdentity(path, postQuantum); events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), path) {
			t.Errorf("again: %v", err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Error("the key was overwritten")
		}
	}
	if _, err := GenerateIdentity(filepath.Join(t.TempDir(), "no", "key"), false); err == nil {
		t.Error("no directory: no error")
	}
}

// A state is as old as anything that is kept, and what it takes until that goes.
func TestRestorableFor(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		change func(b *Backup)
		want   time.Duration
	}{
		"by default":                  {func(*Backup) {}, 33 * day},
		"deltas are kept longer":      {func(b *Backup) { b.Keep.Delta60s = 40 * day }, 43 * day},
		"points are restored longer":  {func(b *Backup) { b.Keep.Segment = 40 * day }, 43 * day},
		"so many last ones are older": {func(b *Backup) { b.KeepLast = 50 }, 53 * day},
		"full ones are seldom":        {func(b *Backup) { b.Schedule.Full, b.KeepLast = 10*day, 4 }, 61 * day},
		"prunes are seldom":           {func(b *Backup) { b.Schedule.Prune = 5 * day }, 37 * day},
		"only the last ones":          {func(b *Backup) { b.Keep = Keep{} }, 6 * day},
		"on demand, not pruned yet":   {func(b *Backup) { b.Keep, b.Schedule = Keep{}, Schedule{} }, day},
		"more than there can be":      {func(b *Backup) { b.Schedule.Full, b.KeepLast = 366*day, 10_000 }, 100*365*day + 733*day},
		"for ever":                    {func(b *Backup) { b.Keep.Full = math.MaxInt64 }, 100*365*day + 3*day},
	} {
		b := Backup{}
		b.setDefaults("")
		c.change(&b)
		if got := b.RestorableFor(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
