#!/usr/bin/env bash
# Does what people rely on in the entrypoint of the official PostgreSQL image:
#   POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_INITDB_ARGS, each also as NAME_FILE;
#   POSTGRES_HOST_AUTH_METHOD; PGDATA; /docker-entrypoint-initdb.d; arguments that start with `-`.
# pg_hba.conf is initdb's own (trust for the socket, for 127.0.0.1 and ::1, also for replication) and one
# more line for everybody else.
set -euo pipefail

# from_file NAME DEFAULT: exports NAME, read from the file NAME_FILE if that is set.
from_file() {
    local name=$1 file=${1}_FILE
    if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
        echo >&2 "error: both $name and $file are set"
        exit 1
    fi
    local value=${!name:-$2}
    [ -z "${!file:-}" ] || value=$(<"${!file}")
    export "$name=$value"
    unset "$file"
}

initialise() {
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        ${POSTGRES_INITDB_ARGS:+$POSTGRES_INITDB_ARGS}
    local method
    method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption "$@")}
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

    # Only the socket until everything is there: who waits for the port must not see a half-made database.
    # The same arguments as later, and what must not come from them last.
    local arguments
    printf -v arguments '%q ' "$@" -c listen_addresses= -p "${PGPORT:-5432}"
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -o "$arguments" -w start
    local query=(psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$POSTGRES_USER")
    if [ "$POSTGRES_DB" != postgres ]; then
        "${query[@]}" --dbname postgres --set db="$POSTGRES_DB" <<<'create database :"db";'
    fi
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) bash "$file" ;;
            *.sql) "${query[@]}" --dbname "$POSTGRES_DB" -f "$file" ;;
            *.sql.gz) gunzip -c "$file" | "${query[@]}" --dbname "$POSTGRES_DB" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
[ "${1:-}" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    find "$PGDATA" \! -user postgres -exec chown postgres {} +
    find /var/run/postgresql \! -user postgres -exec chown postgres {} +
    chmod 3775 /var/run/postgresql
    exec setpriv --reuid postgres --regid postgres --init-groups -- "$0" "$@"
fi

if [ -s "$PGDATA/PG_VERSION" ]; then
    printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
else
    from_file POSTGRES_PASSWORD ""
    from_file POSTGRES_USER postgres
    from_file POSTGRES_DB "$POSTGRES_USER"
    from_file POSTGRES_INITDB_ARGS ""
    if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo >&2 "error: the database is uninitialized and POSTGRES_PASSWORD is not set"
        exit 1
    fi
    initialise "${@:2}"
fi
exec "$@"
