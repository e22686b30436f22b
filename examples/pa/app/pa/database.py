"""Notes, reminders and people in Postgres, and the migrations of their tables."""

import pathlib
import sys
import threading

import psycopg

from pa import RELEASE
from pa.web import setting

MIGRATIONS = pathlib.Path(__file__).parent / "migrations"


class Database:
    """One connection, which is made again when it was lost."""

    def __init__(self):
        self.lock = threading.Lock()
        self.connection = None

    def connect(self):
        return psycopg.connect(
            host=setting("PA_DB_HOST", "db"),
            dbname="pa",
            user="pa",
            password=setting("PA_DB_PASSWORD"),
            connect_timeout=5,
            row_factory=psycopg.rows.dict_row,
        )

    def run(self, sql, values=()):
        """One statement, as a transaction of its own; its rows. A lost connection is noticed before, not in between."""
        with self.lock:
            if self.connection is None or self.connection.closed:
                self.connection = self.connect()
            try:
                with self.connection.transaction():
                    cursor = self.connection.execute(sql, values)
                    return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                self.connection.close()
                raise


def version(connection):
    found = connection.execute("select to_regclass('public.schema_version') as t").fetchone()["t"]
    return connection.execute("select version from schema_version").fetchone()["version"] if found else 0


def migrate():
    """Brings the tables to this release, all in one transaction; an empty database is set up."""
    with Database().connect() as connection:
        connection.execute("select pg_advisory_xact_lock(5678)")
        found = version(connection)
        if found > RELEASE:
            sys.exit(f"pa: the tables have version {found}, this is release {RELEASE}: there is no way back")
        for number in range(found + 1, RELEASE + 1):
            connection.execute((MIGRATIONS / f"{number}.sql").read_text())
            connection.execute("update schema_version set version = %s", (number,))
    print(f"pa: tables: version {found} -> {RELEASE}", flush=True)


def open_database():
    """For the services: sets up an empty database, and refuses the tables of another release."""
    database = Database()
    with database.connect() as connection:
        found = version(connection)
    if found == 0:
        migrate()
    elif found != RELEASE:
        sys.exit(f"pa: the tables have version {found}, this is release {RELEASE}; run: python3 -m pa.database")
    return database


if __name__ == "__main__":
    migrate()
