package pipeline_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// A start that fails takes no longer than this, and leaves nothing running: the
// bubble sees to that.
const startLimit = 31 * time.Second

// A Kafka that does not answer is named with its address and the key to look at.
func TestStartWithoutKafka(t *testing.T) {
	for name, listen := range map[string]func(r *region){
		"nobody listens": func(*region) {},
		"nobody answers": func(r *region) { r.listen(func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }) },
		"hangs up":       func(r *region) { r.listen(func(net.Conn) {}) },
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.down()
				listen(r)
				r.within(startLimit, "start", func() {
					wantKind(t, r.tryStart(), events.KindNotReady, us.String(), r.address(), "regions.us-east-1.kafka")
				})
			})
		})
	}
}

// listen serves connections in the place of Kafka.
func (r *region) listen(serve func(net.Conn)) {
	r.w.Helper()
	l, err := r.w.net.Listen("tcp", r.address())
	if err != nil {
		r.w.Fatal(err)
	}
	r.w.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
}

// An operator's Ctrl-C ends a start that hangs.
func TestStartInterrupted(t *testing.T) {
	one(t, func(r *region) {
		r.down()
		r.listen(func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		ctx, interrupt := context.WithCancel(r.w.Context())
		time.AfterFunc(5*time.Second, interrupt)
		r.within(6*time.Second, "start", func() {
			if err := r.startIn(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestStartWithoutBucket(t *testing.T) {
	for name, c := range map[string]struct {
		kind error
		hint string
	}{
		"missing":     {objstore.ErrNoBucket, "backup.bucket"},
		"denied":      {objstore.ErrAccess, "credentials"},
		"unavailable": {objstore.ErrUnavailable, "backup.endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.bucket = faults.New(r.bucket, faults.Rule{Ops: []string{objstore.OpCheck}, Effect: faults.FailBefore, Err: c.kind})
				err := r.tryStart()
				if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), "backups of us-east-1") ||
					!strings.Contains(err.Error(), r.bucket.String()) || !strings.Contains(err.Error(), c.hint) {
					t.Errorf("got %v", err)
				}
				if topics := r.kafka.TopicInfo("session"); topics != nil {
					t.Error("topics were made before the bucket was looked at")
				}
			})
		})
	}
}

// All topics that do not fit are told at once, and none is touched.
func TestStartWithOtherPartitions(t *testing.T) {
	one(t, func(r *region) {
		for topic, n := range map[string]int32{"session": 5, "config": 1} {
			if err := r.kafka.CreateTopic(topic, n, nil); err != nil {
				t.Fatal(err)
			}
		}
		wantKind(t, r.tryStart(), events.KindRefused, "topic session of us-east-1 has 5 partitions", "the configuration says 3", "set partitions to 5",
			"topic config of us-east-1 has 1 partitions")
	})
}

func TestStartMayNotCreateTopics(t *testing.T) {
	one(t, func(r *region) {
		r.kafka.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
			res := req.ResponseKind().(*kmsg.CreateTopicsResponse)
			for _, topic := range req.(*kmsg.CreateTopicsRequest).Topics {
				rt := kmsg.NewCreateTopicsResponseTopic()
				rt.Topic, rt.ErrorCode = topic.Topic, kerr.TopicAuthorizationFailed.Code
				res.Topics = append(res.Topics, rt)
			}
			return res, nil, true
		})
		err := r.tryStart()
		if !errors.Is(err, kerr.TopicAuthorizationFailed) || !strings.Contains(err.Error(), "create topic session in us-east-1") ||
			!strings.Contains(err.Error(), "create topic config in us-east-1") {
			t.Errorf("got %v", err)
		}
	})
}

// The state directory of a running node is left alone.
func TestStartOnStateInUse(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.put("k", "v")
		other := *r
		other.Region = nil
		err := other.tryStart()
		if err == nil || !strings.Contains(err.Error(), dataDir) || !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("got %v", err)
		}
		r.has("k", "v")
	})
}

// brokenFS fails what makes files and directories.
type brokenFS struct {
	vfs.FS
	err error
}

func (fs brokenFS) MkdirAll(dir string, perm os.FileMode) error {
	return &os.PathError{Op: "mkdir", Path: dir, Err: fs.err}
}

func (fs brokenFS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: fs.err}
}

func TestStartOnBadDisk(t *testing.T) {
	for _, why := range []error{syscall.EACCES, syscall.EROFS, syscall.ENOSPC} {
		t.Run(why.Error(), func(t *testing.T) {
			one(t, func(r *region) {
				r.disk = brokenFS{r.disk, why}
				err := r.tryStart()
				if !errors.Is(err, why) || !strings.Contains(err.Error(), filepath.Join(dataDir, "state")) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// A state that was folded with more partitions has keys in shards that would
// not be looked at any more.
func TestStartWithFewerPartitions(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.stop()
		for _, topic := range []string{"session", "config"} {
			if err := r.kafka.DeleteTopic(topic); err != nil {
				t.Fatal(err)
			}
		}
		r.cfg.Partitions = 2
		wantKind(t, r.tryStart(), events.KindRefused, "shard-0002", filepath.Join(dataDir, "state"), "partitions", "2")
	})
}

// What was half started is stopped again, so that the next try works.
func TestStartAgain(t *testing.T) {
	one(t, func(r *region) {
		disk := r.disk
		r.disk = brokenFS{disk, syscall.ENOSPC}
		if err := r.tryStart(); err == nil {
			t.Fatal("it started without a disk")
		}
		r.disk = disk
		r.down()
		if err := r.tryStart(); err == nil {
			t.Fatal("it started without Kafka")
		}
		r.up()
		r.start()
		r.put("k", "v")
		r.has("k", "v")
	})
}

// Stop is safe on a region that was never started, and twice on any.
func TestStopTwice(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		node := r.Region
		for range 3 {
			if err := node.Stop(); err != nil {
				t.Error(err)
			}
		}
		r.Region = nil
		r.down()
		_ = r.tryStart() // stops itself
	})

}
