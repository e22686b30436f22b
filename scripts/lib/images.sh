#!/usr/bin/env bash
# Builds the container images that the tests and examples run, once. No registry of images is needed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
recipes=$root/tests/upgrade-infrastructure/images
hub_recipe=$root/examples/compose-jupyterhub/hub
pa_recipe=$root/examples/pa/app

usage() {
    cat <<'USAGE'
Usage: scripts/lib/images.sh [--full] [--no-build]

Makes sbt/base, sbt/python, sbt/postgres:{15,17}, sbt/bank:{1,2} and sbt/jupyterhub:{3.1.1,5.4.6}. An image is
left alone as long as its recipe is the same; what was built is kept as an archive, so that a new engine
loads it.

  --full       also sbt/n8n:{1.71.3,2.8.4}, sbt/mariadb:{10.11,11.8}, sbt/redis:7 and sbt/pa:{1,2}: about ten minutes
               when they are built
  --no-build   load archives, build nothing

Environment:
  SWITCHBACK_CACHE   archives and logs (default ~/.cache/switchback-tests)
USAGE
}

fail() {
    printf 'images.sh: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf '  hint: %s\n' "$hint" >&2; done
    exit 1
}

full=no
build=yes
while [ $# -gt 0 ]; do
    case $1 in
        --full) full=yes ;;
        --no-build) build=no ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

cache=${SWITCHBACK_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/switchback-tests}
archives=$cache/images
mkdir -p "$archives/logs"

label=dev.switchback.fixture
node_version=22.20.0

