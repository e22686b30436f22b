#!/usr/bin/env bash
# Does what people rely on in the entrypoint of the official MariaDB image:
#   MARIADB_ROOT_PASSWORD, MARIADB_DATABASE, MARIADB_USER, MARIADB_PASSWORD, each also as NAME_FILE;
#   MARIADB_AUTO_UPGRADE; /docker-entrypoint-initdb.d; arguments that start with `-`.
set -euo pipefail

data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock

# from_file NAME: exports NAME, read from the file NAME_FILE if that is set.
from_file() {
    local name=$1 file=${1}_FILE
    if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
        echo >&2 "error: both $name and $file are set"
        exit 1
    fi
    local value=${!name:-}
    [ -z "${!file:-}" ] || value=$(<"${!file}")
    export "$name=$value"
}

# The text as an SQL literal.
literal() { printf "'%s'" "$(printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e "s/'/''/g")"; }

# A server that only the socket reaches: who waits for the port must not see a half-made database.
alone() {
    "$@" --skip-networking --socket="$socket" &
    server=$!
    local attempt
    for attempt in $(seq 300); do
        if mariadb --no-defaults --protocol=socket --socket="$socket" -uroot -e 'DO 1' 2>/dev/null ||
            MYSQL_PWD=${MARIADB_ROOT_PASSWORD:-} mariadb --no-defaults --protocol=socket --socket="$socket" -uroot -e 'DO 1' 2>/dev/null; then
            return
        fi
        kill -0 "$server" 2>/dev/null || break
        [ "$attempt" -lt 300 ] || break
        sleep 0.1
    done
    echo >&2 "error: the server for the initialisation does not answer"
    exit 1
}

end_alone() {
    kill "$server"
    wait "$server" || true
}

initialise() {
    mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db >/dev/null
    alone "$@"
    local ask=(mariadb --no-defaults --protocol=socket --socket="$socket" -uroot) name
    {
        printf "CREATE USER root@'%%' IDENTIFIED BY %s;\n" "$(literal "$MARIADB_ROOT_PASSWORD")"
        printf "GRANT ALL ON *.* TO root@'%%' WITH GRANT OPTION;\n"
        name=${MARIADB_DATABASE//\`/\`\`}
        [ -z "$name" ] || printf "CREATE DATABASE IF NOT EXISTS \`%s\`;\n" "$name"
        if [ -n "$MARIADB_USER" ]; then
            printf "CREATE USER %s@'%%' IDENTIFIED BY %s;\n" "$(literal "$MARIADB_USER")" "$(literal "$MARIADB_PASSWORD")"
            [ -z "$name" ] || printf "GRANT ALL ON \`%s\`.* TO %s@'%%';\n" "$name" "$(literal "$MARIADB_USER")"
        fi
    } | "${ask[@]}"
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) bash "$file" ;;
            *.sql) "${ask[@]}" ${MARIADB_DATABASE:+"$MARIADB_DATABASE"} <"$file" ;;
        esac
    done
    # Last, because what comes before is asked without one.
    printf 'ALTER USER root@localhost IDENTIFIED BY %s;\n' "$(literal "$MARIADB_ROOT_PASSWORD")" | "${ask[@]}"
    end_alone
}

[ "${1:0:1}" != - ] || set -- mariadbd "$@"
[ "${1:-}" = mariadbd ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$data" /run/mysqld
    find "$data" /run/mysqld \! -user mysql -exec chown mysql {} +
    exec setpriv --reuid mysql --regid mysql --init-groups -- "$0" "$@"
fi

for name in MARIADB_ROOT_PASSWORD MARIADB_DATABASE MARIADB_USER MARIADB_PASSWORD; do from_file $name; done
if [ -d "$data/mysql" ]; then
    if [ -n "${MARIADB_AUTO_UPGRADE:-}" ]; then
        alone "$@"
        MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb-upgrade --no-defaults --protocol=socket --socket="$socket" -uroot
        end_alone
    fi
else
    if [ -z "$MARIADB_ROOT_PASSWORD" ]; then
        echo >&2 "error: the database is uninitialized and MARIADB_ROOT_PASSWORD is not set"
        exit 1
    fi
    initialise "$@"
fi
exec "$@" --socket="$socket"
