# shellcheck shell=bash
#
# One broker: its process, its answers, its Java, its files. Sourced by kafka.sh, which says where the files are; uses the
# settings, messages and paths that are defined there.

readonly JAVA_MIN=17

# ---- processes ---------------------------------------------------------------------------------------------------------

# Prints when a process started, in clock ticks since boot. Fails if there is no such process, or only its zombie.
start_time() { # PID
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # Field 2 is the command in parentheses and may itself hold spaces and parentheses; field 3 is the state, 22 the start.
  read -r -a fields <<<"${stat##*) }"
  [[ ${fields[0]} != [ZX] ]] || return 1
  printf '%s' "${fields[19]}"
}

# Sets PID and PORT from a record, and fails unless that very process is alive.
read_record() { # FILE
  local started
  PID='' PORT=''
  { read -r PID started PORT <"$1"; } 2>/dev/null && [[ $PORT && $(start_time "$PID") == "$started" ]]
}

running() { read_record "$(region_dir "$1")/broker.pid"; } # REGION; sets PID and PORT

# A broker leads its own session and process group, so this reaches its children too. Only after running().
signal() { kill "-$1" -- "-$2" 2>/dev/null || true; } # SIGNAL PID

wait_gone() { # SECONDS REGION
  local deadline=$((SECONDS + $1))
  while running "$2"; do
    ((SECONDS < deadline)) || return 1
    sleep $POLL_SECONDS
  done
}

forget_record() { rm -f -- "$(region_dir "$1")/broker.pid"; }

kill_broker() { # REGION
  running "$1" || return 0
  signal KILL "$PID"
  wait_gone $STOP_SECONDS_MAX "$1" || die $EXIT_FAILED "$1: pid $PID is still there after SIGKILL"
}

# Brokers of other versions in the same KAFKA_DIR that are alive, one "VERSION REGION PID PORT" a line.
other_versions_running() {
  local file version region
  for file in "$KAFKA_DIR"/data/*/*/broker.pid; do
    read_record "$file" || continue
    region=$(basename -- "${file%/*}") version=$(basename -- "${file%/*/*}")
    [[ $version == "$KAFKA_VERSION" ]] || say "$version $region $PID $PORT"
  done
}

# ---- probes ------------------------------------------------------------------------------------------------------------

# True if something listens there. One that lets a connection hang (exit 124) listens as well.
port_taken() { # PORT
  local code=0
  # shellcheck disable=SC2016 # $1 belongs to the inner shell
  timeout 1 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"' _ "$1" 2>/dev/null || code=$?
  ((code == 0 || code == 124))
}

