package linkbench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// mirrorMakerHeap is what connect-mirror-maker.sh is usually given; less makes
// the collector the bottleneck, more gains nothing.
var mirrorMakerHeap = []string{"-Xms256m", "-Xmx1500m"}

// mirrorMakerJVM is what Kafka's own start scripts set.
var mirrorMakerJVM = []string{
	"-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-Djava.awt.headless=true",
}

// mirrorMakerTasks is how many of MirrorMaker's tasks share the partitions: one
// for each processor of the two that it may have, besides what the brokers need.
const mirrorMakerTasks = 2

// mirrorMakerProperties sets MirrorMaker 2 for throughput, its dedicated mode, with
// everything off that is no mirroring. The default policy names a mirror as
// mirrorTopic does, given the region as the cluster's alias.
const mirrorMakerProperties = `
clusters = %[1]s, %[2]s
%[1]s.bootstrap.servers = %[3]s
%[2]s.bootstrap.servers = %[4]s
%[1]s->%[2]s.enabled = true
%[2]s->%[1]s.enabled = false
%[1]s->%[2]s.topics = %[5]s
tasks.max = %[7]d

# Mirroring alone: the others cost little, but they cost.
emit.heartbeats.enabled = false
emit.checkpoints.enabled = false
sync.group.offsets.enabled = false
sync.topic.configs.enabled = false
sync.topic.acls.enabled = false
refresh.topics.enabled = false
refresh.groups.enabled = false
emit.offset-syncs.enabled = false

# One broker each.
replication.factor = 1
config.storage.replication.factor = 1
offset.storage.replication.factor = 1
status.storage.replication.factor = 1
heartbeats.topic.replication.factor = 1

# Large answers, so that neither distance nor the number of requests limits it.
%[1]s.consumer.fetch.max.bytes = 52428800
%[1]s.consumer.max.partition.fetch.bytes = 8388608
%[1]s.consumer.max.poll.records = 10000
%[1]s.consumer.receive.buffer.bytes = -1
%[1]s.consumer.auto.offset.reset = earliest

# Batches as large as the log's, compressed by its codec, and room for several of
# each partition.
%[2]s.producer.acks = all
%[2]s.producer.compression.type = %[6]s
%[2]s.producer.batch.size = 900000
%[2]s.producer.max.request.size = 8388608
%[2]s.producer.buffer.memory = %[9]d
%[2]s.producer.send.buffer.bytes = -1
%[2]s.producer.linger.ms = %[8]d
`

func mirrorMakerCommand(cfg MirrorConfig, libs, prefix string) (*exec.Cmd, error) {
	lingerMilliseconds := 50 // the tasks hand over records faster than that; it fills batches
	if cfg.Latency {
		lingerMilliseconds = 0
	}
	text := fmt.Sprintf(mirrorMakerProperties, sourceRegion, destRegion, cfg.Source, cfg.Dest, cfg.Topic, cfg.Codec,
		mirrorMakerTasks, lingerMilliseconds, bufferBytes(cfg.Partitions))
	file := prefix + ".properties"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	args := append(append([]string{}, mirrorMakerHeap...), mirrorMakerJVM...)
	args = append(args, "-Dorg.slf4j.simpleLogger.defaultLogLevel="+mirrorMakerLogLevel,
		"-cp", filepath.Join(libs, "*"), "org.apache.kafka.connect.mirror.MirrorMaker", file)
	return exec.Command(java, args...), nil //nolint:noctx // ended by process.stop
}

const mirrorMakerLogLevel = "error"
