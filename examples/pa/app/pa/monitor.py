"""The health monitor: asks the other services all the time, and keeps when each of them went up or down.

    GET /status   {"ok", "services": {NAME: {"up", "since", "checked", "ms"}}, "changes": [...]}; 503 if one is down
    GET /health   200 while it asks
"""

import datetime
import sqlite3
import threading
import time

import psycopg
import redis

from pa import outside
from pa.database import Database
from pa.web import INSIDE, serve, setting

EVERY = float(setting("MONITOR_EVERY", "5"))
FILE = setting("MONITOR_FILE", "/data/history.sqlite")
ADDRESSES = {
    "mcp": "http://mcp:8080/health",
    "bot": "http://bot:8080/health",
    "n8n": "http://n8n:5678/healthz/readiness",
}
SCHEMA = """create table if not exists changes (
    id integer primary key, service text not null, up integer not null, at text not null)"""


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def probe(service, database, store):
    if service == "db":
        database.run("select 1")
    elif service == "redis":
        store.ping()
    else:
        INSIDE.open(ADDRESSES[service], timeout=15).close()


class History:
    """Only changes are written: a stack that is well leaves its monitor's file alone."""

    def __init__(self):
        self.lock = threading.Lock()
        self.database = sqlite3.connect(FILE, check_same_thread=False, isolation_level=None)
        self.database.execute(SCHEMA)

    def last(self, service):
        with self.lock:
            sql = "select up, at from changes where service = ? order by id desc limit 1"
            return self.database.execute(sql, (service,)).fetchone()

    def add(self, service, up):
        with self.lock:
            self.database.execute("insert into changes (service, up, at) values (?, ?, ?)", (service, up, now()))

    def newest(self):
        with self.lock:
            rows = self.database.execute("select service, up, at from changes order by id desc limit 50").fetchall()
        return [{"service": service, "up": bool(up), "at": at} for service, up, at in rows]


def main():
    history, database = History(), Database()
    store = redis.Redis(host=setting("REDIS_HOST", "redis"), socket_timeout=15)
    seen, last_round = {}, [time.monotonic()]

    def look():
        for service in ["db", "redis", *ADDRESSES]:
            began = time.monotonic()
            try:
                probe(service, database, store)
                up = True
            except (OSError, psycopg.Error, redis.RedisError):
                up = False
            ms = round((time.monotonic() - began) * 1000)
            before = history.last(service)
            if before is None or bool(before[0]) != up:
                history.add(service, up)
                if before is not None or not up:
                    outside.chat(f"{service} is {'up' if up else 'down'}")
            seen[service] = {"up": up, "since": history.last(service)[1], "checked": now(), "ms": ms}
        last_round[0] = time.monotonic()

    def work():
        while True:
            try:
                look()
            except sqlite3.Error as error:
                print(f"monitor: the history cannot be written: {error}", flush=True)
            time.sleep(EVERY)

    def status(_):
        services = dict(seen)
        ok = len(services) == len(ADDRESSES) + 2 and all(service["up"] for service in services.values())
        return 200 if ok else 503, {"ok": ok, "services": services, "changes": history.newest()}, {}

    def health(_):
        ok = time.monotonic() - last_round[0] < 10 * EVERY + 60
        return 200 if ok else 503, {"ok": ok}, {}

    outside.start()
    threading.Thread(target=work, daemon=True).start()
    serve("monitor", {"GET /status": status, "GET /health": health})


if __name__ == "__main__":
    main()
