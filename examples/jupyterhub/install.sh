#!/usr/bin/env bash
# Makes venvs/VERSION with JupyterHub as it was installed on a day of its time.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'USAGE'
Usage: install.sh [--venvs FOLDER] VERSION[@DAY]...

Makes FOLDER/VERSION (by default venvs/ beside this script) with that release of JupyterHub and its
dependencies as they were on DAY (YYYY-MM-DD): old releases do not run with today's. The day is known
for 3.1.1 and 5.4.6. What is there already is kept.
Without --venvs it also prepares hub.env (a random token) and the data folder.

Environment:
  SWITCHBACK_CACHE   downloads and the installer (default ~/.cache/switchback-tests)
  SWITCHBACK_PYTHON  the interpreter to use (default: the first fitting one on this machine)

Example: ./install.sh 3.1.1 5.4.6
USAGE
}

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf '  hint: %s\n' "$hint" >&2; done
    exit 1
}

# The minor version of Python 3 behind a command; nothing if it is none.
minor_of() {
    "$1" -c 'import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else "")' 2>/dev/null || true
}

# fitting LOW HIGH: the first interpreter whose minor version lies between.
fitting() {
    local found="" candidate minor candidates
    # The system's own first: a virtualenv on an interpreter of a user's home is lost with that home.
    candidates=(/usr/bin/python3 python3 python3.12 python3.11 python3.10 python3.9)
    [ -z "${SWITCHBACK_PYTHON:-}" ] || candidates=("$SWITCHBACK_PYTHON")
    for candidate in "${candidates[@]}"; do
        minor=$(minor_of "$candidate")
        [ -n "$minor" ] || continue
        if [ "$minor" -ge "$1" ] && [ "$minor" -le "$2" ]; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
        found+=" 3.$minor"
    done
    fail "a Python between 3.$1 and 3.$2 is needed; found:${found:- none}" \
        "Debian 12 and Ubuntu 22.04 or 24.04 have one:  apt-get install python3 python3-venv" \
        "or name one with SWITCHBACK_PYTHON=/path/to/python3.11"
}

# The installer lives in a virtualenv of its own: nothing of the system's Python is touched.
ensure_uv() {
    uv=$cache/uv-tool/bin/uv
    if "$uv" --version >/dev/null 2>&1; then return; fi
    local python log
    python=$(fitting 9 99)
    mkdir -p "$cache"
    log=$cache/uv-tool.log
    rm -rf "$cache/uv-tool"
    "$python" -m venv "$cache/uv-tool" >"$log" 2>&1 ||
        fail "python3 cannot make a virtualenv ($log)" "apt-get install python3-venv"
    "$cache/uv-tool/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.4' >"$log" 2>&1 ||
        fail "pip could not install uv: $(tail -n 1 "$log")" "see $log"
}

install_one() {
    local version=${1%%@*} day="" low=9 high=99 python minor target partial found
    [ "$version" = "$1" ] || day=${1#*@}
    [[ $version =~ ^[0-9]+(\.[0-9]+)+[a-z0-9.]*$ ]] || fail "'$version' is not a version" "for example 3.1.1"
    [ -z "$day" ] || [[ $day =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] || fail "'$day' is not a day" "for example 2023-03-01"

    target=$venvs/$version
    if [ -d "$target" ]; then
        found=$("$target/bin/jupyterhub" --version 2>/dev/null || true)
        if [ "$found" = "$version" ]; then
            echo "$version is installed in $target"
            return
        fi
        fail "$target exists, but is not a working JupyterHub $version" "remove that folder and try again"
    fi

    # 3.1.1 imports a module that Python 3.13 no longer has.
    [[ $version != [0-3].* ]] || high=12
    python=$(fitting "$low" "$high")
    minor=$(minor_of "$python")
    if [ -z "$day" ]; then
        case $version in
            3.1.1)
                day=2023-03-01
                # Before that day some dependencies had no binary packages for Python 3.12.
                [ "$minor" -lt 12 ] || day=2023-12-01
                ;;
            5.4.6) day=2026-09-01 ;;
            *) fail "no day is known for JupyterHub $version" "name one:  $version@YYYY-MM-DD" ;;
        esac
    fi

    ensure_uv
    echo "installing $version as of $day with $("$python" --version) in $target"
    mkdir -p "$venvs"
    partial=$venvs/.$version.partial
    rm -rf "$partial"
    # Relocatable: it gets its name only when it is complete, and a stack can be moved. Copies: what lies
    # in the cache must not be able to change a release.
    "$uv" --quiet venv --relocatable --no-project --no-config --python "$python" "$partial"
    "$uv" --quiet pip install --no-config --python "$partial/bin/python" --link-mode copy --compile-bytecode \
        --only-binary :all: --exclude-newer "$day" "jupyterhub==$version" setuptools ||
        fail "JupyterHub $version could not be installed (see above)" "is the package index reachable?"
    found=$("$partial/bin/jupyterhub" --version 2>&1 || true)
    [ "$found" = "$version" ] || fail "the installed JupyterHub does not run: ${found##*$'\n'}"
    mv "$partial" "$target"
}

venvs=""
wanted=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --venvs)
            [ $# -ge 2 ] || fail "--venvs needs a folder"
            venvs=$2
            shift
            ;;
        -*) fail "unknown option $1" "install.sh --help" ;;
        *) wanted+=("$1") ;;
    esac
    shift
done
if [ ${#wanted[@]} -eq 0 ]; then
    usage >&2
    exit 2
fi

cache=${SWITCHBACK_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/switchback-tests}
export UV_CACHE_DIR=$cache/uv UV_PYTHON_DOWNLOADS=never
uv=""

if [ -z "$venvs" ]; then
    venvs=$here/venvs
    mkdir -p "$here/data"
    [ -d "$here/data/secrets" ] || mkdir -m 700 "$here/data/secrets"
    if [ ! -e "$here/hub.env" ]; then
        token=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
        (umask 077 && printf 'HUB_API_TOKEN=%s\n' "$token" >"$here/hub.env")
        echo "wrote hub.env with a new token"
    fi
fi
for version in "${wanted[@]}"; do install_one "$version"; done
