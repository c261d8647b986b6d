# Evenkeel. `make` lists the targets; each line says what a target does.

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
KAFKA := deploy/kafka/kafka.sh
T ?= 30s
N ?= 200
DAYS ?= 40
SEED ?=
FROM ?= 1
ONLY ?=
ARGS ?=

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' Makefile

build: ## build both commands into build/
	go build -o build/ ./cmd/...

demo: build ## three regions, real events, a lost region restored; ARGS=--keep leaves the lab running
	build/evenkeel-lab demo $(ARGS)

check: build lint ## build, vet, lint, and the quick tests, layer test included
	go test -short ./...

lint: ## vet and lint
	go vet ./...
	go run $(GOLANGCI_LINT) run ./...

test: build ## all tests that need Go alone
	go vet ./...
	go test -timeout 30m ./...

race: ## all tests under the race detector
	go test -race -timeout 60m ./...

sim: ## simulated regions under faults: SEED= one seed, N= so many seeds, FROM= a first one, ONLY= one scenario (Divergence takes two seconds a seed, Vault five, Backups twenty)
	go test ./pipeline/sim -run Sim$(ONLY) -count=1 -timeout=0 -sim.seed=$(SEED) -sim.n=$(N) -sim.from=$(FROM)

sim-links: ## simulated links under faults: N= seeds of 25 rounds each
	go test ./replicator -run 'TestSim$$' -count=1 -timeout=0 -link.n=$(N)

soak: ## a delta each minute for DAYS= simulated days (40), with fulls and prunes: about ten minutes on an idle machine
	go test ./snapshotter/prune -run TestEveryMinute -count=1 -v -timeout 2h -days $(DAYS)

fuzz: ## every fuzz target for T= each
	deploy/scripts/fuzz.sh $(T)

bench: bench-load bench-link bench-apply bench-backup ## all benchmarks

bench-load: build ## events a second into the lab, beside bare producers on the same clusters
	build/evenkeel-lab bench --json build/bench/load.json

bench-link: build ## links between two real Kafka clusters, beside MirrorMaker 2 (needs Java 17 and Maven); SHORT=1: within four minutes
	build/evenkeel-lab bench-link --json build/bench/link.json $(if $(SHORT),--short) $(ARGS)

bench-apply: build ## folding events into a shard, beside a bare Pebble loop on the same keys (up to 50 GB of disk); SHORT=1: within four minutes
	build/evenkeel-lab bench-apply --json build/bench/apply.json $(if $(SHORT),--short) $(ARGS)

bench-backup: build ## backups and restores, beside plain copies; SHORT=1: within four minutes
	build/evenkeel-lab bench-backup --json build/bench/backup.json $(if $(SHORT),--short) $(ARGS)

generate: ## Go from the protobuf files
	go generate ./schemas

golden: ## add golden files that are missing; never changes one that is there
	go test ./schemas ./snapshotter/format -update

kafka-up: ## start three real Kafka clusters on loopback (needs Java 17 and Maven); KAFKA_VERSION=3.9.2 for another
	$(KAFKA) up

kafka-down: ## stop them
	$(KAFKA) down

test-kafka: build ## the flow and its checks on real Kafka, with kcat as an independent client
	deploy/kafka/test.sh

.PHONY: help build demo check lint test race sim sim-links soak fuzz bench bench-load bench-link bench-apply bench-backup generate golden kafka-up kafka-down test-kafka
