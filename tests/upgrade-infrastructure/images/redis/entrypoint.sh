#!/bin/sh
# Does what people rely on in the entrypoint of the official Redis image: arguments that start with `-`, the data
# folder belongs to the server's user, and the server does not run as root.
set -eu

[ "${1#-}" = "$1" ] || set -- redis-server "$@"
[ "$1" = redis-server ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis {} +
    exec setpriv --reuid redis --regid redis --init-groups -- "$0" "$@"
fi
# Redis protects itself by listening to this machine only; in a container the network is the protection.
exec "$@" --protected-mode no
