"""Releases of the bank that start well and go wrong later, each in its own way ($BAD): after a while, or with $ON when a file is
there, so that a slow machine has begun its trial by then."""

import os
import sys
import threading
import time

sys.path.insert(0, "/app")
import bank

BAD = os.environ["BAD"]
BEGAN = time.monotonic()
# A promotion looks whether it stays up for a second.
AFTER = 5
ON = os.environ.get("ON")
well = bank.handler


def due():
    return os.path.exists(ON) if ON else time.monotonic() - BEGAN > AFTER


def handler(of):
    kind = well(of)
    get = kind.do_GET
    audits = 0

    def do_GET(self):
        nonlocal audits
        if due() and BAD == "health" and self.path == "/health":
            return self.answer(503, {})
        if due() and self.path == "/audit":
            audits += 1
            if BAD == "workflow":
                return self.answer(200, {"ok": False, "sum": 0, "wrong": ["everything"]})
            if BAD == "errors" and audits % 4 == 0:
                return self.answer(500, {})
            if BAD == "latency":
                time.sleep(0.6)
        return get(self)

    kind.do_GET = do_GET
    return kind


def later():
    while not due():
        time.sleep(0.1)
    # Also after a restart.
    time.sleep(max(0, BEGAN + AFTER - time.monotonic()))
    if BAD == "restarts":
        os._exit(1)
    if BAD == "out-of-memory":
        kept = b"x" * (400 << 20)
        time.sleep(60)
        del kept
    if BAD == "panics":
        print("panic: ledger out of balance", flush=True)
    if BAD == "disk":
        with open("/data/ballast", "wb") as file:
            for _ in range(int(os.environ.get("BALLAST_MIB", "1500"))):
                file.write(os.urandom(1 << 20))
    kept = []
    while BAD == "memory":
        kept.append(b"x" * (1 << 20))
        time.sleep(0.4)
    while BAD == "complains":
        print("ERROR: the books cannot be opened", flush=True)
        time.sleep(0.3)


bank.handler = handler
threading.Thread(target=later, daemon=True).start()
bank.serve()
