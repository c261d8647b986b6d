package linkbench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/evenkeel/evenkeel/events"
)

// The systems that are measured.
const (
	Evenkeel       = "evenkeel"
	MirrorMaker2   = "mirrormaker2"
	ConsumeProduce = "consume-produce"
)

// Systems lists them in the order in which they run.
func Systems() []string { return []string{MirrorMaker2, ConsumeProduce, Evenkeel} }

// origin is whose logs are mirrored.
var origin = events.FirstOrigin(sourceRegion)

// mirrorTopic names a log's mirror: all systems follow the same rule, so it can be
// made beforehand.
func mirrorTopic(topic string) string { return origin.MirrorTopic(topic) }

// MirrorConfig is what one mirroring process does.
type MirrorConfig struct {
	System       string
	Source, Dest string // HOST:PORT
	Topic        string
	Partitions   int32
	Codec        string // that the log is compressed with
	// Latency asks for settings that pass a single record on at once, in place of
	// those that make the most of a backlog. Only systems that batch by waiting differ.
	Latency bool
}

// Mirror mirrors until the context ends; it is what the processes of Evenkeel
// and of consume-and-produce do.
func Mirror(ctx context.Context, cfg MirrorConfig) error {
	if cfg.Source == "" || cfg.Dest == "" || cfg.Topic == "" || cfg.Partitions < 1 {
		return events.Errorf(events.KindInvalid, "a mirroring process needs a source, a destination, a topic and its number of partitions")
	}
	switch cfg.System {
	case Evenkeel:
		return mirrorByEvenkeel(ctx, cfg)
	case ConsumeProduce:
		return consumeProduce(ctx, cfg)
	default:
		return events.Errorf(events.KindInvalid, "system %q: want %s or %s", cfg.System, Evenkeel, ConsumeProduce)
	}
}

// args are the arguments for evenkeel-lab to run Mirror.
func (cfg MirrorConfig) args() []string {
	return []string{
		"mirror", "--system", cfg.System, "--source", cfg.Source, "--dest", cfg.Dest, "--topic", cfg.Topic,
		"--partitions", strconv.Itoa(int(cfg.Partitions)), "--codec", cfg.Codec, "--latency=" + strconv.FormatBool(cfg.Latency),
	}
}

// mirrorCommand makes the process; files that it needs go next to prefix.
func mirrorCommand(cfg MirrorConfig, libs, prefix string) (*exec.Cmd, error) {
	if cfg.System == MirrorMaker2 {
		return mirrorMakerCommand(cfg, libs, prefix)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program, to run it as a mirroring process: %w", err)
	}
	return exec.Command(self, cfg.args()...), nil //nolint:noctx // ended by process.stop, with a grace period
}
