#!/usr/bin/env bash
# Has a Docker engine with Compose v2 answer on this machine: installs what is missing, starts it if none runs.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/lib/engine.sh [--no-install]
       scripts/lib/engine.sh --stop

Debian 12 or newer, or Ubuntu. An engine that answers is used as it is; a second run changes nothing.

  --no-install   install no packages; an installed engine is started all the same
  --stop         stop the engine if this script started it

Environment:
  SWITCHBACK_CACHE   log and process id of an engine started here (default ~/.cache/switchback-tests)
USAGE
}

fail() {
    printf 'engine.sh: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf '  hint: %s\n' "$hint" >&2; done
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

install=yes
stop=no
while [ $# -gt 0 ]; do
    case $1 in
        --no-install) install=no ;;
        --stop) stop=yes ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

cache=${SWITCHBACK_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/switchback-tests}
folder=$cache/engine
mkdir -p "$folder"
# Process id and start time of what was started here: an id alone may be somebody else's by now.
record=$folder/dockerd.started
log=$folder/dockerd.log
apt_log=$folder/apt.log
# The oldest with `!override`, which the lock file needs.
compose_minimum=2.24.4

# Daemons live in sbin, which is not on everybody's PATH.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
root=()
if [ "$(id -u)" -ne 0 ] && have sudo; then root=(sudo); fi
as_root() {
    if [ "$(id -u)" -ne 0 ] && [ ${#root[@]} -eq 0 ]; then fail "root is needed for: $*" "run as root, or install sudo"; fi
    ${root[@]+"${root[@]}"} "$@"
}

answers() { timeout 20 docker version --format '{{.Server.Version}}' 2>/dev/null; }

# Field 22 of a process's stat, in ticks since the machine started; nothing if there is no such process.
started_at() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

stop_engine() {
    local pid ticks
    [ -f "$record" ] || { echo "no engine was started here" && return; }
    read -r pid ticks <"$record"
    if [ -n "$ticks" ] && [ "$(started_at "$pid")" = "$ticks" ]; then
        as_root kill -TERM "$pid"
        for _ in $(seq 300); do
            [ "$(started_at "$pid")" = "$ticks" ] || break
            sleep 0.1
        done
        [ "$(started_at "$pid")" != "$ticks" ] || fail "the engine (process $pid) does not stop" "see $log"
        echo "stopped the engine"
    fi
    rm -f "$record"
}

apt_ready=no
apt() {
    local tried
    for tried in 1 2 3; do
        if as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" >>"$apt_log" 2>&1; then return; fi
        [ "$tried" -eq 3 ] || sleep $((tried * 5))
    done
    return 1
}
update_lists() {
    [ $apt_ready = no ] || return 0
    : >"$apt_log"
    apt update || fail "apt-get update failed: $(tail -n 1 "$apt_log")" "see $apt_log"
    apt_ready=yes
}
# The version that apt would install; nothing if there is none.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p' | grep -vxF '(none)' || true; }

packages() {
    [ $# -gt 0 ] || return 0
    [ $install = yes ] || fail "missing: $*" "run scripts/lib/engine.sh without --no-install, or  apt-get install $*"
    have apt-get || fail "missing: $*" "this script installs with apt only; install them and try again"
    update_lists
    echo "installing: $*"
    apt install -y --no-install-recommends "$@" || fail "apt-get could not install $*" "see $apt_log"
}

system_packages() {
    local wanted=()
    if ! answers >/dev/null && ! have dockerd; then
        wanted+=(docker.io)
        # Where nobody else mounts them.
        if [ ! -d /run/systemd/system ] && ! grep -q ' cgroup2\? ' /proc/mounts; then wanted+=(cgroupfs-mount); fi
    fi
    have zstd || wanted+=(zstd)
    have mmdebstrap || wanted+=(mmdebstrap)
    [ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || wanted+=(debian-archive-keyring)
    [ -f /etc/ssl/certs/ca-certificates.crt ] || wanted+=(ca-certificates)
    packages ${wanted[@]+"${wanted[@]}"}
    # A package of its own since Debian 13.
    have docker || packages docker-cli
}

compose_version() { { docker compose version --short 2>/dev/null || true; } | sed -n 's/^v//; s/[-+].*//; /^[0-9]/p'; }
compose_fits() {
    local found
    found=$(compose_version)
    [ -n "$found" ] && printf '%s\n%s\n' $compose_minimum "$found" | sort -C -V
}

# Debian 12 has Compose v1 only. The package of the next release needs nothing but the C library and fits.
# Its lists are read in a folder of their own: the machine's sources stay as they are and nothing else can
# be upgraded. The mirror is the machine's own.
compose_of_next_release() {
    local mirror private=$1
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Origin: Debian' | sort -u | head -n 1)
    [ -n "$mirror" ] || return 1
    mkdir -p "$private/lists/partial" "$private/parts"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' "$mirror" >"$private/sources.list"
    local options=(-o "Dir::Etc::sourcelist=$private/sources.list" -o "Dir::Etc::sourceparts=$private/parts"
        -o "Dir::State::lists=$private/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o Acquire::Languages=none -o APT::Sandbox::User=root)
    apt "${options[@]}" update || return 1
    (cd "$private" && apt "${options[@]}" download docker-compose) || return 1
    apt install -y --no-install-recommends "$private"/docker-compose_*.deb
}

compose() {
    if compose_fits; then return; fi
    local found private
    found=$(compose_version)
    if [ $install = no ] || ! have apt-get; then
        fail "Compose $compose_minimum or newer is missing (found: ${found:-none})" "install it as the plugin \`docker compose\`"
    fi
    update_lists
    echo "installing Compose (found: ${found:-none})"
    if [ -n "$(candidate docker-compose-v2)" ]; then
        packages docker-compose-v2
    elif [[ $(candidate docker-compose) == 2.* ]]; then
        packages docker-compose
    else
        private=$(mktemp -d "${TMPDIR:-/tmp}/switchback-apt.XXXXXX")
        compose_of_next_release "$private" || {
            rm -rf "$private"
            fail "Compose v2 could not be installed" "see $apt_log" "or install it as the plugin \`docker compose\`"
        }
        rm -rf "$private"
    fi
    compose_fits || fail "Compose $compose_minimum or newer is needed; found $(compose_version)"
}

# launch: starts dockerd apart from this script, and waits until it answers or ends.
launch() {
    local pid ticks
    if [ ! -d /run/systemd/system ] && ! grep -q ' cgroup2\? ' /proc/mounts && have cgroupfs-mount; then
        as_root cgroupfs-mount
    fi
    : >"$log"
    # The shell says its id and becomes the daemon, also behind sudo.
    # shellcheck disable=SC2016
    as_root setsid sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$folder/pid" \
        "$@" </dev/null >>"$log" 2>&1 &
    for _ in $(seq 600); do
        pid=$(cat "$folder/pid" 2>/dev/null || true)
        if [ -n "$pid" ]; then
            ticks=$(started_at "$pid")
            if [ -z "$ticks" ]; then
                rm -f "$folder/pid"
                return 1
            fi
            printf '%s %s\n' "$pid" "$ticks" >"$record"
            if answers >/dev/null; then
                rm -f "$folder/pid"
                return
            fi
        fi
        sleep 0.1
    done
    return 1
}

engine() {
    if answers >/dev/null; then return; fi
    [ -z "${DOCKER_HOST:-}" ] || fail "no engine answers at DOCKER_HOST" "unset it to use an engine of this machine"
    if [ -d /run/systemd/system ]; then
        as_root systemctl start docker || true
        for _ in $(seq 100); do
            if answers >/dev/null; then return; fi
            sleep 0.2
        done
        fail "the service docker does not answer" "journalctl -u docker"
    fi
    have dockerd || fail "there is no Docker engine" "apt-get install docker.io"
    # A service that apt has just started may need a moment.
    sleep 1
    if answers >/dev/null; then return; fi
    echo "starting dockerd ($log)"
    rm -f "$folder/pid" "$record"
    launch dockerd --storage-driver overlay2 ||
        fail "dockerd does not start: $(grep -v 'level=info' "$log" | tail -n 1)" "see $log" \
            "in a container it needs: privileged, and /var/lib/docker on a volume"
}

if [ $stop = yes ]; then
    stop_engine
    exit
fi
system_packages
engine
compose
printf 'engine %s, Compose %s\n' "$(answers)" "$(compose_version)"
