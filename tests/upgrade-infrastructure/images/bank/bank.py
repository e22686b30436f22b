#!/usr/bin/env python3
"""An accounting service: money moves between accounts all the time, and the sum never changes.

Every transfer is a file in /receipts and a row in /data/bank.db, in this order, so that a copy of one
without the other, a torn file or a lost row shows. Release 2 has one column more and refuses the database of
release 1 until `bank.py migrate` has run; release 1 refuses the database of release 2.

    GET  /health    200 when it works
    GET  /audit     {release, accounts, sum, transfers, receipts, ok, wrong}
    POST /transfer  {"from": 1, "to": 2, "amount": 5} -> 201 {id}: durable when it is answered
    POST /pause, POST /resume   the transfers of its own accord
"""

import hashlib
import http.server
import json
import os
import pathlib
import random
import signal
import sqlite3
import sys
import threading

RELEASE = int(os.environ["BANK_RELEASE"])
DATA = pathlib.Path(os.environ.get("BANK_DATA", "/data"))
PORT = int(os.environ.get("BANK_PORT", "8080"))
# Transfers per second of its own accord; 0 for none.
RATE = float(os.environ.get("BANK_RATE", "0"))
ACCOUNTS, BALANCE = 100, 1000
RECEIPTS = pathlib.Path(os.environ.get("BANK_RECEIPTS", "/receipts"))

SCHEMA = """
create table accounts (id integer primary key, balance integer not null);
create table transfers (id integer primary key, debit integer not null, credit integer not null,
                        amount integer not null);
"""


def connect():
    database = sqlite3.connect(DATA / "bank.db", check_same_thread=False, isolation_level=None, timeout=30)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    return database


def version(database):
    return database.execute("pragma user_version").fetchone()[0]


def create(database):
    database.executescript("begin;" + SCHEMA)
    database.executemany("insert into accounts values (?, ?)", [(n, BALANCE) for n in range(1, ACCOUNTS + 1)])
    if RELEASE >= 2:
        add_column(database)
    database.execute(f"pragma user_version = {RELEASE}")
    database.execute("commit")


def add_column(database):
    database.execute("alter table transfers add column note text not null default ''")


def migrate():
    database = connect()
    found = version(database)
    if found == 0:
        create(database)
    elif found == 1 and RELEASE == 2:
        database.execute("begin immediate")
        add_column(database)
        database.execute("pragma user_version = 2")
        database.execute("commit")
    elif found != RELEASE:
        sys.exit(f"bank: there is no way from version {found} to {RELEASE}")
    database.close()
    print(f"bank: version {found} -> {RELEASE}")


def receipt(number, debit, credit, amount):
    body = f"{number} {debit} {credit} {amount}\n"
    return body + hashlib.sha256(body.encode()).hexdigest() + "\n"


def write_durably(path, text):
    partial = path.with_suffix(".partial")
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Bank:
    def __init__(self):
        self.lock = threading.Lock()
        self.running = threading.Event()
        self.ended = threading.Event()
        self.database = connect()

    def transfer(self, debit, credit, amount):
        """Moves money; durable when this returns. A receipt without its row is written again."""
        with self.lock:
            execute = self.database.execute
            number = execute("select coalesce(max(id), 0) + 1 from transfers").fetchone()[0]
            write_durably(RECEIPTS / f"{number:08}", receipt(number, debit, credit, amount))
            execute("begin immediate")
            execute("update accounts set balance = balance - ? where id = ?", (amount, debit))
            execute("update accounts set balance = balance + ? where id = ?", (amount, credit))
            execute(
                "insert into transfers (id, debit, credit, amount) values (?, ?, ?, ?)",
                (number, debit, credit, amount),
            )
            execute("commit")
            return number

    def audit(self):
        with self.lock:
            query = lambda sql: self.database.execute(sql).fetchall()
            wrong = []
            total = query("select sum(balance) from accounts")[0][0]
            if total != ACCOUNTS * BALANCE:
                wrong.append(f"the sum is {total} instead of {ACCOUNTS * BALANCE}")
            expected = dict.fromkeys(range(1, ACCOUNTS + 1), BALANCE)
            rows = query("select id, debit, credit, amount from transfers order by id")
            for number, debit, credit, amount in rows:
                expected[debit] -= amount
                expected[credit] += amount
                try:
                    same = (RECEIPTS / f"{number:08}").read_text() == receipt(number, debit, credit, amount)
                except OSError:
                    same = False
                if not same:
                    wrong.append(f"transfer {number} has no right receipt")
            wrong += [
                f"account {number} has {balance} instead of {expected[number]}"
                for number, balance in query("select id, balance from accounts")
                if balance != expected[number]
            ]
            receipts = sum(1 for path in RECEIPTS.iterdir() if not path.suffix)
            # One more when it was ended between the two.
            if receipts - len(rows) not in (0, 1):
                wrong.append(f"{receipts} receipts for {len(rows)} transfers")
            return {
                "release": RELEASE,
                "accounts": ACCOUNTS,
                "sum": total,
                "transfers": len(rows),
                "receipts": receipts,
                "ok": not wrong,
                "wrong": wrong[:20],
            }

    def work(self):
        while not self.ended.wait(1 / RATE):
            if self.running.is_set():
                debit, credit = random.sample(range(1, ACCOUNTS + 1), 2)
                self.transfer(debit, credit, random.randint(1, 50))


def handler(bank):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            if self.path == "/health":
                self.answer(200, {"release": RELEASE})
            elif self.path == "/audit":
                self.answer(200, bank.audit())
            elif self.path == "/totals":
                # The same in every release and at every moment.
                audit = bank.audit()
                self.answer(200, {key: audit[key] for key in ("accounts", "sum", "ok")})
            else:
                self.answer(404, {})

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/pause":
                bank.running.clear()
                # Until one that has begun is done.
                with bank.lock:
                    self.answer(200, {})
            elif self.path == "/resume":
                bank.running.set()
                self.answer(200, {})
            elif self.path == "/transfer":
                try:
                    order = json.loads(body)
                    debit, credit, amount = (int(order[key]) for key in ("from", "to", "amount"))
                except (ValueError, KeyError, TypeError):
                    return self.answer(400, {})
                if not (1 <= debit <= ACCOUNTS and 1 <= credit <= ACCOUNTS and amount > 0):
                    return self.answer(422, {})
                self.answer(201, {"id": bank.transfer(debit, credit, amount)})
            else:
                self.answer(404, {})

        def log_message(self, *arguments):
            pass

    return Handler


def serve():
    RECEIPTS.mkdir(parents=True, exist_ok=True)
    bank = Bank()
    found = version(bank.database)
    if found == 0:
        create(bank.database)
    elif found != RELEASE:
        sys.exit(f"bank: the database has version {found}, this is release {RELEASE}; run: bank.py migrate")
    server = http.server.ThreadingHTTPServer(("0.0.0.0", PORT), handler(bank))

    def end(*_):
        bank.ended.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if RATE > 0:
        bank.running.set()
        threading.Thread(target=bank.work, daemon=True).start()
    print(f"bank: release {RELEASE} on port {PORT}", flush=True)
    server.serve_forever()
    # A transfer that has begun is finished first.
    with bank.lock:
        bank.database.close()


if __name__ == "__main__":
    migrate() if sys.argv[1:] == ["migrate"] else serve()