# True if a broker answers there and is in service. It sends a Metadata request v1 without topics and reads length,
# correlation id and number of brokers of the response: the one broker is listed from when the controller has unfenced it.
answers() { # PORT
  local reply
  # shellcheck disable=SC2016 # $1 belongs to the inner shell
  reply=$(timeout 2 bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    #       length  14      key 3   v 1     correlation id  client null  0 topics
    printf "\0\0\0\016""\0\003""\0\001""\0\0\0\007""\377\377""\0\0\0\0" >&3
    head -c 12 <&3 | od -An -v -tx1' _ "$1" 2>/dev/null) || return 1
  reply=${reply//[[:space:]]/}
  [[ ${reply:8} == 0000000700000001 ]]
}

# ---- Java and jars -----------------------------------------------------------------------------------------------------

java_command() { printf '%s' "${JAVA_HOME:+$JAVA_HOME/bin/}java"; }

require_tools() { # the few that a bare system might lack
  local tool
  [[ -r /proc/$$/stat ]] || die $EXIT_NOT_READY "there is no /proc: kafka.sh works on Linux only"
  for tool in flock setsid timeout; do
    command -v "$tool" >/dev/null || die $EXIT_NOT_READY "$tool is missing. Try: apt-get install util-linux coreutils"
  done
}

# Says everything that is missing at once.
require_java_and_jars() {
  local ready=1
  java_usable || ready=0
  [[ -d $(libs_dir) ]] || mvn_usable || ready=0
  ((ready == 1)) || exit $EXIT_NOT_READY
}

java_usable() {
  local java banner hint="apt-get install openjdk-17-jre-headless"
  java=$(java_command)
  if ! command -v "$java" >/dev/null; then
    warn "$java is missing: Kafka brokers are Java programs and need Java $JAVA_MIN or newer. Try: $hint"
    return 1
  fi
  if ! banner=$("$java" -version 2>&1) || ! [[ $banner =~ version\ \"([0-9]+) ]]; then
    warn "$java does not tell its version, it says: $banner"
    return 1
  fi
  # Java 8 and older call themselves 1.8 and so on, which is older than 17 too.
  if ((BASH_REMATCH[1] < JAVA_MIN)); then
    warn "$java is too old: ${banner%%$'\n'*}; brokers are run with Java $JAVA_MIN or newer. Try: $hint, or set JAVA_HOME"
    return 1
  fi
}

mvn_usable() {
  command -v mvn >/dev/null && return
  warn "mvn (Apache Maven) is missing: it fetches the jars of Kafka $KAFKA_VERSION, which are not in $(libs_dir) yet." \
    "Try: apt-get install maven"
  return 1
}

# Under the lock, so the partial folder has one writer.
fetch_jars() {
  local libs partial
  libs=$(libs_dir) partial=$KAFKA_DIR/libs/.partial-$KAFKA_VERSION
  rm -rf -- "$partial"
  mkdir -p "$partial"
  say "fetching the jars of Kafka $KAFKA_VERSION from Maven Central (about 55 MB, once)"
  mvn -q -B -Dstyle.color=never -f "$SELF_DIR/pom.xml" -Dkafka.version="$KAFKA_VERSION" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$partial" || {
    rm -rf -- "$partial"
    die $EXIT_FAILED "the jars of Kafka $KAFKA_VERSION could not be fetched, see above; does that version exist, is there a network?"
  }
  mv -- "$partial" "$libs"
}

# ---- one broker --------------------------------------------------------------------------------------------------------

properties() { # REGION LOG_DIR
  local client controller far='' far_advertised=''
  client=127.0.0.1:$(client_port "$1") controller=127.0.0.1:$(controller_port "$1")
  if [[ $KAFKA_FAR == 1 ]]; then
    far=,FAR://127.0.0.1:$(far_port "$1") far_advertised=,FAR://127.0.0.1:$(far_advertised_port "$1")
  fi
  cat <<END
# Written by kafka.sh at each start: changes here are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$controller
listeners=PLAINTEXT://$client,CONTROLLER://$controller$far
advertised.listeners=PLAINTEXT://$client$far_advertised
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,FAR:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$2

auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0

# A killed broker may register again when its old session has run out: 3 s and not 9 s after it is started again.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# A member of a group of the new protocol that is gone is replaced as soon as one of the classic protocol that asks for
# ten seconds, not after 45.
group.consumer.min.session.timeout.ms=10000
group.consumer.session.timeout.ms=10000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=1000

# One node, so one replica; few partitions, so a quick start.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
END
}

# 16 random bytes in URL-safe base64, as Kafka writes its ids. Kafka itself avoids a leading dash: it looks like an option.
random_uuid() {
  local id
  id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_')
  id=${id%%=*}
  printf '%s' "${id/#-/A}"
}

# What every Kafka program is started with: errors to stderr, nothing else, and the jars.
java_arguments() { # sets JAVA_ARGUMENTS
  JAVA_ARGUMENTS=(
    -Dorg.slf4j.simpleLogger.defaultLogLevel=error
    -Dorg.slf4j.simpleLogger.showDateTime=true
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ"
    -cp "$(libs_dir)/*"
  )
}

format_log_dir() { # REGION; in the region's folder, after java_arguments
  rm -rf log.partial
  properties "$1" "$PWD/log.partial" >format.properties
  "$(java_command)" -Xmx128m -XX:TieredStopAtLevel=1 "${JAVA_ARGUMENTS[@]}" \
    kafka.tools.StorageTool format -t "$(random_uuid)" -c format.properties >/dev/null
  rm format.properties
  mv log.partial log
}

# Becomes the broker. Runs as its own process, in its own session, output into broker.log.
run_broker() { # REGION
  cd -- "$(region_dir "$1")"
  java_arguments
  printf '%s %s %s\n' $$ "$(start_time $$)" "$(client_port "$1")" >broker.pid.new
  mv broker.pid.new broker.pid
  [[ -d log ]] || format_log_dir "$1"
  properties "$1" "$PWD/log" >server.properties
  exec "$(java_command)" -Xms128m -Xmx512m -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError "${JAVA_ARGUMENTS[@]}" \
    kafka.Kafka server.properties
}

# Starts a region's broker without waiting for it to answer; returns once its record is written.
start_broker() { # REGION
  local dir child
  dir=$(region_dir "$1")
  mkdir -p "$dir"
  [[ ! -f $dir/broker.log ]] || mv -- "$dir/broker.log" "$dir/broker.log.old"
  # A job of a script is no group leader, so setsid does not fork and the pid stays the same all the way to java.
  setsid nohup bash "$SELF" run-broker "$1" </dev/null >"$dir/broker.log" 2>&1 9>&- &
  child=$!
  disown # no word from bash when it ends
  until running "$1" && [[ $PID == "$child" ]]; do
    start_time "$child" >/dev/null || return 0 # died at once; the wait for an answer reports it
    sleep 0.05
  done
}

show_log() { # REGION
  local log
  log=$(region_dir "$1")/broker.log
  warn "end of $log (stack frames left out):"
  { grep -v '^[[:space:]]*at ' "$log" || say '(empty)'; } | tail -n 15 | sed 's/^/    /' >&2
}
