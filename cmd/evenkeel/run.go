package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/cli"
	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/telemetry"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

func (t *tool) runCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run one node of one region until it is told to stop",
		Long: `Run one node of one region. SIGTERM or Ctrl-C stops it gracefully: calls under way are
answered, what was acknowledged is in the logs, what was folded is flushed.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return events.Errorf(events.KindInvalid, "say with --config which node to run")
			}
			cfg, err := config.Load(path, os.Environ())
			if err != nil {
				return err
			}
			return run(c.Context(), cfg)
		},
	}
	configFlag(c, &path)
	return c
}

func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "config", os.Getenv("EVENKEEL_CONFIG"), "configuration file of the node; also EVENKEEL_CONFIG")
}

func newLogger(cfg *config.Config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Log.Level)) // validated with the configuration
	return telemetry.NewLogger(os.Stderr, level, cfg.Log.Format == "json")
}

// openBucket opens the bucket for backups, nil if none is configured.
func openBucket(ctx context.Context, cfg *config.Config) (objstore.Bucket, error) {
	b := cfg.Backup
	if b == nil {
		return nil, nil
	}
	bucket, err := objstore.NewS3(ctx, objstore.S3Config{
		Bucket: b.Bucket, Prefix: b.Prefix, Endpoint: b.Endpoint, Region: b.Region, PathStyle: b.PathStyle,
	})
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return bucket, nil
}

// openCopies opens the buckets that backups are copied to.
func openCopies(ctx context.Context, cfg *config.Config) (map[string]objstore.Bucket, error) {
	opened := map[string]objstore.Bucket{}
	if cfg.Backup == nil {
		return opened, nil
	}
	for name, c := range cfg.Backup.Copies {
		bucket, err := objstore.NewS3(ctx, objstore.S3Config{
			Bucket: c.Bucket, Prefix: c.Prefix, Endpoint: c.Endpoint, Region: c.Region, PathStyle: c.PathStyle,
			StorageClass: func(object string) string {
				if format.IsTable(object) {
					return c.StorageClass
				}
				return "" // small, and read all the time
			},
		})
		if err != nil {
			return nil, fmt.Errorf("copy %s of the backups: %w", name, err)
		}
		opened[name] = bucket
	}
	return opened, nil
}

func run(ctx context.Context, cfg *config.Config) error {
	log := newLogger(cfg)
	bucket, err := openBucket(ctx, cfg)
	if err != nil {
		return err
	}
	copies, err := openCopies(ctx, cfg)
	if err != nil {
		return err
	}
	node, err := pipeline.StartNode(ctx, cfg, pipeline.Parts{Bucket: bucket, Copies: copies, Log: log})
	if err != nil {
		return err
	}
	log.Info("node runs", "region", cfg.Region.String(), "api", "http://"+node.Address())
	select {
	case <-ctx.Done():
		log.Info("node stops")
		return node.Stop()
	case <-node.Failed():
		return errors.Join(node.Failure(), node.Stop())
	}
}
