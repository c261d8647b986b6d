#!/usr/bin/env bash
#
# Starts and stops real Apache Kafka for tests: one single-node KRaft cluster for each of three regions, on loopback.
# What it does and how it is set is in usage() below and in README.md.
#
# Linux only: a process is recognised by its start time in /proc/PID/stat, so nothing that merely reuses a pid is signalled.
# This file holds settings and commands; broker.sh knows one broker: its process, its answers, its Java, its files.
#
# Files, all under KAFKA_DIR:
#   lock                           held by whoever decides what to start or stop, never while waiting for an answer
#   libs/VERSION/                  jars; the folder appears by rename, so it is complete if it is there
#   data/VERSION/REGION/
#     broker.pid                   "PID START_TIME CLIENT_PORT", written by the broker's own process before it becomes java;
#                                  stays behind when a broker dies, goes when `down` ends it
#     broker.log, broker.log.old   output of this start and of the one before
#     server.properties            written anew at each start
#     log/                         Kafka's log.dirs; the folder appears by rename, so it is formatted if it is there

set -euo pipefail

readonly REGIONS=(us-east-1 us-west-1 eu-central-1)

readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_NOT_READY=7

readonly START_SECONDS_MAX=60
readonly STOP_SECONDS_MAX=20
readonly LOCK_SECONDS_MAX=300 # the holder may be fetching jars over a slow line
readonly POLL_SECONDS=0.2

