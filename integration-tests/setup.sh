#!/usr/bin/env bash
# Installs what building and testing need. Run by `make`; safe to run again: what is there is left alone.
#
#   setup.sh make    make, for whoever starts without it
#   setup.sh build   a C compiler and linker, for the crates that carry C code
#   setup.sh test    the same, PostgreSQL (its programs; no server is set up or started), a Kafka broker with the Java that runs it,
#                    the Python tools of the tests in an environment of their own in the cache directory, and beside it the Node
#                    tools that read the OpenAPI document
#   setup.sh python  prints the Python that has these tools (installing nothing)
#   setup.sh node    prints where the packages of the Node tools are (installing nothing)
#
# System packages come through apt when that is allowed (root, or sudo without a password); otherwise this prints the
# line to run and stops. Nothing is written into the repository.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/highwater
requirements=$here/requirements.txt
# The environment is named by its contents: another list of versions is another environment.
venv=$cache/python-$(cksum <"$requirements" | cut -d' ' -f1)
node=$cache/node-$(cksum <"$here/rest/package-lock.json" | cut -d' ' -f1)

say() { printf '\033[2m[set-up]\033[0m %s\n' "$*" >&2; }
die() { printf '[set-up] %s\n' "$*" >&2; exit 1; }

# The apt packages that are missing, from pairs of a test and a package.
missing=()
need() { # PACKAGE COMMAND...
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

apt_install() {
  [[ ${#missing[@]} -gt 0 ]] || return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (the names on Debian and Ubuntu; apt-get is not here)"
  local sudo=() cluster='' line
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    # Else the package makes a cluster and starts it, on the port that the machine's own may want.
    cluster='mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" >>/etc/postgresql-common/createcluster.conf'
  fi
  line="${cluster:+$cluster && }apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if [[ $(id -u) -ne 0 ]]; then
    line="sudo sh -c '$line'"
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      sudo=(sudo -n)
    else
      die "missing system packages; run this, then try again:
    $line"
    fi
  fi
  say "installing ${missing[*]} with apt"
  if [[ -n $cluster ]] && ! grep -qs '^create_main_cluster' /etc/postgresql-common/createcluster.conf; then
    "${sudo[@]}" sh -c "$cluster"
  fi
  # An index that could not be refreshed may still do.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || say "apt-get update failed: see above"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
    die "missing system packages, and apt could not install them: see above (without a network, for one).
  Once it can, run this, then try again:
    $line"
  missing=()
}

has_cc() (
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  # A compiler without the headers of libc is not enough.
  printf '#include <stdio.h>\nint main(void) { return 0; }\n' >"$dir/a.c" && cc -o "$dir/a" "$dir/a.c"
)

# Debian keeps the server's programs off PATH.
has_postgres() (
  for dir in /usr/lib/postgresql/*/bin; do
    if [[ -x $dir/initdb && -x $dir/postgres && -x $dir/psql ]]; then exit 0; fi
  done
  command -v initdb && command -v psql
)

# Kafka needs 17. Releases of the system have one version or another.
has_java() (
  version=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.specification\.version = //p')
  [[ ${version%%.*} -ge 17 ]]
)

java_package() {
  if apt-cache show openjdk-17-jre-headless >/dev/null 2>&1; then
    echo openjdk-17-jre-headless
  else
    echo default-jre-headless
  fi
}

# bindgen loads it when RocksDB is compiled.
has_libclang() {
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' || compgen -G '/usr/lib*/libclang*.so*' ||
    compgen -G '/usr/lib/*/libclang*.so*' || [[ -n ${LIBCLANG_PATH:-} ]]
}

# A C and C++ compiler, and what librdkafka and RocksDB are built with.
need_compilers() {
  need build-essential has_cc
  need g++ command -v g++
  need pkg-config command -v pkg-config
  need libssl-dev test -e /usr/include/openssl/ssl.h
  need zlib1g-dev test -e /usr/include/zlib.h
  need clang command -v clang
  need libclang-dev has_libclang
}

check_rust() {
  command -v cargo >/dev/null || die "cargo is not in PATH: install Rust (rustup), then try again"
  # With rustup this installs the toolchain that rust-toolchain.toml names, with its components, at the first call.
  (cd "$here" && cargo --version >/dev/null) || die "cargo does not start: see the message above"
}

python_tools() {
  if [[ -f $venv/complete ]]; then return; fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "the tests need Python 3.10 or newer, and python3 is $(python3 --version 2>&1): put a newer one first in PATH, then try again"
  say "installing the Python tools of the tests into $venv"
  mkdir -p "$cache"
  (
    if command -v flock >/dev/null; then flock 9; fi # two runs at once: the second one finds it done
    if [[ -f $venv/complete ]]; then exit 0; fi
    rm -rf "$venv"
    python3 -m venv "$venv" &&
      "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off -r "$requirements" >&2 &&
      touch "$venv/complete"
  ) 9>"$cache/python.lock" || true
  [[ -f $venv/complete ]] || die "the Python tools could not be installed: see the message above"
}

# What lints the OpenAPI document and makes a TypeScript client of it (integration-tests/rest/): exactly what its lock file names.
node_tools() {
  if [[ -f $node/complete ]]; then return; fi
  # What the linter of the document asks for.
  local sudo=''
  if [[ $(id -u) -ne 0 ]]; then sudo='sudo '; fi
  node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19) ? 0 : 1)' ||
    die "the tests need Node 20.19, 22.12 or newer, and node is $(node --version 2>&1); run this, then try again:
    ${sudo}npm install --global node@22"
  say "installing the Node tools of the tests into $node"
  mkdir -p "$cache"
  (
    if command -v flock >/dev/null; then flock 9; fi
    if [[ -f $node/complete ]]; then exit 0; fi
    rm -rf "$node"
    mkdir -p "$node" && cp "$here/rest/package.json" "$here/rest/package-lock.json" "$node/" &&
      npm ci --prefix "$node" --ignore-scripts --no-audit --no-fund >&2 &&
      touch "$node/complete"
  ) 9>"$cache/node.lock" || true
  [[ -f $node/complete ]] || die "the Node tools could not be installed: see the message above"
}

# A Kafka broker: its jars from Maven, and an archive of the classes that it loads, with which it starts in half the time.
# Tests start and stop it by themselves (integration-tests/support/src/kafka.rs).
kafka_version=4.3.1
kafka_broker() {
  local dir=$cache/kafka-$kafka_version
  if [[ -f $dir/complete ]]; then return; fi
  say "fetching Kafka $kafka_version into $dir"
  mkdir -p "$dir"
  (
    if command -v flock >/dev/null; then flock 9; fi
    if [[ -f $dir/complete ]]; then exit 0; fi
    rm -rf "$dir/jars" "$dir/classes.jsa"
    # kafka-tools-api is not used by a broker, and not every release of it is published.
    cat >"$dir/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId>
  <artifactId>broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$kafka_version</version>
      <exclusions>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>kafka-tools-api</artifactId></exclusion>
      </exclusions>
    </dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
    mvn -B -q -f "$dir/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
      -DoutputDirectory="$dir/jars" >&2 || exit 1
    class_archive "$dir" || say "without an archive of its classes Kafka starts more slowly"
    touch "$dir/complete"
  ) 9>"$cache/kafka.lock" || true
  [[ -f $dir/complete ]] || die "Kafka could not be fetched: see the message above"
}

# Runs a broker for a moment to record its classes. The options are those with which the tests start it.
class_archive() (
  LC_ALL=C
  jars=("$1"/jars/*.jar)
  java=(java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
    -Dorg.slf4j.simpleLogger.logFile=System.out -cp "$(IFS=: && printf '%s' "${jars[*]}")")
  state=$(mktemp -d)
  trap 'rm -rf "$state"' EXIT
  port=$((21000 + RANDOM % 8000))
  cat >"$state/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$port
listeners=PLAINTEXT://127.0.0.1:$((port + 1)),CONTROLLER://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$state/data
log.cleaner.dedupe.buffer.size=16777216
PROPERTIES
  "${java[@]}" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c "$state/server.properties" >/dev/null 2>&1 || exit 1
  "${java[@]}" "-XX:ArchiveClassesAtExit=$1/classes.jsa" kafka.Kafka "$state/server.properties" >"$state/log" 2>&1 &
  broker=$!
  for _ in {1..300}; do
    if grep -q 'Kafka Server started' "$state/log"; then break; fi
    kill -0 "$broker" 2>/dev/null || exit 1
    sleep 0.1
  done
  kill "$broker"
  wait "$broker" || true
  [[ -f $1/classes.jsa ]]
)

case ${1:-} in
  make)
    need make command -v make
    apt_install
    ;;
  build)
    need_compilers
    need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
    apt_install
    check_rust
    ;;
  test)
    need_compilers
    need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
    need python3 python3 -c ''
    need python3-venv python3 -c 'import ensurepip, venv'
    need "$(java_package)" has_java
    need maven command -v mvn
    need openssl command -v openssl
    need nodejs command -v node
    need npm command -v npm
    need postgresql has_postgres
    apt_install
    check_rust
    has_java || die "the tests need Java 17 or newer, and java is $(java -version 2>&1 | head -n 1): put a newer one first in PATH, then try again"
    python_tools
    node_tools
    kafka_broker
    ;;
  python) echo "$venv/bin/python" ;;
  node) echo "$node/node_modules" ;;
  *)
    awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0" >&2
    exit 2
    ;;
esac
