//go:build kafka

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	verification "github.com/evenkeel/evenkeel/snapshotter/verify"
)

const copyBucket = "evenkeel-copy"

// backupsWithCopy is a configuration whose backups are made and deleted soon, and that has a copy.
func (d *deployment) backupsWithCopy() string {
	return fmt.Sprintf("schedule: {segment: 1s, delta: 30s, drill: 0s, copy: 0s}, keep_last: 1, keep: {full: 0s, segment: 0s}, "+
		"copies: {west: {bucket: %s, endpoint: %q, path_style: true}}", copyBucket, d.s3.URL())
}

// objects are those of a bucket as they lie on the server's disk.
func (d *deployment) objects(bucket string, below ...string) map[string][]byte {
	d.t.Helper()
	root := filepath.Join(d.dir, "s3", "data", bucket)
	found := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		for _, part := range below {
			if strings.Contains(name, part) {
				found[name], err = os.ReadFile(path)
			}
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return found
}

// decoded runs a command that has to succeed and reads what it says.
func decoded[T any](d *deployment, r events.Region, args ...string) (v T) {
	d.t.Helper()
	out := d.mustRun(r, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		d.t.Fatalf("evenkeel %v: %v: %s", args, err, out)
	}
	return v
}

// point is a moment at which nothing was written.
type point struct {
	at    time.Time
	state *api.Status
}

// settled ends all writing and waits until the regions hold the same, and the region has archived it.
func (d *deployment) settled(region events.Region, writers map[events.Region]*writer) point {
	d.t.Helper()
	for _, w := range writers {
		w.end()
	}
	d.settle(0)
	s, err := d.clients[region].Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	d.await("archived", func() error {
		list := decoded[api.BackupList](d, region, "backup", "list")
		ends := events.Vector{}
		for _, a := range list.Archive {
			for _, end := range a.Ends {
				ends[end.Log] = end.Next
			}
		}
		for l, next := range s.Vector() {
			if ends[l] < next {
				return fmt.Errorf("%s up to %d of %d", l, ends[l], next)
			}
		}
		return nil
	})
	p := point{time.Now(), s}
	time.Sleep(50 * time.Millisecond) // what comes next comes after it
	return p
}

func (d *deployment) writeEverywhere(j *journal) map[events.Region]*writer {
	d.t.Helper()
	writers := map[events.Region]*writer{}
	for _, r := range kafkaRegions {
		writers[r] = d.write(r, j)
	}
	return writers
}

// restoredTo restores and compares with what the region was.
func (d *deployment) restoredTo(p point, dir, config string, args ...string) {
	d.t.Helper()
	dir = filepath.Join(d.dir, dir)
	got := decoded[api.Restored](d, p.state.Region, append([]string{"restore", "run", "--config", config, "--dir", dir}, args...)...)
	if got.Vector.Compare(p.state.Vector()) != events.Equal || got.Digest != *p.state.Digest {
		d.t.Errorf("restored %q: vector %s, digest %s; the region was at %s, digest %s", args, got.Vector, got.Digest, p.state.Vector(), p.state.Digest)
	}
	d.mustRun(p.state.Region, "restore", "proof", dir)
}

// The life of a region's backups: segments, a full, deltas; verified by restoring each; copied, and
// restored from the copy with the first bucket out of reach; back to a time; drilled; pruned. Each result is
// looked at in another way than the command's: on the server's disk, or in what the
// region was.
func TestKafkaBackups(t *testing.T) {
	d := prepareDeployment(t)
	d.backup = d.backupsWithCopy()
	d.startAll()
	const region = events.Region("us-west-1")
	bucket := "evenkeel-" + region.String()
	config := d.configPath(region)
	j := &journal{written: map[events.Position]entry{}}
	writers := d.writeEverywhere(j)
	// The drill proves what stands on the first backup, which is kept for that: a prune deletes what comes before.
	d.await("segments that come before the first backup", func() error {
		if n := len(d.objects(bucket, "/segments/")); n < 5*kafkaPartitions {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	d.mustRun(region, "backup", "create")
	time.Sleep(time.Second) // of writes behind it
	first := d.settled(region, writers)
	writers = d.writeEverywhere(j)
	d.await("two deltas", func() error {
		deltas := 0
		for _, b := range decoded[api.BackupList](d, region, "backup", "list").Backups {
			if b.Kind == format.Delta {
				deltas++
			}
		}
		if deltas < 2 {
			return fmt.Errorf("%d", deltas)
		}
		return nil
	})
	last := d.settled(region, writers)

	d.restoredTo(first, "then", config, "--to-time", first.at.Format(time.RFC3339Nano))
	d.restoredTo(last, "newest", config)
	d.copied(region, bucket, config, last)
	d.verified(region, bucket, config)
	drill := decoded[format.Drill](d, region, "drill", "restore")
	if err := drill.Err(); err != nil || len(drill.Trials) < 2 || events.VectorOf(drill.Trials[0].States).Compare(last.state.Vector()) != events.Equal {
		t.Errorf("drill: %+v, %v", drill, err)
	}
	if n := len(d.objects(bucket, "/drills/")); n != 1 {
		t.Errorf("%d reports of drills", n)
	}
	d.pruned(region, bucket, config, last)
	for _, r := range kafkaRegions {
		if _, err := d.clients[r].Status(context.Background()); err != nil {
			t.Errorf("%s: %v", r, err)
		}
	}
}

// copied copies, compares the copy byte by byte, and restores from it with the first bucket
// out of reach.
func (d *deployment) copied(region events.Region, bucket, config string, last point) {
	d.t.Helper()
	d.mustRun(region, "backup", "copy", "west")
	kinds := []string{"/tables/", "/manifests/", "/segments/"}
	have := d.objects(copyBucket, kinds...)
	if len(have) < 10 {
		d.t.Errorf("the copy has %d objects", len(have))
	}
	for name, body := range d.objects(bucket, kinds...) {
		if !bytes.Equal(have[name], body) {
			d.t.Errorf("%s: %d bytes, %d in the copy", name, len(body), len(have[name]))
		}
	}
	u, err := url.Parse(d.s3.URL())
	if err != nil {
		d.t.Fatal(err)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		d.t.Fatal(err)
	}
	// The first endpoint in the file is the bucket's, the other the copy's.
	alone := filepath.Join(d.dir, "alone.yaml")
	text = bytes.Replace(text, []byte(u.Host), fmt.Appendf(nil, "127.0.0.1:%d", freePort(d.t)), 1)
	if err := os.WriteFile(alone, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.restoredTo(last, "copy", alone, "--copy", "west")
}

// verified verifies every backup by restoring it, and finds what is damaged in the copy.
func (d *deployment) verified(region events.Region, bucket, config string) {
	d.t.Helper()
	report := decoded[verification.Report](d, region, "backup", "verify", "--all", "--level", "restore")
	if n := len(d.objects(bucket, "/manifests/")); len(report.Backups) != n || n < 2 || len(report.Archive) != kafkaPartitions || len(report.Damaged()) > 0 {
		d.t.Errorf("%d manifests; verified %+v", n, report)
	}
	for name := range d.objects(copyBucket, "/tables/") {
		path := filepath.Join(d.dir, "s3", "data", copyBucket, name)
		body, err := os.ReadFile(path)
		if err != nil {
			d.t.Fatal(err)
		}
		body[len(body)/2] ^= 1
		if err := os.WriteFile(path, body, 0o600); err != nil {
			d.t.Fatal(err)
		}
		out, code := d.quietly(region, "backup", "verify", "--all", "--config", config, "--copy", "west")
		if code != int(events.KindInconsistent) || !strings.Contains(out, name) {
			d.t.Errorf("%s is damaged: exit %d: %s", name, code, out)
		}
		break
	}
}

// lockOne locks the last of a shard's segments that would be deleted, and returns its name.
func (d *deployment) lockOne(bucket string, dry prune.Report) (name string) {
	d.t.Helper()
	for _, s := range dry.Segments {
		if s.Delete > 1 {
			name = format.SegmentName(dry.Region, s.Shard, s.From-1)
		}
	}
	key, secret := d.s3.Credentials()
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(d.s3.URL()), Region: s3server.Region, UsePathStyle: true, Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
	})
	_, err := client.PutObjectLockConfiguration(d.t.Context(), &s3.PutObjectLockConfigurationInput{
		Bucket: &bucket, ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled},
	})
	if err == nil {
		_, err = client.PutObjectRetention(d.t.Context(), &s3.PutObjectRetentionInput{
			Bucket: &bucket, Key: &name,
			Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: aws.Time(time.Now().Add(24 * time.Hour))},
		})
	}
	if err != nil || name == "" {
		d.t.Fatalf("lock %q: %v", name, err)
	}
	return name
}

// pruned prunes, looks what is gone from the server's disk, and restores from what is left.
func (d *deployment) pruned(region events.Region, bucket, config string, last point) {
	d.t.Helper()
	d.mustRun(region, "backup", "create")
	before := d.objects(bucket, "/tables/", "/manifests/", "/segments/")
	dry := decoded[prune.Report](d, region, "backup", "prune")
	if n := len(d.objects(bucket, "/tables/", "/manifests/", "/segments/")); n != len(before) || !dry.DryRun {
		d.t.Errorf("a dry run has deleted %d objects", len(before)-n)
	}
	held := d.lockOne(bucket, dry)
	if dry = decoded[prune.Report](d, region, "backup", "prune"); len(dry.Held) != 1 || dry.Held[0].Object != held || !dry.Held[0].Until.After(time.Now()) {
		d.t.Errorf("%s is locked; held: %+v", held, dry.Held)
	}
	report := decoded[prune.Report](d, region, "backup", "prune", "--yes")
	after := d.objects(bucket, "/tables/", "/manifests/", "/segments/")
	if !bytes.Equal(after[held], before[held]) || len(report.Held) != 1 || len(report.Left) > 0 {
		d.t.Errorf("%s is locked, and is gone or was tried: held %+v, left %+v", held, report.Held, report.Left)
	}
	for _, name := range report.Deleted {
		if _, there := after[name]; there {
			d.t.Errorf("%s was deleted and is there", name)
		}
		delete(before, name)
	}
	if len(report.Deleted) == 0 || len(after) != len(before) {
		d.t.Errorf("%d deleted, %d objects left, want %d", len(report.Deleted), len(after), len(before))
	}
	d.restoredTo(last, "pruned", config)
	d.mustRun(region, "backup", "verify", "--all", "--level", "decode")
}
