package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// region is one region of the lab: a Kafka cluster and its nodes.
type region struct {
	settings regionSettings
	cfgs     []*config.Config // of its nodes
	dir      string
	log      *slog.Logger

	mu    sync.Mutex
	kafka *kfake.Cluster
	nodes []*pipeline.Node // empty: the region is stopped
}

func (r *region) start(ctx context.Context) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.nodes) > 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("region %s: %w", r.settings.Name, err), r.stopNodes())
			r.closeKafka()
		}
	}()
	bucket, err := r.bucket(ctx)
	if err != nil {
		return err
	}
	if err := r.openKafka(); err != nil {
		return err
	}
	for _, cfg := range r.cfgs {
		node, err := pipeline.StartNode(ctx, cfg, pipeline.Parts{Bucket: bucket, Log: r.log})
		if err != nil {
			return err
		}
		r.nodes = append(r.nodes, node)
	}
	for _, node := range r.nodes {
		if err := waitReady(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

func (r *region) stopNodes() (err error) {
	for _, node := range r.nodes {
		err = errors.Join(err, node.Stop())
	}
	r.nodes = nil
	return err
}

func (r *region) openKafka() error {
	if r.settings.External {
		return nil
	}
	_, portText, err := net.SplitHostPort(r.settings.Kafka)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	kafka, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.Ports(port),
		kfake.ClusterID("evenkeel-lab-"+r.settings.Name.String()),
		kfake.DefaultNumPartitions(int(r.cfgs[0].Partitions)),
		kfake.DataDir(filepath.Join(r.dir, "kafka")),
	)
	if err != nil {
		return fmt.Errorf("embedded Kafka at %s: %w", r.settings.Kafka, err)
	}
	r.kafka = kafka
	return nil
}

func (r *region) closeKafka() {
	if r.kafka != nil {
		r.kafka.Close()
		r.kafka = nil
	}
}

// bucket is the region's own, with the keys of the lab's S3 server.
func (r *region) bucket(ctx context.Context) (objstore.Bucket, error) {
	b := r.cfgs[0].Backup
	return objstore.NewS3(ctx, objstore.S3Config{
		Bucket: b.Bucket, Endpoint: b.Endpoint, Region: s3server.Region, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s3server.DefaultAccessKey, s3server.DefaultSecretKey, ""),
	})
}

// waitReady asks until the node serves.
func waitReady(ctx context.Context, node *pipeline.Node) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := node.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-node.Failed():
			return node.Failure()
		case <-tick.C:
		}
	}
}

func (r *region) stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.nodes) == 0 {
		return nil
	}
	err := r.stopNodes()
	r.closeKafka()
	return err
}

func (r *region) state() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.nodes) == 0 {
		return "stopped"
	}
	return "running"
}

// whileStopped does something with the state of a region that does not run.
func (r *region) whileStopped(what string, do func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.nodes) > 0 {
		return events.Errorf(events.KindRefused, "region %s is running; stop it before its state is %s", r.settings.Name, what)
	}
	return do()
}

// StopRegion stops one region, its Kafka cluster and its nodes; the others go on.
func (l *Lab) StopRegion(name events.Region) error {
	r, err := l.change(name)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	return r.stop()
}

// StartRegion starts a stopped region and returns once it serves.
func (l *Lab) StartRegion(ctx context.Context, name events.Region) error {
	r, err := l.change(name)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	return r.start(ctx)
}

// WipeRegion deletes the state of a stopped region. Its logs stay.
func (l *Lab) WipeRegion(name events.Region) error {
	r, err := l.change(name)
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	return r.whileStopped("deleted", func() (err error) {
		for _, cfg := range r.cfgs {
			err = errors.Join(err, os.RemoveAll(pipeline.StateDir(cfg)))
		}
		return err
	})
}

// RestoreRegion restores the state of a stopped region from its bucket: the
// named backup, or all that is archived if the name is empty.
func (l *Lab) RestoreRegion(ctx context.Context, name events.Region, backup string) (restored *api.Restored, err error) {
	r, err := l.change(name)
	if err != nil {
		return nil, err
	}
	defer l.mu.Unlock()
	err = r.whileStopped("restored", func() error {
		bucket, err := r.bucket(ctx)
		if err != nil {
			return err
		}
		for _, cfg := range r.cfgs {
			restored, err = pipeline.Restore(ctx, pipeline.RestoreJob{
				Config: cfg, Bucket: bucket, Log: r.log, Dir: pipeline.StateDir(cfg),
				Request: timeline.Request{Target: timeline.Target{Backup: backup}},
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return restored, err
}

// change finds a region for a change; the caller unlocks l.mu if there is no
// error.
func (l *Lab) change(name events.Region) (*region, error) {
	r, err := l.region(name)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	return r, nil
}
