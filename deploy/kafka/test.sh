#!/usr/bin/env bash
# Runs the suite on real Kafka: three fresh clusters, then the tests that carry
# the build tag "kafka". Only what it started is stopped and deleted: its clusters are its own, in KAFKA_DIR/test
# and 1,000 ports above those of `make kafka-up`. KILL_ROUNDS=50 lets links
# and brokers be killed for longer than a few rounds, LOST_ROUNDS=5 that many regions be lost.
set -euo pipefail
cd "$(dirname "$0")/../.."
kafka=deploy/kafka/kafka.sh

# The jars are those of everybody, and so is the lock under which they are fetched.
shared=$(readlink -m -- "${KAFKA_DIR:-.kafka}")
export KAFKA_DIR=$shared/test KAFKA_BASE_PORT=$((${KAFKA_BASE_PORT:-19092} + 1000))
mkdir -p "$shared/libs" "$KAFKA_DIR"
ln -sfn ../libs "$KAFKA_DIR/libs"
ln -sfn ../lock "$KAFKA_DIR/lock"

if ! command -v kcat >/dev/null 2>&1; then
  echo "kcat is missing: the suite uses it as an independent producer and consumer; apt-get install kcat" >&2
  exit 7
fi
trap '$kafka clean' EXIT
$kafka clean
$kafka up
# One package after the other (-p 1): the second kills brokers.
# shellcheck disable=SC2046 # one NAME=value a word
env $($kafka env) go test -p 1 -tags kafka -run Kafka -count=1 -timeout 20m -v ./pipeline/lab ./cmd/evenkeel "$@"
# Links alone, on the same clusters; every test there has the tag. What may run in
# parallel waits most of the time: for brokers that start, or have to miss each other.
# shellcheck disable=SC2046 # one NAME=value a word
env $($kafka env) go test -tags kafka -count=1 -parallel 4 -timeout 60m -v ./replicator/kafkatest "$@"