SELF=$(readlink -f -- "${BASH_SOURCE[0]}")
readonly SELF SELF_DIR=${SELF%/*}

# shellcheck source=broker.sh
source "$SELF_DIR/broker.sh"

KAFKA_VERSION=${KAFKA_VERSION:-4.2.0}
KAFKA_DIR=${KAFKA_DIR:-$(cd -- "$SELF_DIR/../.." && pwd)/.kafka}
KAFKA_BASE_PORT=${KAFKA_BASE_PORT:-19092}
KAFKA_FAR=${KAFKA_FAR:-}

usage() {
  cat <<'END'
kafka.sh: real Apache Kafka for tests, one single-node cluster per region, on loopback

  kafka.sh up [REGION...]      start what is not running and wait until it answers; data of earlier runs is kept
  kafka.sh down [REGION...]    stop (SIGTERM, after 20 s SIGKILL); data is kept
  kafka.sh kill REGION...      kill -9; data is kept, `up REGION` brings it back
  kafka.sh status              table of regions: running, unready (does not answer), dead (ended unasked), stopped
  kafka.sh env                 addresses as EVENKEEL_KAFKA_<REGION>=HOST:PORT lines
  kafka.sh clean [REGION...]   stop and delete the data; jars are kept
  kafka.sh help

Regions: us-east-1 us-west-1 eu-central-1 (default: all three)

Environment:
  KAFKA_VERSION     version of Apache Kafka; every command acts on this one (default 4.2.0)
  KAFKA_DIR         where jars and data live (default: .kafka at the top of the repository)
  KAFKA_BASE_PORT   region i listens at base+100*i for clients, base+100*i+1 for its controller (default 19092)
  KAFKA_FAR         1: region i listens at base+100*i+2 too, and tells clients who come in there to go on at base+100*i+3:
                    for a proxy from there to here that makes the region a distant one
  JAVA_HOME         the Java to run, else the `java` in PATH; 17 or newer

Exit codes: 0 ok, 1 failed, 2 usage, 7 java, mvn or another tool is missing or too old
END
}

# ---- messages ----------------------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }
warn() { printf 'kafka.sh: %s\n' "$*" >&2; }
die() { # CODE MESSAGE...
  local code=$1
  shift
  warn "$*"
  exit "$code"
}

say_region() { printf '%-14s %s\n' "$1" "$2"; }

# ---- names, ports, folders ---------------------------------------------------------------------------------------------

check_settings() {
  [[ $KAFKA_VERSION =~ ^[0-9]+(\.[0-9]+)+(-[A-Za-z0-9]+)?$ ]] ||
    die $EXIT_USAGE "KAFKA_VERSION '$KAFKA_VERSION' is not a version such as 4.2.0"
  if ! [[ $KAFKA_BASE_PORT =~ ^[1-9][0-9]{3,4}$ ]] || ((KAFKA_BASE_PORT < 1024 || KAFKA_BASE_PORT > 65000)); then
    die $EXIT_USAGE "KAFKA_BASE_PORT '$KAFKA_BASE_PORT' is not a port from 1024 to 65000"
  fi
  [[ $KAFKA_FAR == '' || $KAFKA_FAR == 1 ]] || die $EXIT_USAGE "KAFKA_FAR '$KAFKA_FAR' is neither 1 nor empty"
  [[ $KAFKA_DIR == /* ]] || KAFKA_DIR=$PWD/$KAFKA_DIR
  # A class path is split at colons and log.dirs at commas; a backslash is an escape in a properties file.
  [[ $KAFKA_DIR != *[:,\\]* ]] || die $EXIT_USAGE "KAFKA_DIR '$KAFKA_DIR' may not contain a colon, comma or backslash"
  # The brokers are started through this same script and must see the same settings.
  export KAFKA_VERSION KAFKA_DIR KAFKA_BASE_PORT KAFKA_FAR
}

region_index() { # REGION
  local i
  for i in "${!REGIONS[@]}"; do
    if [[ ${REGIONS[i]} == "$1" ]]; then
      printf '%s' "$i"
      return
    fi
  done
  return 1
}

# Sets SELECTED to the regions named, each once and in the usual order.
select_regions() { # REGION...
  local region
  for region; do
    region_index "$region" >/dev/null || die $EXIT_USAGE "unknown region '$region'; regions are: ${REGIONS[*]}"
  done
  SELECTED=()
  for region in "${REGIONS[@]}"; do
    [[ " $* " != *" $region "* ]] || SELECTED+=("$region")
  done
}

client_port() { printf '%s' $((KAFKA_BASE_PORT + 100 * $(region_index "$1"))); }
controller_port() { printf '%s' $((KAFKA_BASE_PORT + 100 * $(region_index "$1") + 1)); }
far_port() { printf '%s' $((KAFKA_BASE_PORT + 100 * $(region_index "$1") + 2)); }
far_advertised_port() { printf '%s' $((KAFKA_BASE_PORT + 100 * $(region_index "$1") + 3)); }

libs_dir() { printf '%s' "$KAFKA_DIR/libs/$KAFKA_VERSION"; }
region_dir() { printf '%s' "$KAFKA_DIR/data/$KAFKA_VERSION/$1"; }

# ---- lock --------------------------------------------------------------------------------------------------------------

# Descriptor 9 is the lock. It is closed for brokers, which would keep it for as long as they live.
lock() {
  mkdir -p "$KAFKA_DIR"
  exec 9>"$KAFKA_DIR/lock"
  flock -n 9 && return
  warn "another kafka.sh is at work in $KAFKA_DIR; waiting for it"
  flock -w $LOCK_SECONDS_MAX 9 || die $EXIT_FAILED "the other kafka.sh did not end within $LOCK_SECONDS_MAX s"
}

unlock() { exec 9>&-; }

# ---- commands ----------------------------------------------------------------------------------------------------------

# Fails unless all ports are free; names each one that is not.
check_ports_free() { # REGION...
  local region port use failed=0
  for region; do
    for use in client controller ${KAFKA_FAR:+far}; do
      port=$("${use}_port" "$region")
      port_taken "$port" || continue
      warn "port $port, wanted for region $region ($use listener), is in use by $(port_user "$port")"
      failed=1
    done
  done
  ((failed == 0)) || die $EXIT_FAILED "nothing was started"
}

port_user() { # PORT
  local version region pid port
  while read -r version region pid port; do
    if (($1 >= port && $1 <= port + 2)); then
      say "Kafka $version of region $region, pid $pid. Try: KAFKA_VERSION=$version kafka.sh down $region"
      return
    fi
  done < <(other_versions_running)
  say "another process. Try another KAFKA_BASE_PORT (now $KAFKA_BASE_PORT)"
}

# Waits for all at once; reports each as it answers or fails.
wait_ready() { # REGION...
  local deadline=$((SECONDS + START_SECONDS_MAX)) pending=("$@") still region failed=0
  while ((${#pending[@]} > 0)); do
    still=()
    for region in "${pending[@]}"; do
      if ! running "$region"; then
        warn "$region: the broker ended before it answered"
        show_log "$region"
        failed=1
      elif answers "$PORT"; then
        say_region "$region" "running at 127.0.0.1:$PORT, pid $PID"
      elif ((SECONDS >= deadline)); then
        warn "$region: no answer from 127.0.0.1:$PORT within $START_SECONDS_MAX s; pid $PID is left running." \
          "Try: kafka.sh up $region to wait on, kafka.sh down $region to end it"
        show_log "$region"
        failed=1
      else
        still+=("$region")
      fi
    done
    pending=("${still[@]}")
    ((${#pending[@]} == 0)) || sleep $POLL_SECONDS
  done
  return $failed
}

cmd_up() { # REGION...
  local region todo=()
  require_tools
  lock
  for region; do
    if ! running "$region"; then
      todo+=("$region")
    elif [[ $PORT != "$(client_port "$region")" ]]; then
      die $EXIT_FAILED "$region runs already, but at port $PORT and not $(client_port "$region"). Try: kafka.sh down $region"
    fi
  done
  if ((${#todo[@]} > 0)); then
    require_java_and_jars
    check_ports_free "${todo[@]}"
    [[ -d $(libs_dir) ]] || fetch_jars
    say "starting Kafka $KAFKA_VERSION: ${todo[*]}"
    for region in "${todo[@]}"; do start_broker "$region"; done
  fi
  unlock
  wait_ready "$@" || exit $EXIT_FAILED
}

cmd_down() { # REGION...
  require_tools
  lock
  stop_brokers "$@"
  mention_other_versions
}

# Under the lock. All are asked to stop at once, then waited for in turn.
stop_brokers() { # REGION...
  local region began=$SECONDS asked=()
  for region; do
    if running "$region"; then
      signal TERM "$PID"
      signal CONT "$PID" # one that a test has frozen with SIGSTOP would not notice otherwise
      asked+=("$region")
    else
      say_region "$region" "was not running"
      forget_record "$region"
    fi
  done
  for region in "${asked[@]}"; do
    if wait_gone $((STOP_SECONDS_MAX - (SECONDS - began))) "$region"; then
      say_region "$region" "stopped"
    else
      kill_broker "$region"
      say_region "$region" "did not stop within $STOP_SECONDS_MAX s: killed"
    fi
    forget_record "$region"
  done
}

mention_other_versions() {
  local version region pid _
  while read -r version region pid _; do
    warn "still running: Kafka $version of $region, pid $pid. Try: KAFKA_VERSION=$version kafka.sh down"
  done < <(other_versions_running)
}

# Takes no lock, so that it strikes at any moment, also while an `up` or `down` is under way. The record stays: only
# those who hold the lock write or delete it.
cmd_kill() { # REGION...
  local region pid failed=0
  for region; do
    if running "$region"; then
      pid=$PID
      kill_broker "$region"
      say_region "$region" "killed, pid $pid"
    else
      warn "$region is not running"
      failed=1
    fi
  done
  return $failed
}

cmd_clean() { # REGION...
  local region
  require_tools
  lock
  stop_brokers "$@"
  for region; do
    rm -rf -- "$(region_dir "$region")"
    say_region "$region" "data of Kafka $KAFKA_VERSION deleted"
  done
  rmdir -- "$KAFKA_DIR/data/$KAFKA_VERSION" "$KAFKA_DIR/data" 2>/dev/null || true
  mention_other_versions
}

cmd_status() {
  local version region pid port
  status_line REGION STATE ADDRESS PID VERSION
  for region in "${REGIONS[@]}"; do
    if running "$region"; then
      status_line "$region" "$(live_state "$PORT")" "127.0.0.1:$PORT" "$PID" "$KAFKA_VERSION"
    elif [[ -f $(region_dir "$region")/broker.pid ]]; then
      status_line "$region" dead "$(region_address "$region")" - "$KAFKA_VERSION"
    else
      status_line "$region" stopped "$(region_address "$region")" - "$KAFKA_VERSION"
    fi
  done
  while read -r version region pid port; do
    status_line "$region" "$(live_state "$port")" "127.0.0.1:$port" "$pid" "$version"
  done < <(other_versions_running)
}

status_line() { printf '%-14s %-8s %-16s %-8s %s\n' "$@"; }

live_state() { # PORT of a live process of ours
  if answers "$1"; then say running; else say unready; fi
}

region_address() { # REGION; where it listens, or would listen when started
  if running "$1"; then say "127.0.0.1:$PORT"; else say "127.0.0.1:$(client_port "$1")"; fi
}

cmd_env() {
  local region name
  for region in "${REGIONS[@]}"; do
    name=${region^^}
    say "EVENKEEL_KAFKA_${name//-/_}=$(region_address "$region")"
  done
}

no_arguments() { # COMMAND ARGUMENT...
  (($# == 1)) || die $EXIT_USAGE "$1 takes no arguments"
}

main() {
  local command=${1:-help}
  shift || true
  check_settings
  case $command in
    up | down | clean)
      (($# > 0)) || set -- "${REGIONS[@]}"
      select_regions "$@"
      "cmd_$command" "${SELECTED[@]}"
      ;;
    kill)
      (($# > 0)) || die $EXIT_USAGE "kill needs a region: ${REGIONS[*]}"
      select_regions "$@"
      cmd_kill "${SELECTED[@]}"
      ;;
    status | env)
      no_arguments "$command" "$@"
      "cmd_$command"
      ;;
    help | -h | --help) usage ;;
    run-broker) run_broker "$@" ;; # start_broker only
    *) die $EXIT_USAGE "unknown command '$command'; see: kafka.sh help" ;;
  esac
}

main "$@"