# digest TEXT... [-- FILE...]: of texts and of the content of files.
digest() {
    {
        while [ $# -gt 0 ] && [ "$1" != -- ]; do
            printf '%s\n' "$1"
            shift
        done
        [ $# -eq 0 ] || shift
        [ $# -eq 0 ] || sha256sum -- "$@" | cut -d ' ' -f 1
    } | sha256sum | cut -c 1-16
}

# What each image is made from; one that is built on another contains that one's digest. `sbt/build` is only
# for building; what it trusts differs from machine to machine and is not part of any digest.
declare -A digests
digests[sbt/base:bookworm]=$(digest bookworm 1)
digests[sbt/base:trixie]=$(digest trixie 1)
digests[sbt/python:3.11]=$(digest "${digests[sbt/base:bookworm]}" -- "$recipes/python/Dockerfile")
digests[sbt/build:1]=$(digest "${digests[sbt/python:3.11]}" -- "$recipes/python/Dockerfile")
digests[sbt/postgres:15]=$(digest 15 "${digests[sbt/base:bookworm]}" -- "$recipes"/postgres/*)
digests[sbt/postgres:17]=$(digest 17 "${digests[sbt/base:trixie]}" -- "$recipes"/postgres/*)
for version in 1 2; do
    digests[sbt/bank:$version]=$(digest $version "${digests[sbt/python:3.11]}" -- "$recipes"/bank/*)
done
for version in 3.1.1 5.4.6; do
    digests[sbt/jupyterhub:$version]=$(digest $version "${digests[sbt/python:3.11]}" -- "$hub_recipe/Dockerfile")
done
for version in 1.71.3 2.8.4; do
    digests[sbt/n8n:$version]=$(digest $version $node_version "${digests[sbt/base:bookworm]}" -- "$recipes/n8n/Dockerfile")
done

standard=(sbt/base:bookworm sbt/python:3.11 sbt/postgres:15 sbt/postgres:17 sbt/bank:1 sbt/bank:2
    sbt/jupyterhub:3.1.1 sbt/jupyterhub:5.4.6)
digests[sbt/mariadb:10.11]=$(digest 10.11 "${digests[sbt/base:bookworm]}" -- "$recipes"/mariadb/*)
digests[sbt/mariadb:11.8]=$(digest 11.8 "${digests[sbt/base:trixie]}" -- "$recipes"/mariadb/*)
digests[sbt/redis:7]=$(digest 7 "${digests[sbt/base:bookworm]}" -- "$recipes"/redis/*)
for version in 1 2; do
    digests[sbt/pa:$version]=$(digest $version "${digests[sbt/python:3.11]}" -- "$pa_recipe/Dockerfile" \
        "$pa_recipe"/pa/*.* "$pa_recipe"/pa/migrations/*)
done
long=(sbt/n8n:1.71.3 sbt/n8n:2.8.4)
servers=(sbt/mariadb:10.11 sbt/mariadb:11.8)
assistant=(sbt/redis:7 sbt/pa:1 sbt/pa:2)

# present IMAGE: whether the engine has it, made from the same recipe.
present() {
    local found
    found=$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null) || return 1
    [ "$found" = "${digests[$1]}" ]
}

all_present() {
    local image
    for image in "$@"; do present "$image" || return 1; done
}

archive_of() {
    local name=$1 image all=()
    shift
    for image in "$@"; do all+=("$image" "${digests[$image]}"); done
    printf '%s/%s-%s.tar.zst' "$archives" "$name" "$(digest "${all[@]}")"
}

# load NAME IMAGE...: from the archive of a group, if there is one.
load() {
    local archive
    archive=$(archive_of "$@")
    [ -f "$archive" ] || return 0
    echo "loading ${archive##*/}"
    zstd -dcq "$archive" | docker load --quiet >/dev/null || echo "could not be loaded; building again"
}

# save NAME IMAGE...: the archive of a group, in place of the older ones.
save() {
    local archive old
    archive=$(archive_of "$@")
    [ ! -f "$archive" ] || return 0
    docker save "${@:2}" | zstd -q -T0 -3 -o "$archive.partial" -f
    for old in "$archives/$1"-*.tar.zst; do rm -f "$old"; done
    mv "$archive.partial" "$archive"
    printf 'kept %s (%s)\n' "${archive##*/}" "$(du -h "$archive" | cut -f 1)"
}

# retried LOG COMMAND...: three times, as a network has bad moments.
retried() {
    local log=$1 attempt
    shift
    for attempt in 1 2 3; do
        if "$@" >"$log" 2>&1; then return; fi
        [ "$attempt" -eq 3 ] || sleep $((attempt * 5))
    done
    tail -n 15 "$log" >&2
    return 1
}

# Without the plugin the command line has only the older builder, which does all that is needed here.
older_builder=yes
builder=(env DOCKER_BUILDKIT=0)
if docker buildx version >/dev/null 2>&1; then
    older_builder=no
    builder=(env)
fi

# make IMAGE FOLDER ARGUMENT...: builds it from the Dockerfile of a folder.
make_image() {
    local image=$1 folder=$2 log=$archives/logs/${1//[\/:]/-}.log began=$SECONDS
    shift 2
    present "$image" && return
    retried "$log" "${builder[@]}" docker build --force-rm --tag "$image" --label "$label=${digests[$image]}" \
        "$@" "$folder" || fail "$image could not be built" "see $log"
    printf '%s: built in %d s, %s\n' "$image" $((SECONDS - began)) \
        "$(docker image inspect --format '{{.Size}}' "$image" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
}

# The same for a recipe with a stage `build`, which the older builder leaves behind without a name.
make_in_stages() {
    local image=$1 folder=$2 stage=sbt/stage:$$-$RANDOM
    present "$image" && return
    make_image "$@"
    [ $older_builder = yes ] || return 0
    "${builder[@]}" docker build --quiet --target build --tag "$stage" "${@:3}" "$folder" >/dev/null
    docker image rm "$stage" >/dev/null
}

# Debian as its image, or made from its packages where no registry answers.
base() {
    local suite=$1 image=sbt/base:$1 log=$archives/logs/base-$1.log began=$SECONDS
    present "$image" && return
    # What the recipes need and the slim image lacks: an init, for n8n.
    if timeout 120 docker pull --quiet "debian:$suite-slim" >"$log" 2>&1; then
        mkdir "$scratch/$suite"
        cat >"$scratch/$suite/Dockerfile" <<DOCKERFILE
FROM debian:$suite-slim
RUN apt-get -q update && apt-get -q install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
DOCKERFILE
        make_image "$image" "$scratch/$suite"
    else
        command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing, and no registry of images answers" \
            "run scripts/lib/engine.sh, or  apt-get install mmdebstrap"
        local tar=$archives/base-$suite.tar
        # No index of languages, no pages, no waiting for the disk after each file.
        retried "$log" mmdebstrap --quiet --variant=minbase --include=tini --aptopt='Acquire::Languages "none"' \
            --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            "$suite" "$tar" || fail "Debian $suite could not be made" "see $log"
        docker import --change "LABEL $label=${digests[$image]}" --change 'CMD ["bash"]' "$tar" "$image" >/dev/null
        rm -f "$tar"
    fi
    printf '%s: made in %d s\n' "$image" $((SECONDS - began))
}

# The folder with what this machine trusts, for the build stage.
build_context() {
    local bundle
    for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        [ -f "$bundle" ] || continue
        cp "$recipes/python/Dockerfile" "$scratch/Dockerfile"
        cp "$bundle" "$scratch/ca.crt"
        chmod 644 "$scratch/ca.crt"
        return
    done
    fail "this machine has no file of trusted certificates" "apt-get install ca-certificates"
}

# Each branch is a process of its own; `both` fails when one does.
both() {
    local first second code=0
    "$1" &
    first=$!
    "$2" &
    second=$!
    wait $first || code=$?
    wait $second || code=$?
    return $code
}

make_base_bookworm() { base bookworm; }
make_base_trixie() {
    if ! present sbt/postgres:17; then base trixie; fi
}
make_base_trixie_again() { base trixie; }
make_bases() { both make_base_bookworm make_base_trixie; }
make_postgres() {
    make_image sbt/postgres:15 "$recipes/postgres" --build-arg BASE=sbt/base:bookworm --build-arg MAJOR=15
    make_image sbt/postgres:17 "$recipes/postgres" --build-arg BASE=sbt/base:trixie --build-arg MAJOR=17
}
make_python() {
    make_image sbt/python:3.11 "$scratch" --build-arg BASE=sbt/base:bookworm --target run
    make_image sbt/build:1 "$scratch" --build-arg BASE=sbt/base:bookworm --target build
}
make_applications() {
    local version
    make_python
    for version in 1 2; do
        make_image sbt/bank:$version "$recipes/bank" --build-arg BASE=sbt/python:3.11 --build-arg VERSION=$version
    done
    for version in 3.1.1 5.4.6; do
        make_in_stages sbt/jupyterhub:$version "$hub_recipe" --build-arg BASE=sbt/python:3.11 \
            --build-arg BUILD_BASE=sbt/build:1 --build-arg JHUB_VERSION=$version
    done
}
make_standard() {
    make_bases
    both make_postgres make_applications
}
make_long() {
    local version
    base bookworm
    make_python
    for version in 1.71.3 2.8.4; do
        make_in_stages sbt/n8n:$version "$recipes/n8n" --build-arg BASE=sbt/base:bookworm \
            --build-arg BUILD_BASE=sbt/build:1 --build-arg NODE_VERSION=$node_version --build-arg VERSION=$version
    done
}

make_servers() {
    both make_base_bookworm make_base_trixie_again
    make_image sbt/mariadb:10.11 "$recipes/mariadb" --build-arg BASE=sbt/base:bookworm
    make_image sbt/mariadb:11.8 "$recipes/mariadb" --build-arg BASE=sbt/base:trixie
}

make_assistant() {
    local version
    base bookworm
    make_image sbt/redis:7 "$recipes/redis" --build-arg BASE=sbt/base:bookworm
    make_python
    for version in 1 2; do
        make_in_stages sbt/pa:$version "$pa_recipe" --build-arg BASE=sbt/python:3.11 \
            --build-arg BUILD_BASE=sbt/build:1 --build-arg PA_VERSION=$version
    done
}

# group NAME MAKE IMAGE...: has all images of a group, by the cheapest way.
group() {
    local name=$1 make=$2 image
    shift 2
    if all_present "$@"; then return; fi
    load "$name" "$@"
    if ! all_present "$@"; then
        [ $build = yes ] || fail "the images of the group '$name' are not prepared" "run scripts/lib/images.sh"
        $make
        for image in "$@"; do present "$image" || fail "$image was built and is not there"; done
    fi
    save "$name" "$@"
}

docker version >/dev/null 2>&1 || fail "no Docker engine answers" "run scripts/lib/engine.sh"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/switchback-images.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
# Two of these at once would make everything twice.
exec 9>"$archives/lock"
flock -n 9 || {
    echo "waiting for another run of this script"
    flock 9
}
build_context
group standard make_standard "${standard[@]}"
# Not behind `||`, where `set -e` does not hold.
if [ $full = yes ]; then
    group long make_long "${long[@]}"
    group servers make_servers "${servers[@]}"
    group assistant make_assistant "${assistant[@]}"
fi
echo "images are ready"
