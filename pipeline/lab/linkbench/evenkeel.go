package linkbench

import (
	"context"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/follow"
)

// mirrorByEvenkeel runs one link as a node does, with its default settings.
func mirrorByEvenkeel(ctx context.Context, cfg MirrorConfig) error {
	topics, err := follow.NewPatterns([]string{cfg.Topic}, nil)
	if err != nil {
		return err
	}
	link := replicator.NewLink(
		[]kgo.Opt{kgo.SeedBrokers(cfg.Source)}, []kgo.Opt{kgo.SeedBrokers(cfg.Dest)},
		replicator.Config{Origin: origin, Destination: destRegion, Topics: topics, Internal: follow.Internal(origin.Region, destRegion)},
		replicator.NewMetrics(prometheus.NewRegistry()),
		slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	)
	link.Run(ctx)
	return nil
}
